"""Distillation: training students on a snapshot's responses, several replicates sharing each pass of the teacher."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sweetspot.config import Precision, StudyConfig, canonical_json
from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import Labelled, StudyData
from sweetspot.models import build
from sweetspot.store.students import Purpose
from sweetspot.student.losses import CrossEntropy, Distillation, StudentLoss
from sweetspot.training.engine import DivergedError, respond, train_epoch
from sweetspot.training.optimizers import optimizer
from sweetspot.training.schedules import learning_rates, schedule
from sweetspot.training.weights import to_bytes

FORMAT = 1
"""Rises with every change that alters a student's training numerically."""

OnEpoch = Callable[[str, int, float | None], None]


@dataclass(frozen=True)
class DistillationRecipe:
    """All that determines a student but its seed: identified by its hash.

    Attributes:
        teacher: (recipe's hash, epochs) of the snapshot that teaches; None: the student learns from labels alone.
    """

    config: StudyConfig
    data_hash: str
    teacher: tuple[str, int] | None

    @cached_property
    def hash(self) -> str:
        student = self.config.student.model_dump(mode="json", exclude={"replicates"})
        if self.teacher is None:
            del student["temperature"], student["alpha"]
        values: dict[str, Any] = {
            "format": FORMAT,
            "data": {
                "hash": self.data_hash,
                "validation": self.config.data.validation,
                "augmentation": self.config.data.augmentation,
            },
            "teacher": self.teacher,
            "student": student,
            "seed": self.config.seed,
        }
        return hashlib.sha256(canonical_json(values).encode()).hexdigest()


@dataclass(frozen=True)
class TrainedStudent:
    """A student at the end of its training, on its device; accuracies are fractions, a loss is an epoch's mean."""

    replicate: int
    model: nn.Module
    accuracy: float
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    seconds: float

    @property
    def weights(self) -> bytes:
        return to_bytes(self.model.state_dict())


def distill(
    config: StudyConfig,
    data: StudyData,
    teacher: nn.Module | None,
    teacher_precision: Precision,
    replicates: Sequence[int],
    purpose: Purpose,
    device: torch.device,
    on_epoch: OnEpoch = lambda phase, epoch, entropy: None,
) -> list[TrainedStudent]:
    """Train one student per replicate.

    Each epoch's views are made once and shown to the teacher once, whatever the number of students; each student has
    its own initial weights and its own order. Both follow from the replicate's index alone, so that a replicate does
    not depend on which others run beside it, and equal replicates of two teachers are a pair.

    Args:
        teacher: in evaluation mode; None: the students learn from labels alone.
        teacher_precision: the precision of its forward pass.
        replicates: indices.
        purpose: "confirm" gives seeds that no search has seen.

    Raises:
        DivergedError: if a student's loss is not finite.
    """
    options = config.student
    view_seed = seed_of(config.seed, "student", "views", purpose)
    students = [_Student(config, data, replicate, purpose, device) for replicate in replicates]
    plan = schedule(options.schedule, options.epochs)
    loss: StudentLoss = CrossEntropy() if teacher is None else Distillation(options.temperature, options.alpha)
    responses: Tensor | None = None
    for epoch in range(options.epochs):
        started = time.monotonic()
        views = data.views(view_seed, epoch)
        if teacher is not None and (responses is None or data.views_differ):
            responses = respond(teacher, views, teacher_precision)
        lrs = learning_rates(plan, options.optimizer.lr, epoch, options.epochs, data.train_images // options.batch_size)
        shared = (time.monotonic() - started) / len(students)
        for student in students:
            student.seconds += shared
            student.train(views, responses, loss, lrs, epoch)
            on_epoch("student", epoch + 1, None)
    return [student.result() for student in students]


class _Student:
    """One replicate while it trains."""

    def __init__(
        self, config: StudyConfig, data: StudyData, replicate: int, purpose: Purpose, device: torch.device
    ) -> None:
        self._options = config.student
        self._data = data
        self._replicate = replicate
        self._seed = seed_of(config.seed, "student", purpose, replicate)
        torch.manual_seed(seed_of(self._seed, "weights"))
        model = build(
            config.student.model,
            classes=len(data.classes),
            channels=data.channels,
            image_size=data.image_size,
        )
        self._model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = optimizer(self._model, config.student.optimizer)
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self.seconds = 0.0

    def train(self, views: Tensor, responses: Tensor | None, loss: StudentLoss, lrs: list[float], epoch: int) -> None:
        started = time.monotonic()
        labels = self._data.labels

        def loss_of(logits: Tensor, batch: Tensor) -> Tensor:
            taught = None if responses is None else responses[batch]
            return loss(logits, taught, labels[batch])["loss"]

        try:
            mean = train_epoch(
                self._model,
                self._optimizer,
                views,
                loss_of,
                lrs,
                batch_size=self._options.batch_size,
                seed=self._seed,
                epoch=epoch,
                precision=self._options.precision,
            )
        except DivergedError as error:
            raise DivergedError(error.epoch, error.lr, "student's loss") from None
        self._losses.append(mean)
        self._accuracies.append(self._accuracy())
        self.seconds += time.monotonic() - started

    def _accuracy(self) -> float:
        correct = correctness(self._model, self._data.validation, self._options.precision)
        return int(correct.sum()) / len(correct)

    def result(self) -> TrainedStudent:
        return TrainedStudent(
            self._replicate,
            self._model,
            self._accuracies[-1],
            tuple(self._losses),
            tuple(self._accuracies),
            self.seconds,
        )


def correctness(model: nn.Module, images: Labelled, precision: Precision) -> Tensor:
    """Whether the model's most probable class is the label: bool (N,)."""
    return respond(model, images.images, precision).argmax(1) == images.labels
