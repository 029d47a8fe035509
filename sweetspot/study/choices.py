"""What is chosen on the validation split before a confirmation begins: its students are none of the confirmation's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean
from typing import TypeVar

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Store, StudyRecord
from sweetspot.study.arms import ACCURATE_T, BEST_T, SMOOTHED
from sweetspot.study.ranking import Ranked
from sweetspot.study.space import Alone, Point, Source, config_at
from sweetspot.study.tasks import Task
from sweetspot.study.visit import distillation_at, recipe_at
from sweetspot.teacher.trajectory import branch_of

SMOOTHINGS = (0.02, 0.05, 0.1)
"""The amounts of label smoothing to choose from."""
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
"""The temperatures to choose a teacher's own from, beside the study's."""
LR_CHECK = "lr_check"
"""What the tasks of the learning rate's check are for."""
_LR_FACTORS = (0.5, 2.0)

S = TypeVar("S", bound=Source)


def smoothings() -> list[Alone]:
    return [Alone(amount) for amount in SMOOTHINGS]


def at_temperatures(config: StudyConfig, point: Point) -> list[Point]:
    """A point with the study's temperature first, then with each of the others."""
    own = config_at(config, point).student.temperature
    return [point, *(point.having(student__temperature=t) for t in TEMPERATURES if t != own)]


def choice_tasks(config: StudyConfig, best: Point, accurate: Point) -> list[Task]:
    """The students of all that is chosen from: ``replicates.min`` each."""
    count, arms = config.student.replicates.min, config.confirm.arms
    tasks = []
    if "label_smoothing" in arms:
        tasks += [Task(SMOOTHED, source, "search", 0, count) for source in smoothings()]
    if "temperature" in arms:
        tasks += [Task(BEST_T, source, "search", 0, count) for source in at_temperatures(config, best)]
        tasks += [Task(ACCURATE_T, source, "search", 0, count) for source in at_temperatures(config, accurate)]
    return tasks


def chosen(store: Store, record: StudyRecord, sources: Sequence[S]) -> S:
    """The source whose first ``replicates.min`` students are best on average; the first where none has so many."""
    count = record.config.student.replicates.min
    keys = [distillation_at(record.config, record.data_hash, source).hash for source in sources]
    students = store.students.of(keys, "search")
    means = {}
    for source, key in zip(sources, keys, strict=True):
        accuracies = [s.accuracy for s in students.get(key, []) if s.replicate < count]
        if len(accuracies) == count:
            means[source] = fmean(accuracies)
    return max(means, key=lambda source: means[source], default=sources[0])


# -- the cheapest teacher that is as good -----------------------------------------------------------------------------


def cheapest(store: Store, record: StudyRecord, ranked: Sequence[Ranked]) -> Point:
    """The point with the least teacher seconds of those whose ranking mean is within the margin of the best one's."""
    best = ranked[0]
    as_good = [
        r for r in ranked if not r.is_under_trained and r.shrunken >= best.shrunken - record.config.confirm.margin
    ]
    cost = teacher_seconds(store, record, [r.point for r in as_good])
    if best.point not in cost:
        return best.point
    return min(cost, key=lambda point: (cost[point], point != best.point))


def teacher_seconds(store: Store, record: StudyRecord, points: Sequence[Point]) -> dict[Point, float]:
    """What it takes to train the teacher of each point alone: its epochs at the mean of those of them that were timed.

    Points of which none was are left out. Epochs that are not the point's own do not count, so that nothing changes
    when its trajectory goes on.
    """
    measurements = cache(partial(store.trajectories.measurements, temperature=record.config.teacher.probe_temperature))
    found = {}
    for point in points:
        recipe = recipe_at(record.config, record.data_hash, point)
        own = branch_of(recipe, point.epochs)
        last = {TRUNK: recipe.schedule.shared_epochs(point.epochs)} | {own: point.epochs}
        timed = [
            measurement.seconds
            for branch, until in last.items()
            for (epoch, probe), measurement in measurements(recipe.hash, branch).items()
            if probe == "train" and epoch <= until and measurement.seconds is not None
        ]
        if timed:
            found[point] = point.epochs * fmean(timed)
    return found


# -- the learning rate ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LRCheck:
    """Whether the best batch size stays ahead of the runner-up at other learning rates, on the validation split.

    Attributes:
        batch_sizes: the best one, and the runner-up's.
        accuracies: by factor of the learning rate, 1 included: the mean accuracies of both; None where one failed.
    """

    batch_sizes: tuple[int, int]
    accuracies: tuple[tuple[float, float | None, float | None], ...]

    @property
    def stays_ahead(self) -> bool | None:
        """Whether the best batch size is ahead at every learning rate; None while one is missing or has failed."""
        ahead = [None if best is None or rival is None else best > rival for _, best, rival in self.accuracies]
        return False if False in ahead else None if None in ahead else True


def lr_rivals(record: StudyRecord, ranked: Sequence[Ranked]) -> tuple[Point, Point] | None:
    """The best point, and the best one with another batch size; None where no check is wanted or possible."""
    if not record.config.confirm.lr_check or not ranked:
        return None
    best = ranked[0].point
    rival = next((r.point for r in ranked if r.point.batch_size != best.batch_size), None)
    return None if rival is None else (best, rival)


def lr_tasks(config: StudyConfig, rivals: tuple[Point, Point]) -> list[Task]:
    """The students of both at half and double the learning rate, ``replicates.max`` each."""
    count = config.student.replicates.max
    return [Task(LR_CHECK, _at_lr(config, p, f), "search", 0, count) for f in _LR_FACTORS for p in rivals]


def lr_check(store: Store, record: StudyRecord, rivals: tuple[Point, Point]) -> LRCheck:
    """What the check has shown so far."""
    found = []
    for factor in sorted((1.0, *_LR_FACTORS)):
        sources = [_at_lr(record.config, point, factor) for point in rivals]
        keys = [distillation_at(record.config, record.data_hash, source).hash for source in sources]
        students = store.students.of(keys, "search")
        best, rival = (fmean(s.accuracy for s in students[key]) if key in students else None for key in keys)
        found.append((factor, best, rival))
    return LRCheck((rivals[0].batch_size, rivals[1].batch_size), tuple(found))


def _at_lr(config: StudyConfig, point: Point, factor: float) -> Point:
    if factor == 1.0:
        return point
    return point.having(teacher__lr=factor * config_at(config, point).teacher.optimizer.lr)
