"""Which point is best: by all its students, pooled and shrunken."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from sweetspot.store import Store, Student, StudyRecord
from sweetspot.store.trajectories import TRUNK, Measurement, Probe
from sweetspot.study.inference import shrunken_means
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


def steps_of(point: Point, train_images: int) -> int:
    """The steps of a point's teacher; the last partial batch of an epoch is dropped."""
    return point.epochs * (train_images // point.batch_size)


def teacher_at(store: Store, record: StudyRecord, point: Point) -> dict[Probe, Measurement] | None:
    """What was measured of a point's teacher, as it would teach; None if it was not trained."""
    recipe = recipe_at(record.config, record.data_hash, point)
    temperature = record.config.teacher.probe_temperature
    branch = branch_of(recipe, point.epochs)
    known = store.trajectories.measurements(recipe.hash, branch, temperature)
    probes: tuple[Probe, ...] = ("train", "validation")
    found = {probe: known[point.epochs, probe] for probe in probes if (point.epochs, probe) in known}
    return found if len(found) == len(probes) and all(m.recomputed for m in found.values()) else None


def most_accurate_teacher(
    store: Store, record: StudyRecord, trials: Sequence[FrozenTrial], train_images: int, best: Point
) -> Point:
    """The point of the teacher with the highest validation accuracy, ties to fewer steps; students as at ``best``.

    Of all ends of schedules at rungs that this search has reached, those of pruned trials included: where longer runs
    share all of shorter ones, every rung on the way is one.
    """
    students = tuple((k, v) for k, v in best.others if k.startswith("student."))
    found = []
    for trial in trials:
        reached = trial.user_attrs.get("epochs_reached", 0)
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        visited = Point.of(trial.params)
        teacher = tuple((k, v) for k, v in visited.others if k.startswith("teacher."))
        is_shared = branch_of(recipe_at(record.config, record.data_hash, visited), visited.epochs) == TRUNK
        rungs = record.config.search.ladder if is_shared else (visited.epochs,)
        for epochs in rungs:
            point = Point(visited.batch_size, epochs, tuple(sorted(teacher + students)))
            if epochs <= reached and (measured := teacher_at(store, record, point)) is not None:
                found.append(
                    (-measured["validation"].values["accuracy"], steps_of(point, train_images), str(point), point)
                )
    return min(found)[-1] if found else best
