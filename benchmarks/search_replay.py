"""A recorded table, replayed: what a search pays and sees at each step, answered from the table instead of trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sweetspot.config import Replicates, StudyConfig
from sweetspot.errors import UserError
from sweetspot.report.table import Student, Table
from sweetspot.study.space import Point

_TRUNK = 0


@dataclass(frozen=True)
class Teacher:
    """A point's teacher of one seed, with its students.

    Attributes:
        runs: what it is trained on, in this order: (branch, epoch) of each of its epochs.
        similarity: S (nats) at the epochs that a trial reports, ascending; the last is the point's own.
        views, validation: its measurements on the training views, and on validation.
        students: by replicate.
    """

    steps: int
    runs: tuple[tuple[int, int], ...]
    similarity: Mapping[int, float]
    views: Mapping[str, float]
    validation: Mapping[str, float]
    students: tuple[Student, ...]


class Recording:
    """A table, ready to be searched.

    Points that lack a student of some teacher seed (it diverged, or did not fit) are known as infeasible.

    Attributes:
        points: those that are complete, batch sizes and then epochs ascending.
        teacher_seeds: ascending.
        replicates: students of each teacher.
        train_images: that a teacher is trained on.

    Raises:
        UserError: if there are too few points, or too few students, to split.
    """

    def __init__(self, table: Table) -> None:
        search = table.config.search
        self._seconds: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
        self._similarity: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
        self._measured: dict[tuple[int, int, int, int], tuple[Mapping[str, float], Mapping[str, float]]] = {}
        shared: dict[tuple[int, int, int], int] = {}
        for t in table.trajectories:
            shared[t.batch_size, t.teacher_seed, t.branch] = t.shared_epochs
            for row in t.epochs:
                run, at = (t.batch_size, t.teacher_seed), (t.branch, row.epoch)
                self._seconds.setdefault(run, {})[at] = row.seconds
                self._similarity.setdefault(run, {})[at] = row.train["similarity_entropy"]
                self._measured[*run, *at] = row.train, row.validation
        measuring: dict[tuple[int, int], float] = {}
        rows = {}
        for p in table.points:
            run = p.batch_size, p.teacher_seed
            measuring[run] = measuring.get(run, 0.0) + p.measuring_seconds
            rows[p.batch_size, p.epochs, p.teacher_seed] = p
        self._measuring = {run: total / len(self._seconds[run]) for run, total in measuring.items()}
        self.teacher_seeds = tuple(sorted({seed for *_, seed in rows}))
        self.replicates = table.replicates
        self.train_images = table.data.train_images
        self.points = tuple(
            Point(size, epochs)
            for size, epochs in product(search.batch_size, search.ladder)
            if all(
                (size, epochs, seed) in rows and len(rows[size, epochs, seed].students) >= self.replicates
                for seed in self.teacher_seeds
            )
        )
        self._teachers: dict[tuple[Point, int], Teacher] = {}
        for (size, epochs, seed), p in rows.items():
            runs = _runs(shared, size, seed, p.branch, epochs)
            entropies = self._similarity[size, seed]
            leaves = shared.get((size, seed, p.branch), 0)  # a trial reports the trunk before that point alone
            on_ladder = ((b, e) for b, e in runs if e in search.ladder and (b, e) != (_TRUNK, leaves))
            rungs = {e: entropies[b, e] for b, e in (*on_ladder, (p.branch, epochs))}
            views, validation = self._measured[size, seed, p.branch, epochs]
            self._teachers[Point(size, epochs), seed] = Teacher(
                p.steps, runs, rungs, views, validation, tuple(sorted(p.students, key=lambda s: s.replicate))
            )
        self._check()

    def _check(self) -> None:
        if len(self.points) < 2:
            raise UserError(f"the table has {len(self.points)} complete points: a search needs at least 2")
        seconds = [each for runs in self._seconds.values() for each in runs.values()]
        seconds += [s.seconds for teacher in self._teachers.values() for s in teacher.students]
        if min(seconds) < 0 or sum(seconds) == 0:
            raise UserError("the table's seconds are negative, or all zero: costs cannot be told")
        found = len(self.teacher_seeds) * self.replicates
        if found < 3:
            raise UserError(
                f"the table has {found} student{'s' * (found != 1)} a point: to search, to compare and to judge on "
                "different ones takes at least 3"
            )

    def teacher(self, point: Point, seed: int) -> Teacher | None:
        """None where the point is infeasible."""
        return self._teachers.get((point, seed)) if point in self._complete else None

    def epoch_seconds(self, batch_size: int, seed: int, run: tuple[int, int]) -> float:
        return self._seconds[batch_size, seed][run]

    def measuring_seconds(self, batch_size: int, seed: int) -> float:
        """Of one epoch: a trajectory's, spread evenly, since the order of the grid says who paid for which."""
        return self._measuring[batch_size, seed]

    @cached_property
    def accuracies(self) -> NDArray[np.float64]:
        """(points, teacher seeds, replicates) validation accuracies of the students."""
        return np.array(
            [
                [
                    [s.accuracy for s in self._teachers[p, seed].students[: self.replicates]]
                    for seed in self.teacher_seeds
                ]
                for p in self.points
            ]
        )

    @cached_property
    def _complete(self) -> frozenset[Point]:
        return frozenset(self.points)


def _runs(
    shared: Mapping[tuple[int, int, int], int], batch_size: int, seed: int, branch: int, epochs: int
) -> tuple[tuple[int, int], ...]:
    leaves = epochs if branch == _TRUNK else shared[batch_size, seed, branch]
    trunk = [(_TRUNK, epoch) for epoch in range(1, leaves + 1)]
    return tuple(trunk + [(branch, epoch) for epoch in range(leaves + 1, epochs + 1)])


@dataclass
class Clock:
    """What one search has paid, and what it need not pay again.

    Args:
        shares: whether an epoch that was trained before costs nothing.
        measures: whether teachers are measured, and that is paid for.

    Attributes:
        teacher, measuring, students: seconds.
        teacher_epochs, student_epochs: trained.
    """

    recording: Recording
    seed: int
    shares: bool = True
    measures: bool = True
    teacher: float = 0.0
    measuring: float = 0.0
    students: float = 0.0
    teacher_epochs: int = 0
    student_epochs: int = 0
    _trained: set[tuple[int, int, int]] = field(default_factory=set)

    @property
    def seconds(self) -> float:
        return self.teacher + self.measuring + self.students

    def train(self, point: Point) -> Iterator[tuple[int, float]]:
        """Pays for the point's teacher, rung by rung: yields (epoch, S) as each is there."""
        teacher = self.recording.teacher(point, self.seed)
        assert teacher is not None
        for run in teacher.runs:
            if not self.shares or (point.batch_size, *run) not in self._trained:
                self._trained.add((point.batch_size, *run))
                self.teacher_epochs += 1
                self.teacher += self.recording.epoch_seconds(point.batch_size, self.seed, run)
                if self.measures:
                    self.measuring += self.recording.measuring_seconds(point.batch_size, self.seed)
            if run[1] in teacher.similarity:
                yield run[1], teacher.similarity[run[1]]

    def train_student(self, student: Student, epochs: int | None = None) -> None:
        """Pays for so many of a student's epochs; None: for all of them."""
        total = len(student.curve)
        trained = total if epochs is None else epochs
        self.student_epochs += trained
        self.students += student.seconds * trained / total


@dataclass(frozen=True)
class Seen:
    """What one search may see of a table.

    Attributes:
        recording: of all.
        config: of the search; whatever is drawn follows from its seed.
        teacher_seed: of the only teachers it trains.
        replicates: the indices of the only students it trains, in the order it asks for them.
    """

    recording: Recording
    config: StudyConfig
    teacher_seed: int
    replicates: tuple[int, ...]

    @classmethod
    def of(
        cls, recording: Recording, config: StudyConfig, teacher_seed: int, replicates: tuple[int, ...], seed: int
    ) -> "Seen":
        """With ``config``'s replicates cut down to those that are there, and its seed set."""
        wanted = config.student.replicates
        there = Replicates(min=min(wanted.min, len(replicates)), max=min(wanted.max, len(replicates)))
        student = config.student.model_copy(update={"replicates": there})
        config = config.model_copy(update={"seed": seed, "student": student})
        return cls(recording, config, teacher_seed, replicates)

    def teacher(self, point: Point) -> Teacher | None:
        return self.recording.teacher(point, self.teacher_seed)

    def students(self, point: Point) -> tuple[Student, ...]:
        """In the order in which they are trained, ``replicates.max`` at most."""
        teacher = self.teacher(point)
        assert teacher is not None
        wanted = self.replicates[: self.config.student.replicates.max]
        return tuple(teacher.students[index] for index in wanted)
