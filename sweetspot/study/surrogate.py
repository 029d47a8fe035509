"""What completed points say of others: a Gaussian process of the latent mean accuracy, unsure of its own settings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, lgamma, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_ROUNDS = (40, 20, 20, 20, 20)
_KEPT = 32
"""Of the weighted draws of the settings so many equally likely ones are predicted with."""
_BORDER = 1e12
_LEAST = 1e-8
"""Added to the relative variances: points next to each other then do no harm."""
_UNKNOWN_SPREAD = 0.01
"""Standard deviation taken for values that are all equal: they say nothing of how far others may be."""
_AT_ONCE = 200_000
"""Numbers worked on at once: what a core's cache holds, and large histories cost time and not memory."""


@dataclass(frozen=True)
class Belief:
    """What is believed of m points' latent mean accuracies: jointly normal.

    Attributes:
        mean: (m,) as fractions.
        covariance: (m, m).
    """

    mean: Array
    covariance: Array

    @property
    def deviation(self) -> Array:
        """(m,) Standard deviations."""
        return np.sqrt(np.diagonal(self.covariance))

    def chance_above(self, index: int, other: int, margin: float) -> float:
        """The chance that the latent mean of ``index`` is not lower than that of ``other`` by more than ``margin``."""
        ahead = float(self.mean[index] - self.mean[other]) + margin
        c = self.covariance
        variance = float(c[index, index] + c[other, other] - 2 * c[index, other])
        if index == other or variance <= 0:
            return 1.0 if ahead >= 0 else 0.0
        return NormalDist().cdf(ahead / sqrt(variance))


class Surrogate:
    """A Gaussian process of points' latent mean accuracies, given their features and replicates.

    Replicate j of point i is ``y_ij = c + h(x_i) + u_i + e_ij``: a constant, a smooth function of the features
    (Matern-5/2 with a length scale for each), what the features do not explain of the point itself, and the
    replicate's noise. The latent mean is ``c + h + u``. Rows with the same features are the same point.

    The settings (length scales, and the variances of u and e as shares of the total) are not optimised: predictions
    are averaged over draws from their posterior, the same in every run, in which c (flat prior) and the total
    variance (inverse gamma) are integrated out in closed form (Rasmussen & Williams 2006, 2.7 and 5.2). The scatter
    of replicates within points is a part of the likelihood, so that it is what the noise is known by; with one
    replicate everywhere, the prior and what is smooth decide. The result is scale- and shift-equivariant.

    Args:
        features: (n, d), n >= 1, finite; standardised inside, a constant one is taken in its own units.
        replicates: for each row its accuracies, at least one, finite.

    Attributes:
        evidence: log marginal likelihood, settings averaged out; comparable between features of the same replicates.
        noise: standard deviation of one replicate about its point's latent mean.

    Raises:
        ValueError: if a shape does not fit, or a number is not finite.
    """

    def __init__(self, features: ArrayLike, replicates: Sequence[Sequence[float]]) -> None:
        rows = _table(features)
        if len(rows) == 0 or len(rows) != len(replicates):
            raise ValueError(f"{len(rows)} rows of features and {len(replicates)} of replicates: at least one, as many")
        if any(len(row) == 0 for row in replicates):
            raise ValueError("every row needs at least one replicate")
        values = np.concatenate([np.asarray(row, dtype=np.float64) for row in replicates])
        if not np.isfinite(values).all():
            raise ValueError("replicates must be finite")
        self._points, point_of_row = np.unique(rows, axis=0, return_inverse=True)
        points = np.repeat(point_of_row.reshape(-1), [len(row) for row in replicates])

        self._centre = float(values.mean())
        self._spread = float(values.std(ddof=1)) if np.ptp(values) > 0 else _UNKNOWN_SPREAD
        self._offset = self._points.mean(axis=0)
        varies = np.ptp(self._points, axis=0) > 0
        self._unit = np.where(varies, self._points.std(axis=0), 1.0)

        y = (values - self._centre) / self._spread
        counts = np.bincount(points).astype(np.float64)
        means = np.bincount(points, y) / counts
        self._settle(counts, means, float(np.square(y - means[points]).sum()))

    def _settle(self, counts: Array, means: Array, within: float) -> None:
        """Draw the settings, weigh them, and solve for those that predictions are averaged over.

        Args:
            counts, means: (n,) of the points' replicates, standardised.
            within: sum of squares of the replicates about their points' means.
        """
        total = float(counts.sum())
        pairs = np.tril_indices(len(counts))
        scaled = self._scaled(self._points)
        apart = np.square(scaled[pairs[0]] - scaled[pairs[1]]).T
        right = np.stack([means, np.ones(len(counts))])

        def solve(settings: _Settings) -> tuple[Array, Array, Array]:
            """Log likelihood and expected total variance (k,); Cholesky factors of the covariance of the means and,
            below them, what they make of the means and of ones: (k, n + 2, n)."""
            factors = _factors(settings, pairs, apart, counts, right)
            own = np.einsum("kin,kjn->kij", factors[:, -2:], factors[:, -2:])
            squares = own[:, 0, 0] - own[:, 0, 1] ** 2 / own[:, 1, 1] + within / settings.noise
            squares = np.maximum(squares, 0.0)
            likelihood = (
                -np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
                - 0.5 * np.log(own[:, 1, 1])
                - 0.5 * (total - len(counts)) * np.log(settings.noise)
                - (0.5 * total + 1) * np.log(0.5 + 0.5 * squares)
            )
            return likelihood, (1 + squares) / total, factors

        def likelihood(z: Array) -> Array:
            parts = _parts(len(z), len(pairs[0]))
            return np.concatenate([solve(_Settings.at(z[part]))[0] for part in parts])

        z, log_weights = _sampled(likelihood, self._points.shape[1] + 2)
        by_noise = np.argsort(z[:, 0])
        z, log_weights = z[by_noise], log_weights[by_noise]
        weights = np.exp(log_weights - log_weights.max())
        self.evidence = (
            float(log_weights.max())
            + log(float(weights.mean()))
            - 0.5 * float(np.log(counts).sum())
            + lgamma(0.5 * total + 1)
        )
        places = np.searchsorted(np.cumsum(weights / weights.sum()), (np.arange(_KEPT) + 0.5) / _KEPT)
        kept, times = np.unique(np.minimum(places, len(z) - 1), return_counts=True)
        self._settings = _Settings.at(z[kept])
        self._weights = times / _KEPT
        _, self._variance, factors = solve(self._settings)
        self.noise = self._spread * sqrt(float(self._weights @ (self._variance * self._settings.noise)))
        self._inverse = np.linalg.inv(factors[:, :-2])
        self._means, self._ones = factors[:, -2], factors[:, -1]
        self._precision = np.square(self._ones).sum(axis=1)
        self._constant = (self._means * self._ones).sum(axis=1) / self._precision

    def at(self, features: ArrayLike, own: ArrayLike | None = None) -> Belief:
        """What is believed of the latent means at ``features`` (m, d): seen points, or others.

        Args:
            features: (m, d).
            own: (m,) whether what is the point's own, u, is a part of it; without, it is what the features say of
                points like it, ``c + h``. By default everywhere.

        Raises:
            ValueError: if the features are not finite, or not as many as those given before.
        """
        rows = _table(features)
        m, n = len(rows), len(self._points)
        if rows.shape[1] != self._points.shape[1]:
            raise ValueError(f"{rows.shape[1]} features where {self._points.shape[1]} are known")
        scaled = self._scaled(rows)
        counted = np.ones(m) if own is None else np.asarray(own, dtype=np.float64)
        across = _squared_distances(scaled, self._scaled(self._points)), counted[:, None] * _same(rows, self._points)
        among = _squared_distances(scaled, scaled), np.outer(counted, counted) * _same(rows, rows)
        means = np.empty((len(self._weights), m))
        covariance = np.zeros((m, m))
        for part in _parts(len(self._weights), m * max(m, n)):
            some, constant = self._settings[part], self._constant[part, None]
            known = some.covariance(*across) @ self._inverse[part].swapaxes(1, 2)
            left = 1 - (known @ self._ones[part][..., None])[..., 0]
            means[part] = (known @ self._means[part][..., None])[..., 0] + constant * left
            each = some.covariance(*among) - known @ known.swapaxes(1, 2)
            each += left[:, :, None] * left[:, None, :] / self._precision[part, None, None]
            covariance += np.tensordot(self._weights[part] * self._variance[part], each, axes=1)
        mean = self._weights @ means
        about = (means - mean) * np.sqrt(self._weights)[:, None]
        covariance += about.T @ about
        covariance = (covariance + covariance.T) / 2
        np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), 0.0))
        return Belief(self._centre + self._spread * mean, self._spread**2 * covariance)

    def _scaled(self, features: Array) -> Array:
        return np.asarray((features - self._offset) / self._unit)


@dataclass(frozen=True)
class _Settings:
    """The inverse squares of length scales (k, d); shares of the variance (k,), which sum to one."""

    precisions: Array
    smooth: Array
    own: Array
    noise: Array

    @classmethod
    def at(cls, z: Array) -> "_Settings":
        """For (k, d + 2) standard normal coordinates, which makes the prior: log length scales ~ N(log(1.5 sqrt(d)), 1)
        in standard deviations of the feature; the log variances of the noise and of what is the point's own, relative
        to the smooth part, ~ N(-1, 2) and N(-2.5, 2)."""
        scales = 1.5 * sqrt(z.shape[1] - 2) * np.exp(z[:, 2:])
        noise, own = _LEAST + np.exp(2 * z[:, 0] - 1), _LEAST + np.exp(2 * z[:, 1] - 2.5)
        total = 1 + noise + own
        return cls(scales**-2, 1 / total, own / total, noise / total)

    def __getitem__(self, part: slice) -> "_Settings":
        return _Settings(self.precisions[part], self.smooth[part], self.own[part], self.noise[part])

    def covariance(self, apart: Array, same: Array) -> Array:
        """(k, ...) of latent means, for squared distances (d, ...) and one where points are the same, else zero."""
        r = np.tensordot(5 * self.precisions, apart, axes=1)
        near = r / 3
        np.sqrt(r, out=r)
        near += 1
        near += r
        near *= np.exp(np.negative(r, out=r), out=r)
        shape = (-1,) + (1,) * same.ndim
        near *= self.smooth.reshape(shape)
        near += self.own.reshape(shape) * same
        return near


def _factors(settings: _Settings, pairs: tuple[Indices, Indices], apart: Array, counts: Array, right: Array) -> Array:
    """Cholesky factors L of the covariance V of the points' means (k, n, n), with the rows of ``right`` (2, n) solved
    by them, L^-1 right', below: (k, n + 2, n). These are a part of the factor of V bordered by ``right``."""
    n = len(counts)
    bordered = np.zeros((len(settings.noise), n + 2, n + 2))
    bordered[:, pairs[0], pairs[1]] = settings.covariance(apart, (pairs[0] == pairs[1]).astype(np.float64))
    every = np.arange(n)
    bordered[:, every, every] += settings.noise[:, None] / counts
    bordered[:, n:, :n] = right
    bordered[:, [n, n + 1], [n, n + 1]] = _BORDER
    return np.asarray(np.linalg.cholesky(bordered), dtype=np.float64)[:, :, :n]


def _sampled(likelihood: Callable[[Array], Array], dimensions: int) -> tuple[Array, Array]:
    """Draws from the posterior of what is standard normal a priori, and their log weights.

    Adaptive multiple importance sampling (Cornuet et al. 2012): rounds of quasi-random normal draws, the first from
    the prior, each further one from a normal with the moments of the weighted draws so far; a draw is weighted by
    the mixture of all rounds. For the moments the weights are flattened until they rest on enough draws.

    Args:
        likelihood: log likelihoods (k,) of (k, dimensions) coordinates.
    """
    base = _normal(sum(_ROUNDS), dimensions)
    centre, root = np.zeros(dimensions), np.eye(dimensions)
    z, likelihoods, sources = np.empty((0, dimensions)), np.empty(0), []
    for count in _ROUNDS:
        fresh = centre + base[len(z) : len(z) + count] @ root.T
        z, likelihoods = np.concatenate([z, fresh]), np.concatenate([likelihoods, likelihood(fresh)])
        sources.append((count, centre, root))
        densities = np.stack([log(count / len(z)) + _log_normal(z, *moments) for count, *moments in sources])
        weights = likelihoods - 0.5 * np.square(z).sum(axis=1) - np.logaddexp.reduce(densities)
        flat, resting = _flattened(weights, dimensions + 2)
        centre = flat @ z
        spread = (z - centre).T @ ((z - centre) * flat[:, None])
        share = resting / (resting + dimensions)
        shrunk = share * spread + (1 - share) * 0.25 * np.eye(dimensions)
        root = np.asarray(np.linalg.cholesky(shrunk), dtype=np.float64)
    return z, weights


def _flattened(log_weights: Array, least: float) -> tuple[Array, float]:
    """Weights raised to the largest of a row of powers at which they rest on ``least`` draws, and on how many."""
    for power in 0.7 ** np.arange(40):
        weights = np.exp(power * (log_weights - log_weights.max()))
        weights /= weights.sum()
        if (resting := 1 / float(weights @ weights)) >= least:
            break
    return weights, resting


def _log_normal(z: Array, centre: Array, root: Array) -> Array:
    """Log density (k,) of the normal with this Cholesky root, but for the constant."""
    u = np.linalg.solve(root, (z - centre).T)
    return np.asarray(-0.5 * np.square(u).sum(axis=0) - np.log(np.diagonal(root)).sum())


@cache
def _normal(count: int, dimensions: int) -> Array:
    """Quasi-random standard normal draws: Roberts' additive recurrence, (count, dimensions)."""
    root = 1.5
    for _ in range(64):
        root = exp(log(1 + root) / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    uniform = (0.5 + np.outer(np.arange(1, count + 1), steps)) % 1
    return np.array([[NormalDist().inv_cdf(each) for each in row] for row in uniform])


def _table(features: ArrayLike) -> Array:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"features must be a table of rows and columns, not of shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("features must be finite")
    return rows


def _squared_distances(a: Array, b: Array) -> Array:
    """(d, m, n) of each feature of (m, d) and (n, d)."""
    return np.square(a.T[:, :, None] - b.T[:, None, :])


def _same(a: Array, b: Array) -> Array:
    return np.asarray((a[:, None, :] == b[None, :, :]).all(axis=-1), dtype=np.float64)


def _parts(count: int, size: int) -> Iterator[slice]:
    """Slices of ``count`` things of ``size`` numbers each."""
    step = max(1, _AT_ONCE // max(size, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
