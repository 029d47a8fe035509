"""Learning-rate schedules: a factor for every step, and how much of a run longer runs share.

A schedule is added by a class here that follows :class:`Schedule`, its options in :mod:`sweetspot.config`, and a line
in ``_SCHEDULES``. Nothing here needs torch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sweetspot import config

EpochsMean = Literal["truncated", "annealed"]


@dataclass(frozen=True)
class Schedule(ABC):
    """How the learning rate goes along a run.

    Immutable; everything follows from the epoch. ``warmup`` is in epochs: over it the factor rises linearly from zero.
    """

    warmup: float

    def factor(self, epoch: float, total: int) -> float:
        """The factor on the learning rate at ``epoch`` (fractional, from 0) of a run of ``total`` epochs."""
        if epoch < self.warmup:
            return epoch / self.warmup
        return self.after_warmup(epoch, total)

    @abstractmethod
    def after_warmup(self, epoch: float, total: int) -> float:
        """The factor once the warm-up is over."""

    @abstractmethod
    def shared_epochs(self, total: int) -> int:
        """How many epochs of a run to ``total`` are identical with any longer run of the same recipe."""

    @property
    @abstractmethod
    def epochs_mean(self) -> EpochsMean:
        """What "a teacher of n epochs" is: a longer run stopped there, or a run whose schedule ends there."""


@dataclass(frozen=True)
class Constant(Schedule):
    def after_warmup(self, epoch: float, total: int) -> float:
        return 1.0

    def shared_epochs(self, total: int) -> int:
        return total

    @property
    def epochs_mean(self) -> EpochsMean:
        return "truncated"


@dataclass(frozen=True)
class Multistep(Schedule):
    milestones: tuple[float, ...]
    gamma: float

    @property
    def _in_epochs(self) -> bool:
        return self.milestones[0] >= 1

    def after_warmup(self, epoch: float, total: int) -> float:
        scale = 1 if self._in_epochs else total
        return float(self.gamma ** sum(epoch >= m * scale for m in self.milestones))

    def shared_epochs(self, total: int) -> int:
        return total if self._in_epochs else 0

    @property
    def epochs_mean(self) -> EpochsMean:
        return "truncated" if self._in_epochs else "annealed"


@dataclass(frozen=True)
class WSD(Schedule):
    """Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): a constant trunk, each run with its own decay."""

    decay: float

    def after_warmup(self, epoch: float, total: int) -> float:
        start = self.shared_epochs(total)
        return 1.0 if epoch < start else (total - epoch) / (total - start)

    def shared_epochs(self, total: int) -> int:
        return total - max(1, round(self.decay * total))

    @property
    def epochs_mean(self) -> EpochsMean:
        return "annealed"


@dataclass(frozen=True)
class Cosine(Schedule):
    def after_warmup(self, epoch: float, total: int) -> float:
        done = (epoch - self.warmup) / max(total - self.warmup, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def shared_epochs(self, total: int) -> int:
        return 0

    @property
    def epochs_mean(self) -> EpochsMean:
        return "annealed"


_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "multistep": Multistep,
    "wsd": WSD,
    "cosine": Cosine,
}


def schedule(options: config.Schedule, shortest: int) -> Schedule:
    """The schedule that ``options`` describe, its warm-up at most a tenth of the ``shortest`` run (epochs)."""
    values: dict[str, Any] = options.model_dump(exclude={"name"})
    values["warmup"] = min(values["warmup"], shortest / 10)
    return _SCHEDULES[options.name](**values)


def learning_rates(schedule: Schedule, lr: float, epoch: int, total: int, steps: int) -> list[float]:
    """The learning rate of each of the ``steps`` of epoch ``epoch`` (from 0) of a run of ``total`` epochs.

    Taken at the middle of the step, so that neither a warm-up's first step nor a decay's last one is wasted on zero.
    """
    return [lr * schedule.factor(epoch + (step + 0.5) / steps, total) for step in range(steps)]


def scaled_lr(lr: float, rule: config.LRRule, batch_size: int) -> float:
    """The learning rate at ``batch_size`` under the rule: linear (Goyal et al. 2017) or square root, capped."""
    ratio = batch_size / rule.batch_size
    scale = {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[rule.name]
    return lr * min(rule.cap, scale)
