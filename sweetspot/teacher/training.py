"""A teacher while it trains: network, optimiser, and where in its run it is."""

import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import StudyData
from sweetspot.models import build
from sweetspot.teacher.recipe import Recipe
from sweetspot.timing import span
from sweetspot.training.engine import MidEpoch, OnStep, Training, random_state
from sweetspot.training.optimizers import load_state_tensors, optimizer, state_tensors
from sweetspot.training.resume import load_training_state, training_state
from sweetspot.training.schedules import learning_rates
from sweetspot.training.weights import from_bytes, load_weights, to_bytes


def network(recipe: Recipe, data: StudyData, device: torch.device) -> nn.Module:
    """The recipe's network on the device, with the initial weights that torch's generator gives."""
    model = build(
        recipe.config.teacher.model, classes=len(data.classes), channels=data.channels, image_size=data.image_size
    )
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass
class TeacherTraining:
    """A teacher at some step of some epoch of its run, ready to train on.

    Attributes:
        epoch: whole epochs that are done.
        before: seconds that the epoch under way had taken when it was interrupted.
    """

    recipe: Recipe
    data: StudyData
    device: torch.device
    epoch: int
    model: nn.Module = field(repr=False)
    before: float = 0.0
    _within: MidEpoch | None = None

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        options = self.recipe.config.teacher
        self._optimizer = optimizer(self.model, options.optimizer)
        self._seed = seed_of(self.recipe.seed, "teacher")

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits.float(), labels, label_smoothing=options.label_smoothing)

        self._training = Training(
            self.model, self._optimizer, loss,
            batch_size=self.recipe.batch_size, precision=options.precision, seed=self._seed,
        )  # fmt: skip

    @classmethod
    def fresh(cls, recipe: Recipe, data: StudyData, device: torch.device) -> "TeacherTraining":
        """Before the first step; the weights follow from the recipe's seed."""
        torch.manual_seed(seed_of(recipe.seed, "teacher", "weights"))
        return cls(recipe, data, device, 0, network(recipe, data, device))

    @classmethod
    def from_snapshot(
        cls, recipe: Recipe, data: StudyData, device: torch.device, epoch: int, weights: bytes, state: bytes
    ) -> "TeacherTraining":
        """At the end of an epoch, from the weights and the optimiser's state then."""
        model = network(recipe, data, device)
        load_weights(model, weights)
        training = cls(recipe, data, device, epoch, model)
        load_state_tensors(training._optimizer, model, from_bytes(state))
        return training

    @classmethod
    def from_checkpoint(
        cls,
        recipe: Recipe,
        data: StudyData,
        device: torch.device,
        epoch: int,
        step: int,
        state: bytes,
        seconds: float,
    ) -> "TeacherTraining":
        """From what :meth:`state` gave after ``step`` of the next epoch's steps; 0: between two epochs."""
        training = cls(recipe, data, device, epoch, network(recipe, data, device), seconds)
        place = load_training_state(state, training.model, training._optimizer, step)
        training._within = place if step else None
        return training

    @property
    def steps(self) -> int:
        """Of an epoch; the last partial batch is dropped."""
        return self.data.train_images // self.recipe.batch_size

    @property
    def seconds(self) -> float:
        """That the epoch under way has taken so far."""
        return self.before + time.monotonic() - self._started

    def train_epoch(self, total: int, on_step: OnStep) -> tuple[float, float]:
        """Train to the end of the epoch under way, of a run of ``total`` epochs; its mean loss, and its seconds.

        Raises:
            DivergedError: if that is not finite.
        """
        self._started = time.monotonic()
        with span("teacher", epochs=1):
            loss = self._training.epoch(
                self.data.views(self._seed, self.epoch),
                (self.data.labels,),
                learning_rates(self.recipe.schedule, self.recipe.lr, self.epoch, total, self.steps),
                self.epoch,
                start=self._within,
                on_step=on_step,
            )
        seconds = self.seconds
        self.before, self._within = 0.0, None
        self.epoch += 1
        return loss, seconds

    def weights(self) -> bytes:
        return to_bytes(self.model.state_dict())

    def optimizer_state(self) -> bytes:
        return to_bytes(state_tensors(self._optimizer, self.model))

    def state(self, loss: Tensor) -> bytes:
        """All that :meth:`from_checkpoint` needs; ``loss`` is the sum over the epoch's steps that are done."""
        return training_state(self.model, self._optimizer, loss, random_state(self.device))
