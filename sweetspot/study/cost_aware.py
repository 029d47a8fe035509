"""Proposals by expected improvement, for what a visit would cost: an epoch that is there costs nothing."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.study.space import Point, Trajectory, distributions
from sweetspot.study.surrogate import Belief, Surrogate
from sweetspot.training.schedules import schedule

FIRST = ((0.4, 1.0), (0.0, 1.0), (1.0, 1.0))
"""The first visits, as shares of the way along the batch sizes and along the ladder: a middle trajectory, that of the
smallest batches and that of the largest, each to its end. One of these is often the answer, and every shorter teacher
on the way is nearly free afterwards."""

STUDENT_EPOCH = 0.3
"""What an epoch of a student is taken to cost, in epochs of a teacher: less network, and a response to it."""
_MOST_POINTS = 200
"""That are learned from, the last ones: half a second's work."""
_AT_ONCE = 64
"""Points that are judged at once: the covariance of all free ones would be large, and no two of them are compared."""
_LEAST_ERROR = 1e-4
"""An accuracy of 1 is taken to be so far from it."""
_VISITED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

Array = NDArray[np.float64]


def next_point(
    config: StudyConfig,
    trials: Iterable[FrozenTrial],
    free: Sequence[Point],
    seed: int,
    *,
    per_cost: bool,
    train_images: int | None = None,
) -> Point:
    """The point of ``free`` to visit next.

    After the first visits it is where most improvement is expected over the posterior mean of the best completed point,
    by a Gaussian process of the students' log errors (which make the cliff of teachers that have hardly learned less
    steep). A point under way counts as one that turns out as expected. Under-trained points cannot improve anything,
    and are left for last.

    Args:
        trials: of the study.
        free: not empty.
        seed: what is left to chance follows from it.
        per_cost: whether the improvement is divided by what the visit would cost.
        train_images: that a teacher is trained on; None where only the visits tell, roughly.
    """
    names = distributions(config).keys()
    visits = [Visited(Point.of(t.params), t) for t in trials if t.state in _VISITED and names <= t.params.keys()]
    is_trained = _trained_enough(config, visits, train_images)
    free = [point for point in free if is_trained(point)] or free
    errors = _log_errors(visits)
    if len(visits) < len(FIRST) or not errors:
        return _filling(config, visits, free, seed)
    known, running = list(errors), [v.point for v in visits if v.trial.state == TrialState.RUNNING]
    surrogate = Surrogate(_features(config, known), [[-e for e in errors[point]] for point in known])
    best = surrogate.at(_features(config, [p for p in known if is_trained(p)] or known)).mean.max()
    means, variances = np.empty(len(free)), np.empty(len(free))
    for start in range(0, len(free), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        belief = surrogate.at(_features(config, [*free[part], *running]))
        count = len(belief.mean) - len(running)
        means[part] = belief.mean[:count]
        variances[part] = _variance_given(belief, count, len(running), surrogate.noise)
    gain = log_improvement(means - best, np.sqrt(variances))
    if per_cost:
        costs = Costs(config, visits)
        gain -= np.log([costs.of(point) for point in free])
    return free[int(gain.argmax())]


@dataclass(frozen=True)
class Visited:
    """A trial that has all its parameters, and was not given back."""

    point: Point
    trial: FrozenTrial

    def told(self, key: str, default: Any) -> Any:
        """A user attribute."""
        return self.trial.user_attrs.get(key, default)


def log_improvement(ahead: Array, deviation: Array) -> Array:
    """log E max(x, 0) of normal x with these means and deviations (Jones, Schonlau & Welch 1998, J. Glob. Optim. 13).

    Far below zero by its asymptote, which is within 1 %: a difference of two small numbers would be lost there.
    """
    deviation = np.maximum(deviation, 1e-12)
    z = ahead / deviation
    log_density = -(z**2) / 2 - math.log(2 * math.pi) / 2
    near = np.maximum(z, -5.0)
    below = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in near.tolist()])
    exact = np.log(np.exp(-(near**2) / 2) / math.sqrt(2 * math.pi) + near * below)
    return np.log(deviation) + np.where(z > -5, exact, log_density - np.log(z**2 + 3))


def _variance_given(belief: Belief, free: int, running: int, noise: float) -> Array:
    """Variances of the first ``free`` points, once a student of each of the last ``running`` is as expected."""
    variance = np.diagonal(belief.covariance)[:free].copy()
    if running:
        across = belief.covariance[:free, -running:]
        among = belief.covariance[-running:, -running:] + max(noise, 1e-9) ** 2 * np.eye(running)
        variance -= (across * np.linalg.solve(among, across.T).T).sum(axis=1)
    return np.asarray(np.maximum(variance, 0.0))


# -- what is known of points ------------------------------------------------------------------------------------------


def _log_errors(visits: Iterable[Visited]) -> dict[Point, list[float]]:
    """log(1 - accuracy) of the students of completed points, of the last ones; of several visits the largest."""
    errors: dict[Point, list[float]] = {}
    for visit in visits:
        if visit.trial.state == TrialState.COMPLETE:
            accuracies = visit.told("replicate_accuracies", None) or [visit.trial.value]
            found = [math.log(max(1 - a, _LEAST_ERROR)) for a in accuracies if a is not None and math.isfinite(a)]
            if len(found) > len(errors.get(visit.point, ())):
                errors[visit.point] = found
    return dict(list(errors.items())[-_MOST_POINTS:])


def _features(config: StudyConfig, points: Sequence[Point]) -> Array:
    """(points, features): log batch size, log epochs, and what else is searched; choices as one column each."""
    columns = [[math.log2(p.batch_size) for p in points], [math.log(p.epochs) for p in points]]
    for name, distribution in distributions(config).items():
        values = [p.params[name] for p in points]
        if isinstance(distribution, FloatDistribution):
            columns.append([math.log(v) if distribution.log else v for v in values])
        elif isinstance(distribution, CategoricalDistribution) and name not in ("batch_size", "epochs"):
            columns += [[float(v == choice) for v in values] for choice in distribution.choices]
    return np.array(columns, dtype=np.float64).T


def _trained_enough(
    config: StudyConfig, visits: Iterable[Visited], train_images: int | None
) -> Callable[[Point], bool]:
    """Tells of a point whether its teacher takes ``search.min_steps``.

    Where the images are not known, they are the most that agree with the steps of all visits, whose epochs have dropped
    their last partial batch: what may have the steps counts as having them.
    """
    told = [(v.told("steps", 0) // v.point.epochs, v.point.batch_size) for v in visits]
    images = train_images or min(((steps + 1) * size - 1 for steps, size in told if steps), default=None)
    return lambda point: not images or point.epochs * (images // point.batch_size) >= config.search.min_steps


def _filling(config: StudyConfig, visits: Sequence[Visited], free: Sequence[Point], seed: int) -> Point:
    """The one of the first visits whose turn it is; after those, what is farthest from all visits."""
    sizes, ladder = config.search.batch_size, config.search.ladder

    def place(point: Point) -> tuple[float, float]:
        along = np.interp(point.batch_size, sizes, np.linspace(0, 1, len(sizes)))
        return float(along), float(np.interp(point.epochs, ladder, np.linspace(0, 1, len(ladder))))

    shuffled = random.Random(seed).sample(list(free), len(free))
    places = np.array([place(point) for point in shuffled])
    if len(visits) < len(FIRST):
        return shuffled[int(np.square(places - FIRST[len(visits)]).sum(axis=1).argmin())]
    visited = np.array([place(visit.point) for visit in visits])
    apart = np.square(places[:, None] - visited[None]).sum(axis=2).min(axis=1)
    return shuffled[int(apart.argmax())]


# -- costs ------------------------------------------------------------------------------------------------------------


class Costs:
    """What a visit to a point would cost, in epochs of a teacher: those that are not there yet, and its students.

    Epochs and not the seconds that were measured, which no two runs have alike: a search with one worker repeats
    exactly.

    Args:
        visits: from which it is known what is there.
    """

    def __init__(self, config: StudyConfig, visits: Iterable[Visited]) -> None:
        self._schedule = schedule(config.teacher.schedule, config.search.ladder[0])
        self._students = STUDENT_EPOCH * config.student.epochs * config.student.replicates.max
        self._trunks: dict[Trajectory, int] = {}
        self._ends: set[tuple[Trajectory, int]] = set()
        for visit in visits:
            self._reach(visit)

    def of(self, point: Point) -> float:
        """Of a point, above zero."""
        return self._students + self.missing_epochs(point)

    def missing_epochs(self, point: Point) -> int:
        """Of the point's teacher: those of the trunk that no longer run has trained, and those of its own branch."""
        if (point.trajectory, point.epochs) in self._ends:
            return 0
        shared = self._schedule.shared_epochs(point.epochs)
        return max(0, shared - self._trunks.get(point.trajectory, 0)) + point.epochs - shared

    def _reach(self, visit: Visited) -> None:
        point, trajectory = visit.point, visit.point.trajectory
        is_running = visit.trial.state == TrialState.RUNNING
        reached = point.epochs if is_running else visit.told("epochs_reached", 0)
        shared = self._schedule.shared_epochs(point.epochs)
        self._trunks[trajectory] = max(self._trunks.get(trajectory, 0), min(reached, shared))
        if reached >= point.epochs:
            self._ends.add((trajectory, point.epochs))
