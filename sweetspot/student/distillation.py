"""Distillation: training students on a snapshot's responses, several replicates sharing each pass of the teacher."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from sweetspot.config import Precision, StudyConfig, canonical_json
from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import Labelled, StudyData
from sweetspot.data.views import EpochViews
from sweetspot.models import build
from sweetspot.store.students import Purpose
from sweetspot.student.checkpoints import HalfTrained, StudentCheckpoints
from sweetspot.student.losses import CrossEntropy, Distillation, StudentLoss
from sweetspot.student.responses import SnapshotResponses
from sweetspot.timing import span
from sweetspot.training.engine import DivergedError, MidEpoch, Training, random_state, respond
from sweetspot.training.inference import folded
from sweetspot.training.optimizers import optimizer
from sweetspot.training.resume import StoppedError, load_training_state, training_state
from sweetspot.training.schedules import learning_rates, schedule
from sweetspot.training.weights import to_bytes

FORMAT = 1
"""Rises with every change that alters a student's training by more than rounding."""

_EXAMPLES = 8
"""Images on which a teacher is compared with its copy for quick responses."""

OnEpoch = Callable[[str, int, float | None], None]


@dataclass(frozen=True)
class DistillationRecipe:
    """All that determines a student but its seed: identified by its hash.

    Attributes:
        teacher: (recipe's hash, epochs) of the snapshot that teaches; None: the student learns from labels alone.
        label_smoothing: of the labels, where they are all that it learns from.
    """

    config: StudyConfig
    data_hash: str
    teacher: tuple[str, int] | None
    label_smoothing: float = 0.0

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
        if self.label_smoothing:
            values["label_smoothing"] = self.label_smoothing
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
    checkpoints: StudentCheckpoints | None = None,
    responses: SnapshotResponses | None = None,
    label_smoothing: float = 0.0,
) -> list[TrainedStudent]:
    """Train one student per replicate.

    Each epoch's views are shown to the teacher once, whatever the number of students; each student has its own initial
    weights and its own order. Both follow from the replicate's index alone, so that a replicate does
    not depend on which others run beside it, and equal replicates of two teachers are a pair.

    Args:
        teacher: in evaluation mode; None: the students learn from labels alone.
        teacher_precision: the precision of its forward pass.
        replicates: indices.
        purpose: "confirm" gives seeds that no search has seen.
        checkpoints: where students that were interrupted go on from, and are saved meanwhile; None: nowhere.
        responses: the teacher's, where others have asked for them before; None: nobody has.
        label_smoothing: of the labels, where there is no teacher.

    Raises:
        DivergedError: if a student's loss is not finite.
        StoppedError: if ``checkpoints`` says so; the students are saved.
    """
    options = config.student
    view_seed = seed_of(config.seed, "student", "views", purpose)
    loss: StudentLoss = Distillation(options.temperature, options.alpha)
    if teacher is None:
        loss = CrossEntropy(label_smoothing)
    students = [_Student(config, data, loss, replicate, purpose, device) for replicate in replicates]
    if checkpoints is not None:
        for student in students:
            if (half := checkpoints.load(student.replicate)) is not None:
                student.go_on_from(half)

    def save_when_due() -> None:
        if checkpoints is None:
            return
        stop = checkpoints.should_stop()
        if stop or checkpoints.is_due():
            checkpoints.save({s.replicate: s.half_trained() for s in students if s.has_begun})
        if stop:
            raise StoppedError

    plan = schedule(options.schedule, options.epochs)
    known = SnapshotResponses() if responses is None else responses
    taught: tuple[Tensor, ...] = ()
    quick: nn.Module | None = None
    for epoch in range(min(student.epoch for student in students), options.epochs):
        started = time.monotonic()
        views = data.views(view_seed, epoch)
        if teacher is not None and (not taught or data.views_differ):
            shown = epoch if data.views_differ else 0
            with span("responses"):
                quick = quick or folded(teacher, data.validation.images[:_EXAMPLES], teacher_precision)
                taught = (known.get((view_seed, shown), partial(respond, quick, views, teacher_precision)),)
        lrs = learning_rates(plan, options.optimizer.lr, epoch, options.epochs, data.train_images // options.batch_size)
        due = [student for student in students if student.epoch == epoch]
        shared = (time.monotonic() - started) / len(due)
        for student in due:
            student.seconds += shared
            student.train_epoch(views, taught, lrs, save_when_due)
            save_when_due()
            on_epoch("student", epoch + 1, None)
    return [student.result() for student in students]


class _Student:
    """One replicate while it trains.

    Attributes:
        seconds: of its training so far, with its share of what students have in common.
    """

    def __init__(
        self,
        config: StudyConfig,
        data: StudyData,
        loss: StudentLoss,
        replicate: int,
        purpose: Purpose,
        device: torch.device,
    ) -> None:
        self.replicate = replicate
        self.seconds = 0.0
        self._options = config.student
        self._data = data
        self._device = device
        seed = seed_of(config.seed, "student", purpose, replicate)
        torch.manual_seed(seed_of(seed, "weights"))
        model = build(
            config.student.model,
            classes=len(data.classes),
            channels=data.channels,
            image_size=data.image_size,
        )
        self._model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = optimizer(self._model, config.student.optimizer)

        def loss_of(logits: Tensor, labels: Tensor, taught: Tensor | None = None) -> Tensor:
            return loss(logits, taught, labels)["loss"]

        self._training = Training(
            self._model, self._optimizer, loss_of,
            batch_size=config.student.batch_size, precision=config.student.precision, seed=seed,
        )  # fmt: skip
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._within: MidEpoch | None = None
        self._now: tuple[int, Tensor] | None = None

    @property
    def epoch(self) -> int:
        """Whole epochs that are done."""
        return len(self._losses)

    @property
    def has_begun(self) -> bool:
        return self.epoch > 0 or self._within is not None or self._now is not None

    def train_epoch(
        self, views: EpochViews, taught: tuple[Tensor, ...], lrs: list[float], on_step: Callable[[], None]
    ) -> None:
        """Train to the end of the epoch under way; ``on_step`` is called where it may be interrupted.

        Args:
            taught: the teacher's logits on the views, float32 (N, K), if there is a teacher.
        """
        started, before = time.monotonic(), self.seconds

        def keep_place(step: int, total: Tensor) -> None:
            self._now = step, total
            self.seconds = before + time.monotonic() - started
            if step < len(lrs):  # after the last one the epoch is evaluated first
                on_step()

        with span("students", epochs=1):
            try:
                mean = self._training.epoch(
                    views, (self._data.labels, *taught), lrs, self.epoch, start=self._within, on_step=keep_place
                )
            except DivergedError as error:
                raise DivergedError(error.epoch, error.lr, "student's loss") from None
            accuracy = self._accuracy()
        self._within = self._now = None
        self._losses.append(mean)
        self._accuracies.append(accuracy)
        self.seconds = before + time.monotonic() - started

    def half_trained(self) -> HalfTrained:
        """As it is: within an epoch, or between two."""
        place = self._within or MidEpoch(0, torch.zeros(()), torch.zeros(0, dtype=torch.uint8))
        if self._now is not None:
            place = MidEpoch(*self._now, random_state(self._device))
        state = training_state(self._model, self._optimizer, place.loss, place.random)
        return HalfTrained(place.step, state, tuple(self._losses), tuple(self._accuracies), self.seconds)

    def go_on_from(self, half: HalfTrained) -> None:
        """Be the student that was saved."""
        place = load_training_state(half.state, self._model, self._optimizer, half.step)
        self._within = place if half.step else None
        self._losses, self._accuracies = list(half.losses), list(half.accuracies)
        self.seconds = half.seconds

    def _accuracy(self) -> float:
        correct = correctness(self._model, self._data.validation, self._options.precision)
        return int(correct.sum()) / len(correct)

    def result(self) -> TrainedStudent:
        return TrainedStudent(
            self.replicate,
            self._model,
            self._accuracies[-1],
            tuple(self._losses),
            tuple(self._accuracies),
            self.seconds,
        )


def correctness(model: nn.Module, images: Labelled, precision: Precision) -> Tensor:
    """Whether the model's most probable class is the label: bool (N,)."""
    return respond(model, images.images, precision).argmax(1) == images.labels
