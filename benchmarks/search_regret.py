"""What a search's choice is worth, judged on students it has not seen; and what many searches come to together.

The students of a table are split at random into thirds: A feeds the search, B picks the point to compare with (the one
with the highest mean in B), C judges both: regret = mean in C of that point - mean in C of the choice. (Against the
highest mean in C itself, which is partly luck, a method that always finds the best point would be charged.) Regrets may
be negative. With three teacher seeds or more, A, B and C have different teachers, and the search sees one teacher of
A's, as a real study does; with fewer, they have different students.

One search has one A, and its regret is the average over many splits of the rest into B and C. So a quantile over
searches is one of searches, not of splits. But all searches of a table are judged by the same few teachers, whose luck
no number of searches averages out. It is told by a jackknife: the quantiles once more without each teacher in turn, and
the standard error that their scatter makes (Efron & Stein 1981, Annals of Statistics 9); it takes four teachers.

The oracle chooses, in each split, the highest mean of all that is not in C: the most that any search could know. Its
regret says what the table can tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_replay import Recording
from sweetspot.study.space import Point

SPLITS = 200
"""Of what a search has not seen, into B and C."""
_LEAST_TEACHERS = 4
"""For a jackknife: one is searched, one left out, one picks and one judges."""


@dataclass(frozen=True)
class Choice:
    """What a method would choose once it has paid so many seconds, and how many of them for students."""

    seconds: float
    point: Point
    students: float = 0.0


@dataclass(frozen=True)
class Split:
    """What one search sees, and what its choices are worth.

    Attributes:
        teacher_seed, replicates: of the students it sees; the replicates' indices in a random order.
        regrets: (points,) of choosing each, fractions.
        oracle: the oracle's regret.
        oracle_points: what the oracle chose, an index for each split into B and C.
        without: (points,) regrets as judged without one teacher, by its index; empty where too few are left.
        judge_error: standard error of the mean accuracy of a typical point over all that the search has not seen.
    """

    teacher_seed: int
    replicates: tuple[int, ...]
    regrets: NDArray[np.float64]
    oracle: float
    oracle_points: NDArray[np.intp]
    without: Mapping[int, NDArray[np.float64]]
    judge_error: float


def split(recording: Recording, repetition: int, rng: np.random.Generator) -> Split:
    """What the search of this repetition sees: teacher seeds take turns, all else is drawn."""
    accuracies = recording.accuracies
    seeds, replicates = accuracies.shape[1:]
    searched = repetition % seeds
    order = rng.permutation(replicates)
    if seeds >= 3:
        units = accuracies.mean(axis=2)  # (points, units): a unit is a teacher
        unseen = np.delete(np.arange(seeds), searched)
        dropped = seeds // 3 - 1  # the rest of A
    else:
        units = accuracies.reshape(len(accuracies), -1)  # a unit is a student
        order = order[: max(1, seeds * replicates // 3)]
        unseen = np.delete(np.arange(seeds * replicates), searched * replicates + order)
        dropped = 0
    in_c, reference, of_c = _judged(units, unseen, dropped, rng)
    inside = np.zeros((SPLITS, units.shape[1]))
    np.put_along_axis(inside, of_c, 1.0, axis=1)
    known = units @ (1 - inside).T / (units.shape[1] - of_c.shape[1])
    oracle_points = known.argmax(axis=0)
    scatter = np.median(units[:, unseen].var(axis=1, ddof=1))
    without = {}
    if seeds >= _LEAST_TEACHERS:
        for teacher in unseen.tolist():
            fewer, best, _ = _judged(units, unseen[unseen != teacher], dropped, rng)
            without[teacher] = best.mean() - fewer.mean(axis=1)
    return Split(
        teacher_seed=recording.teacher_seeds[searched],
        replicates=tuple(order.tolist()),
        regrets=reference.mean() - in_c.mean(axis=1),
        oracle=float((reference - in_c[oracle_points, np.arange(SPLITS)]).mean()),
        oracle_points=oracle_points,
        without=without,
        judge_error=float(np.sqrt(scatter / len(unseen))),
    )


def _judged(
    units: NDArray[np.float64], unseen: NDArray[np.intp], dropped: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Many splits of what a search has not seen into B and C.

    Args:
        units: (points, units) accuracies.
        unseen: the units that may judge.
        dropped: so many of them neither pick nor judge: the rest of A.

    Returns:
        (points, splits) means in C; (splits,) those of the points that are best in B; (splits, units in C) what is C.
    """
    left = len(unseen) - dropped
    shuffled = rng.permuted(np.tile(unseen, (SPLITS, 1)), axis=1)[:, dropped:]
    of_c = shuffled[:, left // 2 :]
    in_c = _mean_of(units, of_c)
    return in_c, in_c[_mean_of(units, shuffled[:, : left // 2]).argmax(axis=0), np.arange(SPLITS)], of_c


def _mean_of(units: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """(points, splits) means over the units that each split has chosen."""
    return np.asarray(units[:, chosen].mean(axis=2))


@dataclass(frozen=True)
class Course:
    """One search: the regret of what it would choose, after each payment.

    Attributes:
        seconds: (n,) paid so far, ascending.
        regrets: (n,) from then on; fractions.
        chosen: at the end.
        students: seconds of all that was paid, for students.
    """

    seconds: NDArray[np.float64]
    regrets: NDArray[np.float64]
    chosen: Point
    students: float = 0.0

    @classmethod
    def of(cls, choices: Sequence[Choice], points: Sequence[Point], regrets: NDArray[np.float64]) -> "Course":
        """Of the choices of one search; ``points`` are those of ``regrets``."""
        return cls(
            np.array([choice.seconds for choice in choices]),
            np.array([regrets[points.index(choice.point)] for choice in choices]),
            choices[-1].point,
            choices[-1].students,
        )

    def at(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """The regret once so much is paid; infinite before there is any choice."""
        index = np.searchsorted(self.seconds, seconds, side="right")
        return np.concatenate([[np.inf], self.regrets])[index]


@dataclass(frozen=True)
class Curve:
    """Regret against cost over many searches: (n,) each, fractions; infinite while half have no choice."""

    seconds: NDArray[np.float64]
    median: NDArray[np.float64]
    low: NDArray[np.float64]
    """The 10th percentile over the searches."""
    high: NDArray[np.float64]
    """The 90th."""

    @classmethod
    def of(cls, courses: Sequence[Course]) -> "Curve":
        seconds = np.unique(np.concatenate([course.seconds for course in courses]))
        table = np.stack([course.at(seconds) for course in courses])
        # Accuracies are fractions: 1e6 stands for an infinite regret, of which quantiles would not be numbers.
        quantiles = np.quantile(np.minimum(table, 1e6), (0.1, 0.5, 0.9), axis=0)
        low, median, high = np.where(quantiles > 1, np.inf, quantiles)
        return cls(seconds, median, low, high)

    def seconds_to(self, median: float, high: float = np.inf) -> float | None:
        """When the median (and the 90th percentile) first is at most so much, and stays so; None if never."""
        above = np.flatnonzero((self.median > median) | (self.high > high))
        first = above[-1] + 1 if len(above) else 0
        return round(float(self.seconds[first]), 3) if first < len(self.seconds) else None
