"""Recipe: all that determines a teacher's training except how long it runs."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweetspot.config import Constant, StudyConfig, canonical_json
from sweetspot.data.seeding import seed_of
from sweetspot.training.schedules import Schedule, scaled_lr, schedule

FORMAT = 1
"""Rises with every change that alters training numerically, so that snapshots made before it are never mixed in."""


@dataclass(frozen=True)
class Recipe:
    """A teacher's training, identified by the hash of its canonical JSON.

    Every value is resolved: the learning rate is the one at this batch size, the precision is not "auto", the warm-up
    fits the shortest run.
    """

    config: StudyConfig
    data_hash: str
    batch_size: int

    @cached_property
    def lr(self) -> float:
        teacher = self.config.teacher
        return scaled_lr(teacher.optimizer.lr, teacher.lr_rule, self.batch_size)

    @cached_property
    def schedule(self) -> Schedule:
        return schedule(self.config.teacher.schedule, self.config.search.ladder[0])

    @cached_property
    def json(self) -> str:
        teacher = self.config.teacher
        if teacher.precision == "auto":
            raise ValueError("a recipe's precision is resolved before it is identified")
        values: dict[str, Any] = {
            "format": FORMAT,
            "data": {
                "hash": self.data_hash,
                "validation": self.config.data.validation,
                "augmentation": self.config.data.augmentation,
            },
            "model": teacher.model,
            "optimizer": teacher.optimizer.model_dump(mode="json") | {"lr": self.lr},
            "schedule": teacher.schedule.model_dump(mode="json") | {"warmup": self.schedule.warmup},
            "label_smoothing": teacher.label_smoothing,
            "precision": teacher.precision,
            "batch_size": self.batch_size,
            "seed": self.config.seed,
        }
        if teacher.seed:
            values["teacher_seed"] = teacher.seed
        return canonical_json(values)

    @property
    def seed(self) -> int:
        """From which the teacher's initial weights, orders and views follow."""
        teacher = self.config.teacher.seed
        return seed_of(self.config.seed, "teacher", teacher) if teacher else self.config.seed

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.json.encode()).hexdigest()


@dataclass(frozen=True)
class ExternalRecipe(Recipe):
    """A teacher that was trained elsewhere: its weights, and all that determines its response in a study.

    Its one snapshot is at the end of a training that nobody here can repeat. ``batch_size`` is the one with which its
    BatchNorm statistics are recomputed.

    Attributes:
        weights: the blob of its weights.
    """

    weights: str

    @cached_property
    def schedule(self) -> Schedule:
        return schedule(Constant(), 1)

    @cached_property
    def json(self) -> str:
        values: dict[str, Any] = {
            "format": FORMAT,
            "data": {
                "hash": self.data_hash,
                "validation": self.config.data.validation,
                "augmentation": self.config.data.augmentation,
            },
            "model": self.config.teacher.model,
            "weights": self.weights,
            "precision": self.config.teacher.precision,
            "batch_size": self.batch_size,
            "seed": self.config.seed,
        }
        return canonical_json(values)
