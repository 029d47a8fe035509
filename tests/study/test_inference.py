"""What may be concluded: the bootstrap against simulated truth, every verdict, and the shrinkage of lucky means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sweetspot.study.inference import SCOPE, Interval, Verdict, shrunken_means, two_way_bootstrap, verdict


def normal_cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def students(
    rng: np.random.Generator, image_effects: NDArray[np.float64], level: float, seeds: int, seed_sd: float
) -> NDArray[np.bool_]:
    """Right where level + image + seed + noise is above zero."""
    images = len(image_effects)
    latent = level + image_effects + seed_sd * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, images))
    return latent > 0


# -- the bootstrap ----------------------------------------------------------------------------------------------------


def test_the_mean_is_the_plain_mean() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((5, 300)) < 0.8, rng.random((5, 300)) < 0.7
    assert two_way_bootstrap(one, resamples=100, seed=0).mean == one.mean()
    paired = two_way_bootstrap(one, other, resamples=100, seed=0)
    assert paired.mean == pytest.approx(one.mean() - other.mean(), abs=1e-15)
    assert paired.low <= paired.lower_one_sided <= paired.mean <= paired.upper_one_sided <= paired.high


def test_counting_worths_is_the_same_as_drawing_seeds_and_images_one_by_one() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((4, 50)) < 0.8, rng.random((4, 50)) < 0.6
    difference = one.astype(int) - other.astype(int)
    means = []
    for _ in range(20_000):
        rows, columns = rng.integers(4, size=3), rng.integers(50, size=50)  # 3 of 4 seeds: Rao and Wu
        means.append(difference[rows].sum(0)[columns].sum() / 150)
    slow = np.percentile(means, [2.5, 97.5, 5, 95])
    fast = two_way_bootstrap(one, other, resamples=20_000, seed=1)
    np.testing.assert_allclose(
        [fast.low, fast.high, fast.lower_one_sided, fast.upper_one_sided], slow, atol=0.0101
    )  # the means are multiples of 1 / 150


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed_sd", [0.05, 0.2])
def test_five_seeds_cover_the_truth_about_as_often_as_they_say(paired: bool, seed_sd: float) -> None:
    rng = np.random.default_rng(3)
    simulations, seeds, images = 200, 5, 300
    spread = math.sqrt(1 + 1.25 + seed_sd**2)  # noise, images (shared and the arm's own), seeds
    truth = normal_cdf(1.2 / spread) - (normal_cdf(1.0 / spread) if paired else 0)
    held = 0
    for simulation in range(simulations):
        shared, *own = rng.normal(size=(3, images))
        one, other = (
            students(rng, shared + own_effects / 2, level, seeds, seed_sd)
            for own_effects, level in zip(own, (1.2, 1.0), strict=True)
        )
        interval = two_way_bootstrap(one, other if paired else None, resamples=1000, seed=simulation)
        held += interval.low <= truth <= interval.high
    assert 0.90 <= held / simulations <= 0.995


def test_one_seed_fewer_is_drawn_than_there_are() -> None:
    """All images alike: of 3 seeds of which one is right, both draws are right in 1/9 of resamples, above 5 %.

    Three draws, all right in 1/27, would put the bound at 2/3.
    """
    right = np.repeat(np.array([[True], [False], [False]]), 200, axis=1)
    interval = two_way_bootstrap(right, seed=0)
    assert (interval.mean, interval.lower_one_sided, interval.upper_one_sided) == (1 / 3, 0.0, 1.0)


def test_more_seeds_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    right = students(rng, rng.normal(size=400), 1.0, 40, 0.5)
    widths = [interval.high - interval.low for interval in (two_way_bootstrap(right[:n], seed=0) for n in (5, 12, 40))]
    assert widths == sorted(widths, reverse=True)


def test_pairing_takes_out_what_both_arms_share() -> None:
    rng = np.random.default_rng(0)
    one = students(rng, 3 * rng.normal(size=300), 1.0, 5, 0.1)
    other = one ^ (rng.random(one.shape) < 0.02)
    alone, paired = two_way_bootstrap(one, seed=0), two_way_bootstrap(one, other, seed=0)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_identical_arms_differ_by_exactly_nothing() -> None:
    right = np.random.default_rng(0).random((5, 300)) < 0.8
    assert two_way_bootstrap(right, right.copy(), seed=0) == Interval(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0, 1])
def test_students_that_all_agree_leave_nothing_to_resample(value: int) -> None:
    assert two_way_bootstrap(np.full((5, 300), value, np.uint8), seed=0) == Interval(*[float(value)] * 5)


def test_exchanging_the_arms_changes_the_sign() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.random((5, 300)) < 0.8).astype(np.uint8), (rng.random((5, 300)) < 0.7).astype(np.uint8)
    there, back = two_way_bootstrap(one, other, seed=0), two_way_bootstrap(other, one, seed=0)
    assert there.mean == -back.mean
    assert there.low == pytest.approx(-back.high, abs=0.005)


def test_the_seed_and_the_data_decide_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.random.default_rng(0).random((5, 300)) < 0.8
    first = two_way_bootstrap(right, seed=1)
    assert two_way_bootstrap(right.astype(np.uint8), seed=1) == first
    assert two_way_bootstrap(right, seed=2) != first
    monkeypatch.setattr("sweetspot.study.inference._ELEMENTS", 1000)  # in smaller parts
    assert two_way_bootstrap(right, seed=1) == first


GOOD = np.ones((5, 10), bool)


@pytest.mark.parametrize(
    ("correct", "other", "resamples", "words"),
    [
        (GOOD[:1], None, 10, "at least 2 seeds, found 1"),
        (GOOD[:0], None, 10, "at least 2 seeds, found 0"),
        (GOOD[:, :0], None, 10, "found none"),
        (GOOD[0], None, 10, "correct must be booleans of shape"),
        (GOOD.astype(float), None, 10, "correct must be booleans"),
        (2 * GOOD.astype(np.uint8), None, 10, "correct must be 0 or 1"),
        (-GOOD.astype(np.int64), None, 10, "correct must be 0 or 1"),
        (GOOD, GOOD[:4], 10, "the same seeds and images"),
        (GOOD, GOOD[:, :4], 10, "the same seeds and images"),
        (GOOD, GOOD.astype(float), 10, "other must be booleans"),
        (GOOD, None, 0, "at least 1 resample"),
    ],
)
def test_what_cannot_be_resampled_is_refused(
    correct: NDArray[np.bool_], other: NDArray[np.bool_] | None, resamples: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        two_way_bootstrap(correct, other, resamples=resamples, seed=0)


# -- the verdict ------------------------------------------------------------------------------------------------------


def points(mean: float, half: float) -> Interval:
    """An interval in percentage points; the one-sided bounds at 0.8 of the half width."""
    bounds = (mean, mean - half, mean + half, mean - 0.8 * half, mean + 0.8 * half)
    return Interval(*(value / 100 for value in bounds))


CLEAR, SMALL, OPEN, NONE, BAD = points(1.2, 0.5), points(0.12, 0.05), points(0.3, 0.6), points(0, 0.1), points(-1, 0.5)


def judge(
    alone: Interval, accurate: Interval | None, longest: Interval | None = OPEN, margin: float = 0.002
) -> Verdict:
    return verdict(
        over_student_alone=alone,
        over_most_accurate=accurate,
        over_longest=longest,
        longest_is_best=longest is None,
        margin=margin,
    )


@pytest.mark.parametrize(
    ("alone", "accurate", "confirmed", "start"),
    [
        (CLEAR, CLEAR, True, "confirmed: "),
        (SMALL, CLEAR, True, "confirmed: "),
        (CLEAR, SMALL, True, "confirmed: "),
        (CLEAR, OPEN, None, "undecided: "),
        (OPEN, CLEAR, None, "undecided: "),
        (OPEN, OPEN, None, "undecided: "),
        (NONE, CLEAR, False, "distillation does not help here: "),
        (SMALL, OPEN, False, "distillation does not help here: "),
        (BAD, CLEAR, False, "distillation does not help here: it hurts, for "),
        (NONE, NONE, False, "distillation does not help here: "),
        (NONE, None, False, "distillation does not help here: "),
        (CLEAR, None, False, "the most accurate teacher is the best point: distillation helps, by +1.20 points"),
        (OPEN, None, False, "the most accurate teacher is the best point: training the teacher for accuracy is enough"),
        (CLEAR, NONE, False, "no better than the most accurate teacher: "),
        (OPEN, NONE, False, "no better than the most accurate teacher: "),
        (OPEN, SMALL, False, "no better than the most accurate teacher: "),
        (CLEAR, BAD, False, "no better than the most accurate teacher: "),
    ],
)
def test_each_outcome_has_its_verdict(
    alone: Interval, accurate: Interval | None, confirmed: bool | None, start: str
) -> None:
    result = judge(alone, accurate)
    assert result.confirmed is confirmed
    assert result.words.startswith(start)
    assert result.words.endswith(SCOPE)


def test_a_confirmed_point_states_both_gains_and_their_bounds() -> None:
    assert judge(CLEAR, points(0.5, 0.5), points(0.3, 0.4)).words == (
        "confirmed: the best point gains +1.20 points over the student alone (at least +0.80 with 95 % confidence) "
        "and +0.50 points over the most accurate teacher (at least +0.10 with 95 % confidence). "
        "Its gain over the longest-trained teacher is +0.30 points (95 % interval -0.10 to +0.70). "
        "This is about this teacher, these students, this temperature and this learning-rate rule, "
        "not about the point in general."
    )


def test_a_gain_that_is_real_but_does_not_matter_is_said_to_be_small() -> None:
    assert "though not by the margin of 0.20 points" in judge(CLEAR, SMALL).words
    assert "margin" not in judge(CLEAR, CLEAR).words


def test_an_undecided_verdict_says_what_is_undecided_and_what_would_help() -> None:
    words = judge(CLEAR, OPEN).words
    assert "the best point is better than the student alone, by +1.20 points (95 % interval +0.70 to +1.70)" in words
    assert "is not known to be better than the most accurate teacher, by +0.30 points" in words
    assert "(95 % interval -0.30 to +0.90); more [confirm] seeds would narrow it" in words


def test_a_best_point_that_is_the_most_accurate_teacher_still_says_whether_distillation_helps() -> None:
    assert "and training the teacher for accuracy is enough here" in judge(CLEAR, None).words
    assert "whether distillation helps is undecided, at +0.30 points" in judge(OPEN, None).words


def test_a_best_point_that_is_the_longest_trained_teacher_is_said_to_be() -> None:
    assert "The best point is the longest-trained teacher." in judge(CLEAR, CLEAR, None).words


@pytest.mark.parametrize("margin", [0.0, 0.002])
def test_an_arm_that_ties_with_itself_is_never_confirmed(margin: float) -> None:
    result = judge(CLEAR, Interval(0.0, 0.0, 0.0, 0.0, 0.0), margin=margin)
    assert result.confirmed is False
    assert "gain over it is +0.00 points" in result.words


def test_a_rounded_zero_has_no_minus() -> None:
    assert "-0.00" not in judge(points(-0.001, 0.0), None).words


bounds = st.floats(-0.05, 0.05)


@given(st.lists(bounds, min_size=5, max_size=5).map(sorted), st.lists(bounds, min_size=5, max_size=5).map(sorted))
def test_the_rule_holds_for_all_intervals(one: list[float], other: list[float]) -> None:
    alone, accurate = (Interval(mean, low, high, lower, upper) for low, lower, mean, upper, high in (one, other))
    expected: bool | None = None
    if alone.lower_one_sided > 0 and accurate.lower_one_sided > 0:
        expected = True
    elif alone.upper_one_sided < 0.002 or accurate.upper_one_sided < 0.002:
        expected = False
    assert judge(alone, accurate).confirmed is expected


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_makes_no_sense_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be"):
        judge(CLEAR, CLEAR, margin=margin)


# -- the ranking ------------------------------------------------------------------------------------------------------


def test_a_lucky_single_student_ranks_below_a_solid_mean_of_three() -> None:
    values = [[0.855], [0.846, 0.861, 0.850], [0.834, 0.848, 0.841], [0.842, 0.832, 0.846], [0.850, 0.836, 0.843]]
    raw = [np.mean(replicates) for replicates in values]
    assert np.argmax(raw) == 0
    assert np.argmax(shrunken_means(values)) == 1


def test_means_of_equally_many_students_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    for spread in (0.02, 0.001, 0.0):  # of the points: more, and less, than that of the replicates
        values = [list(0.8 + spread * rng.normal() + 0.01 * rng.normal(size=3)) for _ in range(12)]
        raw = np.array([np.mean(replicates) for replicates in values])
        assert (np.argsort(shrunken_means(values)) == np.argsort(raw)).all()


def test_each_mean_keeps_the_share_that_its_replicates_deserve() -> None:
    """Balanced, so that the method of moments is that of the textbook's analysis of variance."""
    values = [[0.80, 0.82], [0.84, 0.86], [0.90, 0.92]]
    means = np.array([0.81, 0.85, 0.91])
    sigma2 = 0.0002
    tau2 = means.var(ddof=1) - sigma2 / 2
    expected = means.mean() + tau2 / (tau2 + sigma2 / 2) * (means - means.mean())
    np.testing.assert_allclose(shrunken_means(values), expected, rtol=1e-12)


def test_shrunken_means_are_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(0)
    raw_error = shrunken_error = 0.0
    for _ in range(200):
        truth = 0.8 + 0.005 * rng.normal(size=20)
        values = [list(point + 0.007 * rng.normal(size=rng.integers(1, 4))) for point in truth]
        raw_error += float(np.square([np.mean(v) - t for v, t in zip(values, truth, strict=True)]).sum())
        shrunken_error += float(np.square(shrunken_means(values) - truth).sum())
    assert shrunken_error < 0.8 * raw_error


def test_points_that_differ_no_more_than_replicates_do_are_as_good_as_equal() -> None:
    values = [[0.7, 0.9], [0.71, 0.9], [0.9, 0.7, 0.8]]
    shrunken = shrunken_means(values)
    assert np.ptp(shrunken) < 1e-5
    assert np.argmax(shrunken) == 1


def test_points_that_differ_much_more_than_replicates_do_keep_their_means() -> None:
    values = [[0.1, 0.1001], [0.5], [0.9, 0.9001, 0.9002]]
    np.testing.assert_allclose(shrunken_means(values), [np.mean(v) for v in values], atol=1e-4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([[0.8, 0.9]], [0.85]),
        ([[0.8], [0.9], [0.7]], [0.8, 0.9, 0.7]),  # nothing tells noise from difference
        ([[0.8, 0.8], [0.8], [0.8, 0.8, 0.8]], [0.8, 0.8, 0.8]),
        ([[0.8, 0.8], [0.9, 0.9], [0.7]], [0.8, 0.9, 0.7]),  # replicates that never differ
    ],
)
def test_without_variance_to_compare_the_means_are_left_alone(values: list[list[float]], expected: list[float]) -> None:
    np.testing.assert_allclose(shrunken_means(values), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "words"), [([[0.8], []], "point 1 has no replicates"), ([[math.nan]], "point 0 has a value that is not")]
)
def test_a_point_without_a_mean_is_refused(values: list[list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shrunken_means(values)
