"""Which point is best: by all its students, pooled and shrunken."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.store import Store, Student, StudyRecord
from sweetspot.store.trajectories import TRUNK, Measurement, Probe
from sweetspot.study.inference import shrunken_means
from sweetspot.study.racing import Race, Rows
from sweetspot.study.space import Point
from sweetspot.study.visit import distillation_at, recipe_at
from sweetspot.teacher.trajectory import branch_of


@dataclass(frozen=True)
class Ranked:
    """A point with its students."""

    point: Point
    steps: int
    students: tuple[Student, ...]
    shrunken: float
    """Mean accuracy, shrunken toward that of all points."""
    is_under_trained: bool
    """Fewer teacher steps than ``search.min_steps``: it cannot be the sweet spot."""
    is_settled: bool
    """It has ``replicates.max`` students or more."""

    @property
    def accuracies(self) -> list[float]:
        return [student.accuracy for student in self.students]


def ranking(store: Store, record: StudyRecord, trials: Sequence[FrozenTrial], train_images: int) -> list[Ranked]:
    """The points of the completed trials, best first: those that may be called best before those that may not."""
    points = list(dict.fromkeys(Point.of(t.params) for t in trials if t.state == TrialState.COMPLETE))
    hashes = {point: distillation_at(record.config, record.data_hash, point).hash for point in points}
    students = store.students.of(list(hashes.values()), "search")
    points = [point for point in points if hashes[point] in students]
    if not points:
        return []
    shrunken = shrunken_means([[s.accuracy for s in students[hashes[point]]] for point in points])
    ranked = []
    for point, mean in zip(points, shrunken, strict=True):
        steps = steps_of(point, train_images)
        rows = tuple(students[hashes[point]])
        settled = len(rows) >= record.config.student.replicates.max
        ranked.append(Ranked(point, steps, rows, float(mean), steps < record.config.search.min_steps, settled))
    return sorted(ranked, key=lambda r: (r.is_under_trained, not r.is_settled, -r.shrunken, r.steps))


def accuracies_of(store: Store, config: StudyConfig, data_hash: str, points: Iterable[Point]) -> Rows:
    """The accuracies of all students of each point that has any; the others are left out."""
    hashes = {point: distillation_at(config, data_hash, point).hash for point in points}
    students = store.students.of(list(hashes.values()), "search")
    return {point: [s.accuracy for s in students[name]] for point, name in hashes.items() if name in students}


def rivals(config: StudyConfig, point: Point, points: Iterable[Point], train_images: int) -> list[Point]:
    """``point``, and those of ``points`` that it must beat to be called best: under-trained ones need not be beaten."""
    least = config.search.min_steps
    is_under_trained = steps_of(point, train_images) < least
    beaten = [p for p in points if p != point and (is_under_trained or steps_of(p, train_images) >= least)]
    return [point, *beaten]


def leaders(store: Store, record: StudyRecord, trials: Sequence[FrozenTrial], train_images: int) -> list[Point]:
    """After a search: the points that may be the best and have fewer than ``replicates.max`` students.

    Likeliest first. To be asked again when they have them, as the race goes on with what has been found; empty when it
    is decided. Under-trained points are in it only where there are no others.
    """
    points = dict.fromkeys(Point.of(t.params) for t in trials if t.state == TrialState.COMPLETE)
    rows = accuracies_of(store, record.config, record.data_hash, points)
    trained = {p: r for p, r in rows.items() if steps_of(p, train_images) >= record.config.search.min_steps}
    return Race.of(record.config).leaders(trained or rows)


def steps_of(point: Point, train_images: int) -> int:
    """The steps of a point's teacher; the last partial batch of an epoch is dropped."""
    return point.epochs * (train_images // point.batch_size)


def teacher_at(store: Store, record: StudyRecord, point: Point) -> dict[Probe, Measurement] | None:
    """What was measured of a point's teacher, as it would teach; None if it was not trained."""
    recipe = recipe_at(record.config, record.data_hash, point)
    temperature = record.config.teacher.probe_temperature
    branch = branch_of(recipe, point.epochs)
    return _as_it_teaches(store.trajectories.measurements(recipe.hash, branch, temperature), point.epochs)


def _as_it_teaches(known: Mapping[tuple[int, Probe], Measurement], epoch: int) -> dict[Probe, Measurement] | None:
    probes: tuple[Probe, ...] = ("train", "validation")
    found = {probe: known[epoch, probe] for probe in probes if (epoch, probe) in known}
    return found if len(found) == len(probes) and all(m.recomputed for m in found.values()) else None


def most_accurate_teacher(
    store: Store, record: StudyRecord, trials: Sequence[FrozenTrial], train_images: int, best: Point
) -> Point:
    """The point of the teacher with the highest validation accuracy, ties to fewer steps; students as at ``best``.

    Of all ends of schedules at rungs that this search has reached, those of pruned trials included: where longer runs
    share all of shorter ones, every rung on the way is one.
    """
    reached: dict[Point, None] = {}
    for trial in trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        visited = Point.of(trial.params)
        is_shared = branch_of(recipe_at(record.config, record.data_hash, visited), visited.epochs) == TRUNK
        for epochs in record.config.search.ladder if is_shared else (visited.epochs,):
            if epochs <= trial.user_attrs.get("epochs_reached", 0):
                others = tuple(sorted(visited.trajectory.others + best.of_students))
                reached[Point(visited.batch_size, epochs, others)] = None
    measurements = cache(partial(store.trajectories.measurements, temperature=record.config.teacher.probe_temperature))
    found = []
    for point in reached:
        recipe = recipe_at(record.config, record.data_hash, point)
        branch = measurements(recipe.hash, branch_of(recipe, point.epochs))
        if (measured := _as_it_teaches(branch, point.epochs)) is not None:
            accuracy = measured["validation"].values["accuracy"]
            found.append((-accuracy, steps_of(point, train_images), str(point), point))
    return min(found)[-1] if found else best
