"""Equal steps: does batch size matter to the student, or only how many steps its teacher was trained?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweetspot.study.inference import Interval
from sweetspot.study.ranking import Ranked

_LEAST_SIZES = 3
_LEAST_FREEDOM = 2
"""Points beyond what the curve and the trajectories take."""
_DEGREE = 3


@dataclass(frozen=True)
class EqualSteps:
    """What a doubling of the batch size does to the student's accuracy where the teacher's steps stay the same.

    Attributes:
        per_doubling: the change of accuracy, a fraction, with its 95 % interval.
        batch_sizes: those compared, ascending.
        trajectories: how many teachers of these batch sizes there are.
        points: how many points were compared.
        steps: the fewest and the most steps of these points.
        explained: the share of the variance between the points that a cubic in log steps explains.
        margin: the difference of accuracy, a fraction, that does not matter.
    """

    per_doubling: Interval
    batch_sizes: tuple[int, ...]
    trajectories: int
    points: int
    steps: tuple[int, int]
    explained: float
    margin: float

    @property
    def whole_range(self) -> Interval:
        """The change from the smallest batch size to the largest."""
        doublings = float(np.log2(self.batch_sizes[-1] / self.batch_sizes[0]))
        one = self.per_doubling
        return Interval(one.mean * doublings, one.standard_error * doublings, one.dof)

    @property
    def matters(self) -> bool | None:
        """False where the whole range changes less than the margin, else True where it changes something; None where
        neither is known."""
        whole = self.whole_range
        if -self.margin < whole.low and whole.high < self.margin:
            return False
        return True if whole.low > 0 or whole.high < 0 else None

    @property
    def words(self) -> str:
        first, last = self.batch_sizes[0], self.batch_sizes[-1]
        whole, one = _change(self.whole_range), _change(self.per_doubling)
        if self.matters is None:
            said = (
                f"whether batch size matters at equal steps is not known: from batch size {first} to {last} the "
                f"student's accuracy changes by {whole}, {one} per doubling"
            )
        elif self.matters:
            said = (
                f"batch size matters at equal steps: the student's accuracy changes by {one} with each doubling, "
                f"{whole} from batch size {first} to {last}"
            )
        else:
            said = (
                f"amount of training, not batch size: at equal steps, batch sizes from {first} to {last} change the "
                f"student's accuracy by {whole}, where less than {100 * self.margin:.2f} does not matter"
            )
        sizes = len(self.batch_sizes)
        teachers = f"one teacher for each of {sizes} batch sizes"
        if self.trajectories > sizes:
            teachers = f"{self.trajectories} teachers of {sizes} batch sizes"
        return (
            f"{said} ({self.points} points of {self.steps[0]:,} to {self.steps[1]:,} steps, of {teachers}; "
            f"a cubic in log steps explains {100 * self.explained:.0f} % of their variance)"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "per_doubling": _bounds(self.per_doubling),
            "whole_range": _bounds(self.whole_range),
            "batch_sizes": list(self.batch_sizes),
            "trajectories": self.trajectories,
            "points": self.points,
            "steps": list(self.steps),
            "explained": self.explained,
            "matters": self.matters,
            "words": self.words,
        }


def equal_steps(ranked: Sequence[Ranked], margin: float) -> EqualSteps | None:
    """Whether batch size matters at equal steps, by the students of the points that are not under-trained.

    All points of a trajectory share one teacher's luck, so that there are no more independent units than trajectories.
    With y a point's mean accuracy, weighted by its students, and x its log steps, first

        y = a_t + b x + c x^2 + d x^3 + e

    by least squares, with an offset for each trajectory t; then the offsets against log2 of the batch size, a line with
    Student's t on as many degrees of freedom as there are trajectories, less 2. Large batches have few steps, so that
    what is not known of the curve tilts all offsets alike, which their scatter about the line does not show. Its share
    is added: with Q the covariance of the offsets in units of the variance s^2 of e, M the projection onto the
    residuals of the line, r^2 their mean square and z the centred log2 sizes,

        V = r^2 / z'z + s^2 max(0, z'Qz / (z'z)^2 - tr(MQ) / (tr(M) z'z)).

    Only points whose steps lie within the ranges of at least half of the batch sizes take part, of trajectories with at
    least two of these: beyond them a curve would be judged by few batch sizes, and mistaken for what these do. What
    else is searched (the student's temperature, say) counts as noise.

    Args:
        margin: the difference of accuracy, a fraction, that does not matter.

    Returns:
        None with fewer than 3 batch sizes, or too few points to tell their trajectories from the curve.
    """
    there = _comparable([r for r in ranked if not r.is_under_trained and r.steps > 0 and r.students])
    sizes = sorted({r.point.batch_size for r in there})
    trajectories = list(dict.fromkeys(r.point.trajectory for r in there))
    freedom = len(there) - len(trajectories) - _DEGREE
    if len(sizes) < _LEAST_SIZES or freedom < _LEAST_FREEDOM:
        return None
    accuracies = np.array([np.mean(r.accuracies) for r in there])
    roots = np.sqrt([len(r.students) for r in there])
    belongs = np.array([[float(r.point.trajectory == one) for one in trajectories] for r in there])
    x = np.log([r.steps for r in there])
    x = (x - x.mean()) / (x.std() or 1.0)
    curve = np.stack([x**power for power in range(1, _DEGREE + 1)], axis=1)
    terms = np.hstack([belongs, curve]) * roots[:, None]
    if np.linalg.matrix_rank(terms) < terms.shape[1]:
        return None
    inverse = np.linalg.inv(terms.T @ terms)
    fitted = inverse @ terms.T @ (accuracies * roots)
    noise = float(np.square(accuracies * roots - terms @ fitted).sum()) / freedom
    slope, variance = _line(
        fitted[: len(trajectories)],
        np.log2([one.batch_size for one in trajectories]),
        noise * inverse[: len(trajectories), : len(trajectories)],
    )
    steps = [r.steps for r in there]
    return EqualSteps(
        per_doubling=Interval(slope, float(np.sqrt(variance)), len(trajectories) - 2.0),
        batch_sizes=tuple(sizes),
        trajectories=len(trajectories),
        points=len(there),
        steps=(min(steps), max(steps)),
        explained=_explained(accuracies, curve, roots),
        margin=margin,
    )


def _comparable(there: Sequence[Ranked]) -> list[Ranked]:
    """The points where batch sizes overlap, of trajectories with at least two of them."""
    ranges = {}
    for size in {r.point.batch_size for r in there}:
        own = [r.steps for r in there if r.point.batch_size == size]
        ranges[size] = min(own), max(own)
    kept = [r for r in there if 2 * sum(low <= r.steps <= high for low, high in ranges.values()) >= len(ranges)]
    counts = Counter(r.point.trajectory for r in kept)
    return [r for r in kept if counts[r.point.trajectory] > 1]


def _line(offsets: NDArray[np.float64], x: NDArray[np.float64], covariance: NDArray[np.float64]) -> tuple[float, float]:
    """The slope of a line through offsets, and its variance.

    Args:
        offsets, x: (n,).
        covariance: (n, n), of the offsets as far as the noise of points goes.
    """
    z = x - x.mean()
    spread = float(z @ z)
    slope = float(z @ offsets) / spread
    residuals = np.eye(len(x)) - 1 / len(x) - np.outer(z, z) / spread
    freedom = len(x) - 2
    scatter = float(offsets @ residuals @ offsets) / freedom
    unseen = float(z @ covariance @ z) / spread**2 - float(np.trace(residuals @ covariance)) / (freedom * spread)
    return slope, max(0.0, scatter) / spread + max(0.0, unseen)


def _explained(accuracies: NDArray[np.float64], curve: NDArray[np.float64], roots: NDArray[np.float64]) -> float:
    if np.ptp(accuracies) == 0:
        return 0.0
    terms = np.column_stack([np.ones(len(curve)), curve])
    total, left = (
        float(np.square(roots * accuracies - fit).sum())
        for fit in (_projected(terms[:, :1], accuracies, roots), _projected(terms, accuracies, roots))
    )
    return 1 - left / total


def _projected(
    terms: NDArray[np.float64], values: NDArray[np.float64], roots: NDArray[np.float64]
) -> NDArray[np.float64]:
    weighted = terms * roots[:, None]
    return np.asarray(weighted @ np.linalg.lstsq(weighted, values * roots, rcond=None)[0])


def _change(interval: Interval) -> str:
    mean, low, high = (f"{round(100 * x, 2) + 0.0:+.2f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean} points (95 % interval {low} to {high})"


def _bounds(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
