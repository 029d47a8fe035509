"""What a confirmation and a ranking may conclude from a few students on a few thousand images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCOPE = (
    "This is about this teacher, these students, this temperature and this learning-rate rule, "
    "not about the point in general."
)

_ELEMENTS = 2**21  # (resamples, images) worked on at once: some 50 MB
_LEAST_VARIANCE = 1e-6  # of points, as a share of that of replicates


# -- the confirmation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """An accuracy or a difference of two, as fractions, with what 95 % confidence can say of it."""

    mean: float
    low: float
    """Two-sided, with `high`."""
    high: float
    lower_one_sided: float
    """The 5th percentile: the true value is above it with 95 % confidence."""
    upper_one_sided: float
    """The 95th percentile: the true value is below it with 95 % confidence."""


@dataclass(frozen=True)
class Verdict:
    """What a confirmation has shown: True, False or None (undecided), and the same in plain words."""

    confirmed: bool | None
    words: str


def two_way_bootstrap(
    correct: NDArray[np.bool_ | np.integer],
    other: NDArray[np.bool_ | np.integer] | None = None,
    *,
    resamples: int = 10_000,
    seed: int,
) -> Interval:
    """The mean of `correct`, or of the paired difference `correct - other`, with percentile bootstrap bounds.

    Seeds and images are resampled independently, with replacement, so that the bounds are about other students and
    other images alike. Of n seeds, n - 1 are drawn: a plain bootstrap's variance over seeds is (n - 1) / n of the
    unbiased one, a fifth too small with five seeds (Rao & Wu 1988, Journal of the American Statistical Association 83).
    Noise that belongs to neither a seed nor an image is counted up to three times (Owen 2007, arXiv 0712.1111): where
    it dominates, the bounds are too wide. Where five seeds that differ much dominate, they are too narrow, as
    percentiles know nothing of Student's t: in simulations the two-sided interval then held the truth in 86 to 91 % of
    cases, the one-sided bounds in 89 to 95 %.

    Args:
        correct: (seeds, images), True or 1 where the student of that seed is right about that image.
        other: the same of the arm compared with; the same seeds in the same rows, the same images in the same columns.
        resamples: bootstrap resamples.
        seed: of the resampling; the same seed gives the same bounds.

    Raises:
        ValueError: fewer than 2 seeds, no images, shapes that differ, values other than 0 and 1.
    """
    values = _zero_one("correct", correct)
    if other is not None:
        subtracted = _zero_one("other", other)
        if subtracted.shape != values.shape:
            raise ValueError(f"both arms need the same seeds and images, found {values.shape} and {subtracted.shape}")
        values = values - subtracted
    if resamples < 1:
        raise ValueError(f"at least 1 resample is needed, found {resamples}")
    means = _resampled_means(values, resamples, np.random.default_rng(seed))
    low, lower, upper, high = np.percentile(means, [2.5, 5, 95, 97.5]).tolist()
    return Interval(float(values.mean()), low, high, lower, upper)


def _resampled_means(values: NDArray[np.int8], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The means of `resamples` resamples of (seeds, images) values that are -1, 0 or 1.

    Given the seeds that were drawn, an image is worth a whole number from -drawn to drawn, and what a draw of images
    adds up to depends on how often each of these few numbers occurs. So the counts of the numbers are drawn, not those
    of ten thousand images: the same distribution, a hundred times fewer random numbers.
    """
    seeds, images = values.shape
    drawn = seeds - 1
    kinds, kind_images = np.unique(values, axis=1, return_counts=True)  # images that are alike for every seed
    kinds = kinds.astype(np.float32)
    seed_counts = rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=resamples).astype(np.float32)
    worths = np.arange(-drawn, drawn + 1)
    means = np.empty(resamples)
    rows = max(1, _ELEMENTS // max(len(kind_images), len(worths)))
    for start in range(0, resamples, rows):
        chunk = seed_counts[start : start + rows]
        cells = (chunk @ kinds).astype(np.int64) + drawn  # whole numbers this small are exact in float32
        cells += len(worths) * np.arange(len(chunk))[:, None]
        weights = np.broadcast_to(kind_images, cells.shape).ravel()
        occurrences = np.bincount(cells.ravel(), weights, len(chunk) * len(worths)).reshape(len(chunk), -1)
        totals = rng.multinomial(images, occurrences / images) @ worths
        means[start : start + rows] = totals / (drawn * images)
    return means


def _zero_one(name: str, values: NDArray[np.bool_ | np.integer]) -> NDArray[np.int8]:
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise ValueError(f"{name} must be booleans of shape (seeds, images), found {values.shape} {values.dtype}")
    seeds, images = values.shape
    if seeds < 2:
        raise ValueError(f"bounds need at least 2 seeds, found {seeds}")
    if images == 0:
        raise ValueError("bounds need images, found none")
    if values.dtype.kind != "b" and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"{name} must be 0 or 1, found {values.min()} to {values.max()}")
    return values.astype(np.int8)


def verdict(
    *,
    over_student_alone: Interval,
    over_most_accurate: Interval | None,
    over_longest: Interval | None,
    longest_is_best: bool,
    margin: float,
    over_yours: Mapping[str, Interval | None] | None = None,
) -> Verdict:
    """What the gains of the best point show.

    `confirmed` is True when the one-sided lower bounds of the gains over the student alone and over the most accurate
    teacher are both above 0; otherwise False when the upper bound of either is under the margin; otherwise None. The
    gains over the longest-trained teacher and over the user's own are told, and decide nothing.

    Args:
        over_student_alone: the best point's accuracy less that of students trained on labels alone.
        over_most_accurate: less that of the most accurate teacher's students; None where that teacher *is* the best
            point, which then cannot be confirmed to be better than it.
        over_longest: less that of the longest-trained teacher's students; None where it *is* the best point or could
            not be trained.
        longest_is_best: whether the longest-trained teacher is the best point.
        margin: the difference, a fraction, that does not matter.
        over_yours: less that of each teacher that was trained elsewhere, by what people know it by; None where it could
            not teach.

    Raises:
        ValueError: a margin that is not a finite number of at least 0.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"the margin must be a finite number of at least 0, found {margin}")
    alone, accurate = over_student_alone, over_most_accurate
    longest = " ".join([_longest_words(over_longest, longest_is_best), *_yours_words(over_yours or {})])
    if accurate is not None and _helps(alone) and _helps(accurate):
        words = (
            f"confirmed: the best point gains {_gain(alone)} over the student alone {_at_least(alone)} "
            f"and {_gain(accurate)} over the most accurate teacher {_at_least(accurate)}"
        )
        if _too_small(alone, margin) or _too_small(accurate, margin):
            words += f", though not by the margin of {_points(margin)} points"
        return Verdict(True, f"{words}. {longest} {SCOPE}")
    if _too_small(alone, margin):
        hurts = "it hurts, for " if alone.upper_one_sided < 0 else ""
        words = (
            f"distillation does not help here: {hurts}the best point's gain over the student alone is "
            f"{_gain(alone)} {_at_most(alone, margin)}"
        )
        return Verdict(False, " ".join([f"{words}.", *_yours_words(over_yours or {}), SCOPE]))
    if accurate is None:
        return Verdict(False, f"the most accurate teacher is the best point: {_enough(alone)}. {longest} {SCOPE}")
    if _too_small(accurate, margin):
        words = (
            "no better than the most accurate teacher: the best point's gain over it is "
            f"{_gain(accurate)} {_at_most(accurate, margin)}; {_enough(alone)}"
        )
        return Verdict(False, f"{words}. {longest} {SCOPE}")
    of_both = f"{_standing('the student alone', alone)}, and {_standing('the most accurate teacher', accurate)}"
    words = f"undecided: the best point {of_both}"
    return Verdict(None, f"{words}; more [confirm] seeds would narrow it. {longest} {SCOPE}")


def _helps(gain: Interval) -> bool:
    return gain.lower_one_sided > 0


def _too_small(gain: Interval, margin: float) -> bool:
    return gain.upper_one_sided < margin or gain.upper_one_sided <= 0  # an arm that ties with itself, at margin 0


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _gain(gain: Interval) -> str:
    return f"{_signed(gain.mean)} points"


def _signed(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # adding 0.0 makes a rounded -0.0 positive


def _at_least(gain: Interval) -> str:
    return f"(at least {_signed(gain.lower_one_sided)} with 95 % confidence)"


def _at_most(gain: Interval, margin: float) -> str:
    return (
        f"(at most {_signed(gain.upper_one_sided)} with 95 % confidence, "
        f"where less than {_points(margin)} does not matter)"
    )


def _between(gain: Interval) -> str:
    return f"(95 % interval {_signed(gain.low)} to {_signed(gain.high)})"


def _enough(alone: Interval) -> str:
    """What is left to say of distillation when no point is better than the most accurate teacher."""
    enough = "training the teacher for accuracy is enough here"
    if _helps(alone):
        return f"distillation helps, by {_gain(alone)} over the student alone {_at_least(alone)}, and {enough}"
    return (
        f"{enough}, but whether distillation helps is undecided, at {_gain(alone)} over the student alone "
        f"{_between(alone)}, which more [confirm] seeds would narrow"
    )


def _standing(arm: str, gain: Interval) -> str:
    known = "is better than" if _helps(gain) else "is not known to be better than"
    return f"{known} {arm}, by {_gain(gain)} {_between(gain)}"


def _longest_words(gain: Interval | None, is_best: bool) -> str:
    if is_best:
        return "The best point is the longest-trained teacher."
    if gain is None:
        return "The longest-trained teacher could not be trained."
    return f"Its gain over the longest-trained teacher is {_gain(gain)} {_between(gain)}."


def _yours_words(gains: Mapping[str, Interval | None]) -> list[str]:
    return [
        f"Its gain over your teacher {name} is {_gain(gain)} {_between(gain)}."
        if gain is not None
        else f"Your teacher {name} could not teach."
        for name, gain in gains.items()
    ]


# -- the ranking ------------------------------------------------------------------------------------------------------


def shrunken_means(values: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The means of points with unequal numbers of replicates, made comparable: a lucky one is drawn to the rest.

    A random-effects model: point i has a true mean of variance tau2 over points, its n_i replicates scatter about it
    with variance sigma2. Each mean moves toward the grand mean, and keeps the share `tau2 / (tau2 + sigma2 / n_i)` of
    its distance. sigma2 is pooled within points; tau2 comes from the sum of squares between them (the method of
    moments), and is kept just above zero (at a millionth of sigma2): where the points differ no more than replicates
    do, all means are as good as equal, but still in order.

    Where no point has two replicates nothing tells noise from difference, and the values are returned as they are:
    with equal numbers of replicates shrinkage would change no order.

    Args:
        values: for each point its replicates' accuracies, at least one.

    Returns:
        One mean for each point, in order; empty for no points.

    Raises:
        ValueError: a point without replicates, a value that is not finite.
    """
    for index, replicates in enumerate(values):
        if len(replicates) == 0:
            raise ValueError(f"point {index} has no replicates: a point needs at least one")
        if not np.isfinite(replicates).all():
            raise ValueError(f"point {index} has a value that is not finite: {list(replicates)}")
    counts = np.array([len(replicates) for replicates in values], dtype=np.float64)
    means = np.array([np.mean(replicates) for replicates in values], dtype=np.float64)
    points, total = len(values), counts.sum()
    if points < 2 or total == points:
        return means
    within = sum(float(np.square(np.asarray(r) - m).sum()) for r, m in zip(values, means, strict=True))
    sigma2 = within / (total - points)
    if sigma2 == 0:
        return means
    plain = counts @ means / total
    between = counts @ np.square(means - plain)
    tau2 = (between - (points - 1) * sigma2) / (total - counts @ counts / total)
    precision = 1 / (max(tau2, _LEAST_VARIANCE * sigma2) + sigma2 / counts)
    grand = precision @ means / precision.sum()
    kept = 1 - precision * sigma2 / counts
    return np.asarray(grand + kept * (means - grand))
