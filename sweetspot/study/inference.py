"""What a confirmation and a ranking may conclude from a few students on a few thousand images.

Students, teachers and test images are all drawn from more than there are here, and an interval is about all three.
Accuracies and their differences are fractions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Claim = Literal["this teacher", "this point"]
"""What a confirmation is about: a snapshot and fresh students of it, or a point and fresh teachers of it."""

ERROR = 0.05
"""One-sided, of all looks together."""
POWER = 0.8
"""The chance with which a planned confirmation is to settle a difference."""

_LATER = 0.25  # of the error: what a look leaves for those after it
_MOST_SEEDS = 2**20
_MOST_DESIGNS = 32  # that are looked at for the cheapest
_NODES = 6
_LEAST_VARIANCE = 1e-6  # of points, as a share of that of replicates


# -- intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the students of one arm were right about.

    Attributes:
        correct: (students, images), True where the student is right about the image; the images of the test split, the
            same in every arm.
        units: (students,), which independent unit each student belongs to: its teacher where teachers are fresh, else
            the student itself. Students of one unit have something in common and count as one.

    Raises:
        ValueError: shapes that do not fit, types other than booleans and integers, fewer than 2 units or images.
    """

    correct: NDArray[np.bool_]
    units: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.correct.ndim != 2 or self.correct.dtype.kind != "b":
            found = f"{self.correct.shape} {self.correct.dtype}"
            raise ValueError(f"correct must be booleans of shape (students, images), found {found}")
        students, images = self.correct.shape
        if self.units.shape != (students,) or self.units.dtype.kind not in "iu":
            found = f"{self.units.shape} {self.units.dtype}"
            raise ValueError(f"units must be an integer for each of the {students} students, found {found}")
        if len(np.unique(self.units)) < 2:
            raise ValueError("an interval needs at least 2 independent students or teachers")
        if images < 2:
            raise ValueError(f"an interval needs at least 2 images, found {images}")

    def by_unit(self) -> NDArray[np.float64]:
        """(units, images): the share of a unit's students that are right about an image."""
        names, rows, counts = np.unique(self.units, return_inverse=True, return_counts=True)
        if len(names) == len(rows):
            return self.correct.astype(np.float64)
        belongs = (rows == np.arange(len(names))[:, None]).astype(np.float64)
        return np.asarray(belongs @ self.correct / counts[:, None])


@dataclass(frozen=True)
class Interval:
    """A mean accuracy or a difference of two, and what Student's t says of the true one.

    Attributes:
        dof: degrees of freedom of the standard error; infinite where nothing varied.
    """

    mean: float
    standard_error: float
    dof: float

    @property
    def low(self) -> float:
        """Two-sided 95 %, with `high`."""
        return self.lower(0.025)

    @property
    def high(self) -> float:
        return self.upper(0.025)

    @property
    def lower_one_sided(self) -> float:
        """The true value is above it with 95 % confidence."""
        return self.lower(0.05)

    @property
    def upper_one_sided(self) -> float:
        """The true value is below it with 95 % confidence."""
        return self.upper(0.05)

    def lower(self, level: float) -> float:
        """The one-sided bound that is above the true value with a probability of ``level``."""
        return self.mean - self.standard_error * _quantile(self.dof, 1 - level)

    def upper(self, level: float) -> float:
        """The one-sided bound that is below the true value with a probability of ``level``."""
        return self.mean + self.standard_error * _quantile(self.dof, 1 - level)

    def p_above(self, null: float = 0.0) -> float:
        """The one-sided p value of "the true value is at most ``null``"; below a level exactly where `lower` is above
        ``null``. Without variance 0, 1, or 0.5 at ``null`` itself."""
        from scipy.special import stdtr

        distance = self.mean - null
        if self.standard_error == 0:
            return 0.5 - 0.5 * float(np.sign(distance))
        return float(stdtr(self.dof, -distance / self.standard_error))

    def __neg__(self) -> "Interval":
        """That of the difference the other way round."""
        return Interval(0.0 - self.mean, self.standard_error, self.dof)


def accuracy(outcomes: Outcomes) -> Interval:
    """The mean accuracy over units, for other units and other images.

    As `difference`, with an arm that is nothing.
    """
    right = outcomes.by_unit()
    return _interval(float(right.mean(1).mean()), [right], right.mean(0))


def difference(a: Outcomes, b: Outcomes) -> Interval:
    """How much more accurate ``a`` is than ``b``, for other units and other images.

    With y_uj the share of unit u's students that are right about image j, a unit and an image random effects and TI
    their interaction (and whatever else is left), a mean over U units and m images varies by T / U + I / m + TI / U m.
    The sample variance of the unit means, s^2, estimates T + TI / m; the images are the same in both arms, so that of
    them only the variance of d_j = mean_u y_uj(a) - mean_u y_uj(b) matters, in which the interactions are once more:

        V = s_a^2 / U_a + s_b^2 / U_b + max(0, s^2(d_j) - MS_a / U_a - MS_b / U_b) / m

    where MS = sum_uj (y_uj - y_u. - y_.j + y..)^2 / ((U - 1)(m - 1)) is the mean square of the interaction: the
    analysis of variance of a crossed design (Searle, Casella & McCulloch 1992, Variance Components, chapter 4), as for
    readers and cases (Gallas 2006, Academic Radiology 13). Units are not paired, which is Welch's form (1947,
    Biometrika 34): what the arms have in common makes the interval too wide, never too narrow. The degrees of freedom
    are Satterthwaite's (1946, Biometrics Bulletin 2).

    Raises:
        ValueError: arms with different numbers of images.
    """
    if a.correct.shape[1] != b.correct.shape[1]:
        found = f"{a.correct.shape[1]} and {b.correct.shape[1]}"
        raise ValueError(f"both arms need the same images, found {found}")
    first, second = a.by_unit(), b.by_unit()
    mean = float(first.mean(1).mean()) - float(second.mean(1).mean())
    return _interval(mean, [first, second], first.mean(0) - second.mean(0))


def _interval(mean: float, arms: Sequence[NDArray[np.float64]], by_image: NDArray[np.float64]) -> Interval:
    images = len(by_image)
    terms = [(float(right.mean(1).var(ddof=1)) / len(right), len(right) - 1.0) for right in arms]
    chance = [(-_interaction(right) / (len(right) * images), (len(right) - 1.0) * (images - 1)) for right in arms]
    crossed = [(float(by_image.var(ddof=1)) / images, images - 1.0), *chance]
    if sum(variance for variance, _ in crossed) > 0:
        terms += crossed
    return _by_satterthwaite(mean, terms, min(len(right) for right in arms) - 1.0)


def _interaction(right: NDArray[np.float64]) -> float:
    """The mean square of the interaction of units and images."""
    units, images = right.shape
    rest = right - right.mean(1, keepdims=True) - right.mean(0) + right.mean()
    return float(np.square(rest).sum() / ((units - 1) * (images - 1)))


def _by_satterthwaite(mean: float, terms: Sequence[tuple[float, float]], least: float) -> Interval:
    """The interval whose variance is a sum of (variance, degrees of freedom); never fewer of them than ``least``."""
    variance = math.fsum(term for term, _ in terms)
    if variance <= 0:
        return Interval(mean, 0.0, math.inf)
    dof = variance**2 / math.fsum(term**2 / dof for term, dof in terms)
    return Interval(mean, math.sqrt(variance), max(least, dof))


def _quantile(dof: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, probability))


def pairing_correlation(a: Outcomes, b: Outcomes) -> float | None:
    """How the accuracies of students with the same seeds go together in two arms: to be reported, never relied on.

    The same student seeds must stand in the same rows. None where the arms are not built alike, with fewer than 3
    students, or where an arm's students are all as accurate.
    """
    if len(a.units) < 3 or not np.array_equal(a.units, b.units):
        return None
    first, second = a.correct.mean(1), b.correct.mean(1)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


# -- several looks, several finalists ---------------------------------------------------------------------------------


def look_level(look: int) -> float:
    """The one-sided error that the ``look``-th look at the test split may make, from 1: 3.75 %, 0.94 %, 0.23 %, ...

    Each look spends three quarters of what is left of 5 %, so that seeds may be added any number of times, for any
    reason: by Bonferroni's inequality all looks together err in at most 5 % (error spending as of Lan & DeMets 1983,
    Biometrika 70, without their use of the correlation between looks).

    Raises:
        ValueError: a look before the first.
    """
    if look < 1:
        raise ValueError(f"looks are counted from 1, found {look}")
    return float(ERROR * (1 - _LATER) * _LATER ** (look - 1))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which of several hypotheses are rejected, with an error of ``level`` for all (Holm 1979, Scand. J. Stat. 6)."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if not p_values[index] < level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


# -- how many seeds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """Variances of the accuracy of one arm's students, on the images of this test split.

    Attributes:
        teachers: between teachers; 0 where students are independent of each other.
        students: between students of one teacher.
        nested: whether students are nested in fresh teachers.
        dof: degrees of freedom with which they are known.
    """

    teachers: float
    students: float
    nested: bool
    dof: float = math.inf

    @classmethod
    def of(cls, outcomes: Outcomes) -> "Components":
        """The nested analysis of variance; a negative component is 0. Where every unit has one student, all of the
        variance is that of students."""
        accuracies = outcomes.correct.mean(1)
        _, rows, counts = np.unique(outcomes.units, return_inverse=True, return_counts=True)
        means = np.bincount(rows, accuracies) / counts
        between = float(means.var(ddof=1))
        if len(counts) == len(rows):
            return cls(0.0, between, nested=False, dof=len(counts) - 1.0)
        within = float(np.square(accuracies - means[rows]).sum()) / (len(rows) - len(counts))
        teachers = max(0.0, between - within * float(np.mean(1 / counts)))
        return cls(teachers, within, nested=True, dof=len(counts) - 1.0)

    def mean(self, teachers: int, students: int) -> tuple[float, float]:
        """The variance of the mean over so many teachers (0: none are fresh) with so many students each, and its
        degrees of freedom. Without fresh teachers the arm has as many students in all."""
        everybody = max(teachers, 1) * students
        if self.nested and teachers > 0:
            return self.teachers / teachers + self.students / everybody, teachers - 1.0
        return self.students / everybody, everybody - 1.0


@dataclass(frozen=True)
class Noise:
    """What makes the difference of two arms uncertain.

    Attributes:
        by_image: variance over images of the arms' true difference about an image.
        images: of the test split.
    """

    a: Components
    b: Components
    by_image: float
    images: int

    @classmethod
    def of(cls, a: Outcomes, b: Outcomes) -> "Noise":
        first, second = a.by_unit(), b.by_unit()
        seen = float((first.mean(0) - second.mean(0)).var(ddof=1))
        chance = sum(_interaction(right) / len(right) for right in (first, second))
        return cls(Components.of(a), Components.of(b), max(0.0, seen - chance), a.correct.shape[1])

    def expected(self, difference: float, teachers: int, students: int) -> Interval:
        """The interval to be expected with so many fresh teachers (0: none) and students of each, in both arms."""
        arms = self._arms(teachers, students)
        return _by_satterthwaite(difference, [*arms, self._images], min(dof for _, dof in arms))

    def power(self, difference: float, teachers: int, students: int, *, level: float) -> float:
        """The chance that such a confirmation finds a true difference above 0, at a one-sided ``level``.

        Of Student's t with the degrees of freedom that Satterthwaite's formula will *find*: the arms' variances are
        averaged over what they may come out as (scaled chi-squared, by Gauss-Legendre quadrature), and over what they
        may truly be, as far as they are known (the distribution of noncentral t). With the degrees of freedom to be
        expected, and variances as if they were exact, 36 % was promised where 22 % of simulated studies of 3 teachers
        found the difference.
        """
        from scipy.special import chdtri, nctdtr, stdtrit

        (first, first_dof), (second, second_dof) = self._arms(teachers, students)
        images, images_dof = self._images
        total = first + second + images
        if total == 0:
            return float(difference > 0)
        places, weights = np.polynomial.legendre.leggauss(_NODES)
        first_found = first * chdtri(first_dof, (1 - places) / 2)[:, None] / first_dof
        second_found = second * chdtri(second_dof, (1 - places) / 2) / second_dof
        found = first_found + second_found + images
        dof = found**2 / (first_found**2 / first_dof + second_found**2 / second_dof + images**2 / images_dof)
        bound = stdtrit(dof, 1 - level) * np.sqrt(found / total)
        doubt = first**2 / self.a.dof + second**2 / self.b.dof + images**2 / images_dof
        known = total**2 / doubt if doubt > 0 else math.inf
        return float(weights @ nctdtr(known, bound, difference / math.sqrt(total)) @ weights / 4)

    def can_settle(self, difference: float, *, level: float) -> bool:
        """Whether any number of seeds could find a true difference with the power of `POWER`: the images are what they
        are."""
        variance, dof = self._images
        bound = _quantile(dof, 1 - level) + _quantile(math.inf, POWER)
        return difference > 0 and difference >= bound * math.sqrt(variance)

    def _arms(self, teachers: int, students: int) -> list[tuple[float, float]]:
        return [arm.mean(teachers, students) for arm in (self.a, self.b)]

    @property
    def _images(self) -> tuple[float, float]:
        return self.by_image / self.images, self.images - 1.0


def seeds_needed(
    finalist: Outcomes, other: Outcomes, *, detectable: float, claim: Claim, level: float
) -> tuple[int, int] | None:
    """How many seeds would settle a difference of ``detectable`` at a one-sided ``level`` with a power of 80 %.

    From the variances found in these outcomes; pairing is not counted on. For "this point", of all designs with at
    least as many teachers and students per teacher as there are, the one with the least to train (a teacher counted as
    a student); where teachers have one student each, more of those. An arm without a teacher is taken to have as many
    students as the others.

    Returns:
        (teachers, students of each) in all, always more than there are; teachers are 0 for "this teacher". None where
        the test split is too small to settle such a difference, whatever the seeds.
    """
    noise = Noise.of(finalist, other)
    if not noise.can_settle(detectable, level=level):
        return None

    def settled(teachers: int, students: int) -> bool:
        return noise.power(detectable, teachers, students, level=level) >= POWER

    if claim == "this teacher":
        enough = _least(lambda n: settled(0, n), len(finalist.units) + 1)
        return None if enough is None else (0, enough)
    teachers = len(np.unique(finalist.units))
    students = len(finalist.units) // teachers
    most = _least(lambda n: settled(n, students), teachers)
    if most is None:
        return None
    best = (max(most, teachers + 1), students)
    designs = np.unique(np.geomspace(teachers, best[0], _MOST_DESIGNS).astype(int))[-2::-1]
    for fewer in designs.tolist() if students > 1 else []:
        start = students + (fewer == teachers)
        limit = best[0] * (best[1] + 1) // fewer - 1  # as costly as the best so far
        if limit >= start and settled(fewer, limit):
            best = (fewer, _least(lambda n, fewer=fewer: settled(fewer, n), start) or limit)  # type: ignore[misc]
    return best


def _least(enough: Callable[[int], bool], start: int) -> int | None:
    """The smallest number from ``start`` that is enough, as are all larger ones; None beyond any sense."""
    if enough(start):
        return start
    low, high = start, 2 * start
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


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
