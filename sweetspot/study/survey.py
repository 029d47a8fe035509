"""Survey: what teachers' responses say along their trajectories, before a student is trained."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Measurement, Probe
from sweetspot.study.ordering import Ordering
from sweetspot.study.space import Point
from sweetspot.study.visit import Visit
from sweetspot.study.workplace import Workplace
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.trajectory import branch_of
from sweetspot.training.engine import DivergedError
from sweetspot.training.schedules import EpochsMean, Schedule, schedule

Kind = Literal["trunk", "teacher"]
SURVEYED = (
    "accuracy",
    "non_target_mass",
    "similarity_entropy",
    "class_information",
    "image_information",
    "delivered_similarity",
)
"""The measures of a survey: fractions the first two, nats the others."""

OnTeacher = Callable[[Point, Measurement | str, bool], None]
"""(point, measurement on training views or in words why there is no such teacher, whether it was trained just now).

Called once for each teacher.
"""


@dataclass(frozen=True)
class SurveyPoint:
    """What was measured of a teacher at one epoch, on one probe.

    Attributes:
        epochs: that it was trained.
        steps: the same in optimiser steps.
        recomputed: whether it was measured with BatchNorm recomputed, as it would teach.
        values: by the names of :data:`SURVEYED`.
    """

    batch_size: int
    epochs: int
    steps: int
    probe: Probe
    recomputed: bool
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """The trajectory of one batch size.

    Attributes:
        recipe: its hash.
        trunk: of the run that longer runs share, every epoch that is measured; empty where they share nothing.
        teachers: of the rungs of the ladder, as a trial would distill from them.
        diverged: why there is no teacher of so many epochs.
    """

    batch_size: int
    recipe: str
    trunk: tuple[SurveyPoint, ...]
    teachers: tuple[SurveyPoint, ...]
    diverged: Mapping[int, str]

    def of(self, kind: Kind, probe: Probe) -> list[SurveyPoint]:
        """By rising epochs."""
        return [point for point in (self.trunk if kind == "trunk" else self.teachers) if point.probe == probe]


@dataclass(frozen=True)
class Survey:
    """The teachers of a configuration's batch sizes and rungs, measured.

    Attributes:
        config: every "auto" settled.
        curves: one per batch size, ascending.
        epochs_requested: what the same teachers would have taken, each trained on its own.
        epochs_trained: by this survey; the store had the rest.
    """

    config: StudyConfig
    data_hash: str
    curves: tuple[Curve, ...]
    epochs_requested: int
    epochs_trained: int

    @property
    def temperature(self) -> float:
        return self.config.teacher.probe_temperature

    @property
    def epochs_mean(self) -> EpochsMean:
        """What "a teacher of n epochs" is here: "truncated" or "annealed"."""
        return _schedule(self.config).epochs_mean

    def to_dict(self) -> dict[str, Any]:
        """What ``sweetspot entropy --json`` prints; finite numbers only, None for what is missing.

        ``dataset``, ``data_hash``, ``teacher``, ``schedule`` (its name), ``epochs_mean``, ``temperature``, ``seed``;
        ``recipes``: a list of ``batch_size`` and ``recipe`` (hash);
        ``points``: a list of ``batch_size``, ``epochs``, ``steps``, ``probe`` ("train": training views, or
        "validation"), ``kind`` ("teacher": what a trial distills from, at a rung; "trunk": an epoch of the run that
        longer runs share; where such a run stopped there is the teacher, both are listed), ``recomputed`` and the
        :data:`SURVEYED`, fractions and nats;
        ``diverged``: a list of ``batch_size``, ``epochs`` and ``why``;
        ``cost``: ``teacher_epochs_requested`` and ``teacher_epochs_trained``.
        """
        teacher = self.config.teacher
        kinds: tuple[Kind, ...] = ("trunk", "teacher")
        return {
            "dataset": self.config.data.dataset,
            "data_hash": self.data_hash,
            "teacher": teacher.model,
            "schedule": teacher.schedule.name,
            "epochs_mean": self.epochs_mean,
            "temperature": self.temperature,
            "seed": self.config.seed,
            "recipes": [{"batch_size": curve.batch_size, "recipe": curve.recipe} for curve in self.curves],
            "points": [
                {
                    "batch_size": point.batch_size,
                    "epochs": point.epochs,
                    "steps": point.steps,
                    "probe": point.probe,
                    "kind": kind,
                    "recomputed": point.recomputed,
                    **{name: _finite(value) for name, value in point.values.items()},
                }
                for curve in self.curves
                for kind in kinds
                for point in (curve.trunk if kind == "trunk" else curve.teachers)
            ],
            "diverged": [
                {"batch_size": curve.batch_size, "epochs": epochs, "why": why}
                for curve in self.curves
                for epochs, why in curve.diverged.items()
            ],
            "cost": {
                "teacher_epochs_requested": self.epochs_requested,
                "teacher_epochs_trained": self.epochs_trained,
            },
        }


def surveyed(config: StudyConfig) -> dict[Point, int]:
    """The teachers of a survey in the order of the work, each with the epochs that those before it do not share.

    By batch size; the longest first, whose run the others share as far as the schedule lets them.
    """
    longest, *shorter = reversed(config.search.ladder)
    rule = _schedule(config)
    own = {longest: longest} | {epochs: epochs - rule.shared_epochs(epochs) for epochs in shorter}
    return {Point(size, epochs): count for size in config.search.batch_size for epochs, count in own.items()}


def survey(
    config: StudyConfig, workplace: Workplace, on_teacher: OnTeacher = lambda point, outcome, trained: None
) -> Survey:
    """Bring the trajectory of every batch size to every rung of the ladder, and read what was measured.

    A teacher that is in the store is not trained again. One that another worker is training at the moment comes last,
    so that several processes share the work. A teacher that diverges is left out, and the others go on.

    Args:
        config: every "auto" settled; of the search its batch sizes and epochs count.
    """
    work = _Work(config, workplace, on_teacher)
    work.run()
    curves = tuple(
        _curve(config, workplace, recipe, work.diverged.get(size, {})) for size, recipe in work.recipes.items()
    )
    return Survey(config, workplace.data.hash, curves, work.epochs_requested, work.epochs_trained)


class _Work:
    """The teachers that are still to be brought into the store, and what became of the others."""

    def __init__(self, config: StudyConfig, workplace: Workplace, on_teacher: OnTeacher) -> None:
        self.recipes = {size: Recipe(config, workplace.data.hash, size) for size in config.search.batch_size}
        self.diverged: dict[int, dict[int, str]] = {}
        self.epochs_requested = self.epochs_trained = 0
        self._config = config
        self._workplace = workplace
        self._on_teacher = on_teacher
        self._told: set[Point] = set()
        self._waiting = list(surveyed(config))

    def run(self) -> None:
        while self._waiting:
            there = self._workplace
            ordering = Ordering(self._config, there.data.hash, there.store.trajectories, there.leases)
            free = (point for point in self._waiting if not ordering.must_wait(point, ()))
            point = next(free, self._waiting[0])
            self._waiting.remove(point)
            self._visit(point)

    def _visit(self, point: Point) -> None:
        visit = Visit(self._config, point, self._workplace)
        recipe = self.recipes[point.batch_size]

        def on_rung(epoch: int, measurement: Measurement) -> None:
            if epoch == point.epochs or branch_of(recipe, epoch) == TRUNK:
                self._tell(Point(point.batch_size, epoch), measurement, visit.epochs_trained > 0)

        try:
            visit.train_teacher(on_rung)
        except DivergedError as error:
            self._leave_out(point, error)
        self.epochs_requested += visit.spent()["epochs_reached"]
        self.epochs_trained += visit.epochs_trained

    def _leave_out(self, point: Point, error: DivergedError) -> None:
        """Strike a teacher that diverged, and those whose runs share the epoch at which it did."""
        shared = self.recipes[point.batch_size].schedule.shared_epochs
        alike = [
            p
            for p in self._waiting
            if p.batch_size == point.batch_size and error.epoch <= min(shared(point.epochs), shared(p.epochs))
        ]
        for each in (point, *alike):
            self.diverged.setdefault(each.batch_size, {})[each.epochs] = str(error)
            self._tell(each, str(error), True)
        self._waiting = [p for p in self._waiting if p not in alike]

    def _tell(self, point: Point, outcome: Measurement | str, trained: bool) -> None:
        if point not in self._told:
            self._told.add(point)
            self._on_teacher(point, outcome, trained)


def _curve(config: StudyConfig, workplace: Workplace, recipe: Recipe, diverged: Mapping[int, str]) -> Curve:
    store, temperature = workplace.store.trajectories, config.teacher.probe_temperature
    steps = workplace.data.train_images // recipe.batch_size
    ladder = config.search.ladder

    def points(branch: int, wanted: Collection[int]) -> list[SurveyPoint]:
        measured = store.measurements(recipe.hash, branch, temperature)
        return [
            SurveyPoint(
                recipe.batch_size,
                epoch,
                epoch * steps,
                probe,
                measurement.recomputed,
                {name: measurement.values[name] for name in SURVEYED},
            )
            for (epoch, probe), measurement in sorted(measured.items())
            if epoch in wanted
        ]

    there = [epochs for epochs in ladder if epochs not in diverged]
    teachers = [point for epochs in there for point in points(branch_of(recipe, epochs), {epochs})]
    trunk = points(TRUNK, range(1, recipe.schedule.shared_epochs(ladder[-1]) + 1))
    return Curve(recipe.batch_size, recipe.hash, tuple(trunk), tuple(teachers), dict(sorted(diverged.items())))


def _schedule(config: StudyConfig) -> Schedule:
    return schedule(config.teacher.schedule, config.search.ladder[0])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
