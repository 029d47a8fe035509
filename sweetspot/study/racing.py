"""Racing: which points earn more students, because they may still be the best."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweetspot.config import StudyConfig
from sweetspot.study.space import Point

Rows = Mapping[Point, Sequence[float]]
"""The accuracies (fractions) of the students of each point."""

_Density = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_LEAST_FREEDOM = 6
"""Degrees of freedom from which on the noise of students counts as known."""
_NODES = 40
"""Of the quadratures, in each of the two dimensions: enough for three digits of a p value."""


@dataclass(frozen=True)
class Race:
    """A race between points: each begins with a few students, and earns more only while it may still be the best.

    A point's students double from look to look until it has ``maximum``. At each look it is left behind if it lags so
    far behind some other point that this is unlikely for a point as good as the best. That other point is the luckiest
    of many, so the lag is held against the largest of as many noises: the greatest studentised lag behind K - 1 others,
    were all K equally good (Gupta 1965, Technometrics 7; Dunnett 1955, Journal of the American Statistical Association
    50). That is the least favourable case: however the means lie, plateaus included, a point whose true mean is the
    highest, alone or with others, is left behind with a probability of at most ``error`` over all its looks, each of
    which may spend an equal part of it. (A lag behind the best *shrunken* mean would do so only where the means are
    normally distributed: with half of 40 points equally good and the others far below, 15 % were left behind.)

    The noise of students is pooled within points. Until it is known with a few degrees of freedom, a point runs
    ``maximum`` students at once.

    Attributes:
        minimum: students that a point begins with.
        maximum: students of a point that was never left behind.
        error: see above.
    """

    minimum: int
    maximum: int
    error: float = 0.05

    @classmethod
    def of(cls, config: StudyConfig) -> "Race":
        """That of a study; in a table every point has all its students."""
        replicates = config.student.replicates
        return cls(replicates.min if config.search.teacher.seeds is None else replicates.max, replicates.max)

    def wanted(self, rows: Rows, point: Point) -> int:
        """How many students ``point`` should have now: as many as it has when it needs no more."""
        count = len(rows.get(point, ()))
        if count >= self.maximum:
            return count
        noise = _Noise.of(rows)
        if self.minimum == self.maximum or noise is None:
            return self.maximum
        if count in self.looks and not self._in_race(rows, [point], noise):
            return count
        return next(look for look in (*self.looks, self.maximum) if look > count)

    def leaders(self, rows: Rows) -> list[Point]:
        """The points with fewer than ``maximum`` students that may be the best; to be asked again when they have them.

        By falling mean.
        """
        noise = _Noise.of(rows)
        behind = [point for point, accuracies in rows.items() if 0 < len(accuracies) < self.maximum]
        leaders = behind if noise is None else self._in_race(rows, behind, noise)
        return sorted(leaders, key=lambda p: -float(np.mean(rows[p])))

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of students at which a point may be left behind."""
        looks, count = [], self.minimum
        while count < self.maximum:
            looks.append(count)
            count *= 2
        return tuple(looks)

    def _in_race(self, rows: Rows, points: Sequence[Point], noise: "_Noise") -> list[Point]:
        """Those of ``points``, which have students, that may be the best.

        Of points with as many students, those that lag least may: the chance is asked for a few of them.
        """
        places = {point: place for place, point in enumerate(p for p, accuracies in rows.items() if len(accuracies))}
        if len(places) == 1:
            return list(points)
        means = np.array([np.mean(rows[point]) for point in places])
        counts = np.array([len(rows[point]) for point in places], dtype=np.float64)
        error = self.error / max(1, len(self.looks))
        found: set[Point] = set()
        for count in {len(rows[point]) for point in points}:
            alike = [point for point in points if len(rows[point]) == count]
            units = np.sqrt(1 / counts + 1 / count)
            lags = {point: _greatest_lag(means, units, places[point]) for point in alike}
            others = np.delete(counts, places[alike[0]])

            def is_left_behind(lag: float, count: int = count, others: NDArray[np.float64] = others) -> bool:
                if noise.deviation == 0:
                    return lag > 0
                return chance_of_lag(lag / noise.deviation, count, others, noise.freedom) <= error

            alike.sort(key=lags.__getitem__)
            found.update(alike[: bisect_left(alike, True, key=lambda p: is_left_behind(lags[p]))])
        return [point for point in points if point in found]


def _greatest_lag(means: NDArray[np.float64], units: NDArray[np.float64], place: int) -> float:
    """By which the mean at ``place`` lags behind any other, in these units of each."""
    lags = (means - means[place]) / units
    lags[place] = -math.inf
    return float(lags.max())


def chance_of_lag(lag: float, count: int, counts: NDArray[np.float64], freedom: int) -> float:
    """The chance that, of points equally good, one lags as far as ``lag`` behind any of the others.

    Args:
        lag: the greatest of the differences to the others, each over its estimated standard error.
        count: students of the one.
        counts: (others,), students of each.
        freedom: degrees of freedom of the estimated noise.
    """
    if lag <= 0:
        return 1.0
    own, own_weights = _nodes(-8.0, 8.0, lambda z: -(z**2) / 2)
    spread = 8 / math.sqrt(2 * freedom)
    # The estimated noise over the true one: the root of a chi-square over its degrees of freedom.
    noise, noise_weights = _nodes(
        max(0.0, 1 - spread), 1 + spread, lambda u: (freedom - 1) * np.log(u) - freedom * u**2 / 2
    )
    kinds, how_many = np.unique(counts, return_counts=True)
    inside = np.ones((_NODES, _NODES))
    for kind, times in zip(kinds, how_many, strict=True):
        bound = lag * noise[:, None] * math.sqrt(1 / kind + 1 / count) + own / math.sqrt(count)
        inside *= _below(bound * math.sqrt(kind)) ** times
    return float(1 - noise_weights @ inside @ own_weights)


@dataclass(frozen=True)
class _Noise:
    """The standard deviation of students about their point's mean, pooled over points."""

    deviation: float
    freedom: int

    @classmethod
    def of(cls, rows: Rows) -> "_Noise | None":
        """None until it is known well enough."""
        freedom = sum(len(accuracies) - 1 for accuracies in rows.values() if len(accuracies))
        if freedom < _LEAST_FREEDOM:
            return None
        squares = sum(
            len(accuracies) * float(np.var(accuracies)) for accuracies in rows.values() if len(accuracies) > 1
        )
        return cls(math.sqrt(squares / freedom), freedom)


def _nodes(low: float, high: float, log_density: _Density) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes in ``(low, high)``, and their shares of a density that is next to nothing at both ends."""
    nodes = low + (high - low) * (np.arange(_NODES) + 0.5) / _NODES
    logs = log_density(nodes)
    weights = np.exp(logs - logs.max())
    return nodes, weights / weights.sum()


def _below(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The normal distribution function. (Alone in wanting it: SciPy takes a second to import.)"""
    return np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in z.ravel().tolist()]).reshape(z.shape)
