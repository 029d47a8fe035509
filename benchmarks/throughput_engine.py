"""The engine's arms of ``benchmarks.throughput``: what a worker runs, one worker per core (on a GPU: one)."""

import time

import torch

from benchmarks.throughput_arms import Runner, Span
from benchmarks.throughput_job import ALPHA, LR, MOMENTUM, TEMPERATURE, WEIGHT_DECAY, Job, sample, untrained_teacher
from sweetspot.config import (
    SGD,
    Constant,
    DataConfig,
    LRRule,
    SearchConfig,
    StudentConfig,
    StudyConfig,
    TeacherConfig,
)
from sweetspot.data.study_data import StudyData
from sweetspot.student.distillation import distill
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.training import TeacherTraining
from sweetspot.training.device import prepare, resolve_precision

_ENDLESS = 10**6
"""Epochs of a teacher's run, of which a round trains some."""


def study(job: Job, classes: int, epochs: int = 1) -> StudyConfig:
    """The study whose teachers and students take the same steps as the reference."""
    optimizer = SGD(lr=LR, momentum=MOMENTUM, nesterov=False, weight_decay=WEIGHT_DECAY)
    plan, precision = Constant(), resolve_precision("auto", job.device)
    return StudyConfig(
        data=DataConfig(validation=classes),
        teacher=TeacherConfig(
            model=job.teacher,
            optimizer=optimizer,
            lr_rule=LRRule(name="none"),
            schedule=plan,
            precision=precision,
        ),
        student=StudentConfig(
            model=job.student,
            epochs=epochs,
            batch_size=job.batch_size,
            optimizer=optimizer,
            schedule=plan,
            temperature=TEMPERATURE,
            alpha=ALPHA,
            precision=precision,
        ),
        search=SearchConfig(batch_size=(job.batch_size,), epochs=(1,)),
    )


class _Engine(Runner):
    """On a GPU a round's first epoch, in which its kernels are chosen and its graphs are captured, is not timed."""

    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job)
        found = sample(job.data, job.images)
        self.config = study(job, len(found.classes))
        prepare(job.device, self.config.run)
        self.data = StudyData(found, self.config, self.device)
        self.steps = self.data.train_images // job.batch_size

    @property
    def untimed(self) -> int:
        """Epochs at a round's beginning."""
        return 1 if self.job.is_cuda else 0


class EngineDistillation(_Engine):
    """Distills students, one epoch of all after the other.

    Args:
        students: of this process.
    """

    def __init__(self, job: Job, index: int, *, students: int) -> None:
        super().__init__(job, index)
        self._replicates = range(index * students, (index + 1) * students)
        teacher = untrained_teacher(job.teacher, len(self.data.classes))
        self._teacher = teacher.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, epochs: int) -> Span:
        options = self.config.student.model_copy(update={"epochs": epochs + self.untimed})
        config = self.config.model_copy(update={"student": options})
        begin = time.monotonic()

        def on_epoch(phase: str, epoch: int, entropy: float | None) -> None:
            nonlocal begin
            if epoch <= self.untimed:
                begin = time.monotonic()

        precision = config.teacher.precision
        distill(config, self.data, self._teacher, precision, self._replicates, "search", self.device, on_epoch)
        end = time.monotonic()
        done = epochs * self.steps * self.job.batch_size * len(self._replicates)
        return Span(begin, end, done, self.peak_memory())


class EngineTeacher(_Engine):
    """Trains a teacher on and on."""

    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job, index)
        recipe = Recipe(self.config, self.data.hash, job.batch_size)
        self._training = TeacherTraining.fresh(recipe, self.data, self.device)

    def run(self, epochs: int) -> Span:
        for _ in range(self.untimed):
            self._train_epoch()
        begin = time.monotonic()
        for _ in range(epochs):
            self._train_epoch()
        end = time.monotonic()
        return Span(begin, end, epochs * self.steps * self.job.batch_size, self.peak_memory())

    def _train_epoch(self) -> None:
        self._training.train_epoch(_ENDLESS, lambda step, loss: None)
