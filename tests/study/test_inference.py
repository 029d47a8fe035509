"""What may be concluded: intervals, tests, looks and seeds against other ways to compute them; shrunken lucky means."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from sweetspot.study.inference import (
    Claim,
    Components,
    Interval,
    Noise,
    Outcomes,
    accuracy,
    difference,
    holm,
    look_level,
    pairing_correlation,
    seeds_needed,
    shrunken_means,
)


def students(
    rng: np.random.Generator, image_effects: NDArray[np.float64], level: float, seeds: int, seed_sd: float
) -> NDArray[np.bool_]:
    """Right where level + image + seed + noise is above zero; effects are (images,) or (seeds, images)."""
    images = image_effects.shape[-1]
    latent = level + image_effects + seed_sd * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, images))
    return latent > 0


def independent(correct: NDArray[np.bool_]) -> Outcomes:
    """Students that are units of their own."""
    return Outcomes(correct, np.arange(len(correct)))


def two_arms(seed: int = 0, *, a: int = 5, b: int = 5, images: int = 300) -> tuple[Outcomes, Outcomes]:
    rng = np.random.default_rng(seed)
    effects = 2 * rng.normal(size=images)
    return independent(students(rng, effects, 1.2, a, 0.1)), independent(students(rng, effects, 1.0, b, 0.2))


# -- intervals --------------------------------------------------------------------------------------------------------


def test_the_mean_is_the_plain_mean() -> None:
    a, b = two_arms(b=7)
    assert accuracy(a).mean == pytest.approx(a.correct.mean(), abs=1e-15)
    found = difference(a, b)
    assert found.mean == pytest.approx(a.correct.mean() - b.correct.mean(), abs=1e-15)
    assert found.low < found.lower_one_sided < found.mean < found.upper_one_sided < found.high


def product_of_others(a: NDArray[np.float64], b: NDArray[np.float64], *, other_units: bool) -> float:
    """The mean of a_uj * b_vk over all images j != k, and units u != v where they are of one arm."""
    pairs = [
        a[u, j] * b[v, k]
        for u, v in itertools.product(range(len(a)), range(len(b)))
        for j, k in itertools.permutations(range(a.shape[1]), 2)
        if not (other_units and u == v)
    ]
    return float(np.mean(pairs))


@pytest.mark.parametrize("seed", range(8))
def test_the_variance_is_the_square_of_the_mean_less_products_that_have_nothing_in_common(seed: int) -> None:
    """Gallas's one-shot estimate: of outcomes with neither unit nor image in common, the mean product is unbiased."""
    rng = np.random.default_rng(seed)
    easy = 4 * rng.normal(size=7)
    a, b = independent(students(rng, easy, 1.0, 3, 0.5)), independent(students(rng, -easy, 0.0, 4, 0.5))
    x, y = a.correct.astype(float), b.correct.astype(float)
    one = x.mean() ** 2 - product_of_others(x, x, other_units=True)
    other = y.mean() ** 2 - product_of_others(y, y, other_units=True)
    both = x.mean() * y.mean() - product_of_others(x, y, other_units=False)
    assert Noise.of(a, b).by_image > 0
    assert difference(a, b).standard_error ** 2 == pytest.approx(one + other - 2 * both, rel=1e-9)
    assert accuracy(a).standard_error ** 2 == pytest.approx(one, rel=1e-9)


def test_where_images_do_not_matter_it_is_welchs_interval() -> None:
    rng = np.random.default_rng(3)
    a, b = (independent(rng.random((n, 400)) < level) for n, level in ((5, 0.8), (9, 0.78)))
    assert Noise.of(a, b).by_image == 0
    welch = stats.ttest_ind(a.correct.mean(1), b.correct.mean(1), equal_var=False, alternative="greater")
    found = difference(a, b)
    assert found.dof == pytest.approx(welch.df)
    assert found.p_above() == pytest.approx(welch.pvalue)
    assert found.lower_one_sided == pytest.approx(welch.confidence_interval(0.95).low)


def test_images_on_which_the_arms_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = (independent(np.repeat(rng.random((1, 300)) < 0.8, 5, axis=0)) for _ in range(2))
    found = difference(a, b)
    by_image = a.correct[0].astype(float) - b.correct[0]
    assert found.standard_error == pytest.approx(by_image.std(ddof=1) / math.sqrt(300))
    assert found.dof == pytest.approx(299)


def test_what_is_hard_for_both_arms_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    hard = 10 * rng.normal(size=300)
    a, b = (independent(students(rng, hard, level, 5, 0.1)) for level in (1.2, 1.0))
    assert difference(a, b).standard_error < accuracy(a).standard_error / 3


def test_students_of_one_teacher_count_as_one() -> None:
    rng = np.random.default_rng(0)
    right = students(rng, rng.normal(size=300), 1.0, 5, 0.5)
    other = independent(students(rng, rng.normal(size=300), 1.0, 5, 0.5))
    repeated = np.repeat(right, 3, axis=0)
    nested, pretended = Outcomes(repeated, np.repeat(np.arange(5), 3)), independent(repeated)
    one = difference(independent(right), other)
    several = difference(nested, other)
    assert [several.mean, several.standard_error, several.dof] == pytest.approx([one.mean, one.standard_error, one.dof])
    assert difference(pretended, other).standard_error < one.standard_error


def test_units_may_stand_in_any_order_and_bear_any_name() -> None:
    rng = np.random.default_rng(0)
    right, names = students(rng, rng.normal(size=200), 1.0, 6, 0.5), np.array([7, -1, 7, 30, -1, 7])
    order = rng.permutation(6)
    assert accuracy(Outcomes(right, names)).mean == pytest.approx(
        np.mean([right[names == name].mean() for name in (7, -1, 30)])
    )
    one, other = accuracy(Outcomes(right, names)), accuracy(Outcomes(right[order], names[order]))
    assert [one.mean, one.standard_error, one.dof] == pytest.approx([other.mean, other.standard_error, other.dof])


def test_more_seeds_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    right = students(rng, rng.normal(size=400), 1.0, 40, 0.5)
    widths = [found.high - found.low for found in (accuracy(independent(right[:n])) for n in (5, 12, 40))]
    assert widths == sorted(widths, reverse=True)


def test_identical_arms_differ_by_exactly_nothing_and_it_is_known_how_well() -> None:
    a, _ = two_arms()
    found = difference(a, Outcomes(a.correct.copy(), a.units))
    assert found.mean == 0
    assert found.low < 0 < found.high
    assert found.p_above() == 0.5


@pytest.mark.parametrize("value", [False, True])
def test_students_that_all_agree_on_all_images_leave_no_doubt(value: bool) -> None:
    found = accuracy(independent(np.full((5, 300), value)))
    assert [found.low, found.mean, found.high, found.standard_error, found.dof] == [value, value, value, 0, math.inf]
    assert [found.p_above(null) for null in (value - 0.1, value, value + 0.1)] == [0, 0.5, 1]


def test_an_arm_that_never_varies_leaves_the_doubt_of_the_other() -> None:
    a, _ = two_arms()
    found = difference(a, independent(np.ones((5, 300), bool)))
    assert found.dof >= 4
    assert found.standard_error == pytest.approx(accuracy(a).standard_error)


def test_exchanging_the_arms_changes_the_sign() -> None:
    a, b = two_arms(b=8)
    there, back = difference(a, b), difference(b, a)
    assert there.mean == -back.mean
    assert [there.low, there.high] == pytest.approx([-back.high, -back.low])
    assert [(-back).low, (-back).high, (-back).p_above()] == pytest.approx([there.low, there.high, there.p_above()])


def test_degrees_of_freedom_are_between_those_of_the_smaller_arm_and_those_of_everything() -> None:
    for seed in range(20):
        a, b = two_arms(seed, a=2, b=6)
        assert 1 <= difference(a, b).dof <= 1 + 5 + 299


@given(st.floats(-0.1, 0.1), st.floats(1e-6, 0.1), st.floats(1, 1e6), st.floats(0.001, 0.4), st.floats(-0.1, 0.1))
def test_a_p_value_is_below_a_level_where_the_bound_is_above_the_null(
    mean: float, standard_error: float, dof: float, level: float, null: float
) -> None:
    found = Interval(mean, standard_error, dof)
    margin = found.lower(level) - null
    if abs(margin) > 1e-9:
        assert (found.p_above(null) < level) == (margin > 0)
    assert found.upper(level) - mean == pytest.approx(mean - found.lower(level))


GOOD = np.ones((5, 10), bool)


@pytest.mark.parametrize(
    ("correct", "units", "words"),
    [
        (GOOD[:1], [0], "at least 2 independent"),
        (GOOD, [3] * 5, "at least 2 independent"),
        (GOOD[:0], np.zeros(0, int), "at least 2 independent"),
        (GOOD[:, :1], range(5), "at least 2 images, found 1"),
        (GOOD[0], range(5), "correct must be booleans of shape"),
        (GOOD.astype(int), range(5), "correct must be booleans"),
        (GOOD, range(4), "an integer for each of the 5 students"),
        (GOOD, np.arange(5.0), "an integer for each of the 5 students"),
    ],
)
def test_what_allows_no_interval_is_refused(correct: NDArray[Any], units: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Outcomes(correct, np.asarray(units))


def test_arms_that_saw_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="the same images, found 10 and 9"):
        difference(independent(GOOD), independent(GOOD[:, :9]))


def test_the_pairing_is_measured_where_the_seeds_are_the_same() -> None:
    rng = np.random.default_rng(0)
    seeds, images = rng.normal(size=40), rng.normal(size=(2, 400))
    a, b = (independent(0.5 * seeds[:, None] + effects + 0.5 * rng.normal(size=(40, 400)) > -1) for effects in images)
    found = pairing_correlation(a, b)
    assert found == pytest.approx(np.corrcoef(a.correct.mean(1), b.correct.mean(1))[0, 1])
    assert found is not None
    assert found > 0.8
    assert pairing_correlation(a, independent(b.correct[:39])) is None
    assert pairing_correlation(a, Outcomes(b.correct, np.arange(40) // 4)) is None
    assert pairing_correlation(a, independent(np.ones((40, 400), bool))) is None
    assert pairing_correlation(independent(a.correct[:2]), independent(b.correct[:2])) is None


# -- several looks, several finalists ---------------------------------------------------------------------------------


def test_all_looks_together_err_in_five_percent() -> None:
    levels = [look_level(look) for look in range(1, 60)]
    assert levels[:3] == pytest.approx([0.0375, 0.009375, 0.00234375])
    assert sum(levels) == pytest.approx(0.05)
    assert sum(levels) <= 0.05


@pytest.mark.parametrize("look", [0, -1])
def test_looks_are_counted_from_one(look: int) -> None:
    with pytest.raises(ValueError, match="from 1"):
        look_level(look)


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [
        ([], []),
        ([0.049], [True]),
        ([0.05], [False]),
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),  # Holm's example of a step that ends the others
        ([0.012, 0.04, 0.02, 0.012], [True, True, True, True]),
        ([0.03, 0.001], [True, True]),
        ([0.03, 0.03], [False, False]),
    ],
)
def test_holm_steps_down(p_values: list[float], rejected: list[bool]) -> None:
    assert holm(p_values, 0.05) == rejected


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=6))
def test_holm_is_between_bonferroni_and_no_correction(p_values: list[float]) -> None:
    for p, rejected in zip(p_values, holm(p_values, 0.05), strict=True):
        assert (p < 0.05 / len(p_values)) <= rejected <= (p < 0.05)


# -- how many seeds ---------------------------------------------------------------------------------------------------


def with_means(means: list[list[float]], images: int = 100) -> Outcomes:
    """Students whose accuracies are given, for each teacher; right about the first images."""
    flat = [mean for teacher in means for mean in teacher]
    right = np.arange(images) < np.round(np.array(flat)[:, None] * images)
    return Outcomes(right, np.repeat(np.arange(len(means)), [len(teacher) for teacher in means]))


def test_variance_is_split_between_teachers_and_their_students() -> None:
    found = Components.of(with_means([[0.80, 0.82], [0.84, 0.86], [0.90, 0.92]]))
    assert found.students == pytest.approx(0.0002)
    assert found.teachers == pytest.approx(np.var([0.81, 0.85, 0.91], ddof=1) - 0.0001)
    assert found.nested


def test_students_that_differ_more_than_their_teachers_leave_nothing_for_these() -> None:
    found = Components.of(with_means([[0.7, 0.9], [0.9, 0.7], [0.7, 0.92, 0.8]]))
    assert found.teachers == 0
    assert found.students > 0.01


def test_independent_students_have_no_teachers_variance() -> None:
    found = Components.of(with_means([[0.80], [0.82], [0.86]]))
    assert (found.teachers, found.nested) == (0, False)
    assert found.students == pytest.approx(np.var([0.80, 0.82, 0.86], ddof=1))


def test_the_expected_interval_at_the_same_size_is_the_one_found() -> None:
    rng = np.random.default_rng(1)
    effects = 2 * rng.normal(size=(2, 300))
    teachers = np.repeat(rng.normal(size=(2, 5, 1)), 4, axis=1)
    a, b = (
        Outcomes(students(rng, by_image + by_teacher, 1.0, 20, 0.2), np.arange(20) // 4)
        for by_image, by_teacher in zip(effects, teachers, strict=True)
    )
    noise, found = Noise.of(a, b), difference(a, b)
    expected = noise.expected(found.mean, 5, 4)
    assert noise.by_image > 0
    assert noise.a.teachers > 0
    assert noise.b.teachers > 0
    assert expected.standard_error == pytest.approx(found.standard_error)
    assert expected.dof == pytest.approx(found.dof, rel=0.1)  # it leaves out how uncertain the interaction is


def noise(a: Components, b: Components, by_image: float = 0.0, images: int = 600) -> Noise:
    return Noise(a, b, by_image, images)


NO_NOISE = Components(0, 0, nested=False)
STUDENTS = Components(0, 0.005**2, nested=False)
NESTED = Components(0.0075**2, 0.005**2, nested=True)


@pytest.mark.parametrize("dof", [2, 4, 20])
@pytest.mark.parametrize("difference", [0.0, 0.004, 0.01])
def test_power_of_a_single_variance_is_that_of_noncentral_t(dof: int, difference: float) -> None:
    standard_error = STUDENTS.students**0.5 / math.sqrt(dof + 1)
    bound = stats.t.ppf(0.95, dof)
    expected = stats.nct.sf(bound, dof, difference / standard_error)
    assert noise(STUDENTS, NO_NOISE).power(difference, 0, dof + 1, level=0.05) == pytest.approx(expected, abs=0.005)


def test_power_of_welchs_test_is_what_drawn_samples_find() -> None:
    rng = np.random.default_rng(0)
    a, b = 0.01 + 0.01 * rng.normal(size=(20_000, 4)), 0.004 * rng.normal(size=(20_000, 4))
    found = stats.ttest_ind(a, b, axis=1, equal_var=False, alternative="greater").pvalue < 0.05
    several = noise(Components(0, 0.01**2, nested=False), Components(0, 0.004**2, nested=False))
    assert several.power(0.01, 0, 4, level=0.05) == pytest.approx(found.mean(), abs=0.012)


def test_power_grows_with_seeds_difference_and_level_and_falls_with_images_on_which_arms_differ() -> None:
    one = noise(NESTED, NESTED, 0.002)
    assert one.power(0.01, 5, 4, level=0.05) < one.power(0.01, 5, 8, level=0.05) < one.power(0.01, 10, 4, level=0.05)
    assert one.power(0.005, 5, 4, level=0.05) < one.power(0.01, 5, 4, level=0.05)
    assert one.power(0.01, 5, 4, level=0.01) < one.power(0.01, 5, 4, level=0.05)
    assert noise(NESTED, NESTED, 0.02).power(0.01, 5, 4, level=0.05) < one.power(0.01, 5, 4, level=0.05)


def test_without_variance_a_difference_is_certain_to_be_found() -> None:
    assert noise(NO_NOISE, NO_NOISE).power(0.001, 0, 2, level=0.05) == 1
    assert noise(NO_NOISE, NO_NOISE).power(0.0, 0, 2, level=0.05) == 0


def nested(seed: int, *, teachers: int, students_of_each: int, teacher_sd: float, student_sd: float) -> Outcomes:
    """An arm whose students differ a little in how many of 10,000 images they are right about, the same ones first."""
    rng = np.random.default_rng(seed)
    means = 0.9 + np.repeat(teacher_sd * rng.normal(size=teachers), students_of_each)
    means += student_sd * rng.normal(size=len(means))
    return Outcomes(np.arange(10_000) < 10_000 * means[:, None], np.arange(len(means)) // students_of_each)


def arms_of(teachers: int, students_of_each: int, teacher_sd: float, student_sd: float) -> tuple[Outcomes, Outcomes]:
    a, b = (
        nested(seed, teachers=teachers, students_of_each=students_of_each, teacher_sd=teacher_sd, student_sd=student_sd)
        for seed in (1, 2)
    )
    return a, b


def power_at(a: Outcomes, b: Outcomes, teachers: int, students_of_each: int) -> float:
    return Noise.of(a, b).power(0.004, teachers, students_of_each, level=0.0375)


def test_the_seeds_needed_are_the_fewest_that_have_the_power() -> None:
    a, b = arms_of(5, 4, 0.004, 0.004)
    needed = seeds_needed(a, b, detectable=0.004, claim="this point", level=0.0375)
    assert needed is not None
    teachers, each = needed
    assert teachers >= 5
    assert each >= 4
    assert power_at(a, b, teachers, each) >= 0.8
    assert power_at(a, b, teachers - 1, each) < 0.8
    for other in range(5, teachers * (each + 1) // 5):
        less = (teachers * (each + 1) - 1) // other - 1  # students of each that are cheaper in all
        assert less < 4 or power_at(a, b, other, less) < 0.8


def test_teachers_that_vary_ask_for_teachers_and_students_that_vary_for_students() -> None:
    of_teachers = seeds_needed(*arms_of(5, 4, 0.006, 0.001), detectable=0.003, claim="this point", level=0.0375)
    of_students = seeds_needed(*arms_of(5, 4, 0.0, 0.012), detectable=0.004, claim="this point", level=0.0375)
    assert of_teachers is not None
    assert of_students is not None
    assert of_teachers[0] > 5
    assert of_teachers[1] == 4
    assert of_students[1] > 4


def test_a_claim_about_a_teacher_asks_for_students_alone() -> None:
    a, b = (independent(arm.correct) for arm in arms_of(5, 1, 0.0, 0.004))
    needed = seeds_needed(a, b, detectable=0.004, claim="this teacher", level=0.0375)
    assert needed is not None
    assert needed[0] == 0
    assert power_at(a, b, 0, needed[1]) >= 0.8 > power_at(a, b, 0, needed[1] - 1)


def test_teachers_with_one_student_each_ask_for_more_of_those() -> None:
    needed = seeds_needed(*arms_of(5, 1, 0.004, 0.004), detectable=0.003, claim="this point", level=0.0375)
    assert needed is not None
    assert needed[0] > 5
    assert needed[1] == 1


@pytest.mark.parametrize(("claim", "more"), [("this point", (5, 5)), ("this teacher", (0, 21))])
def test_what_is_undecided_with_seeds_enough_asks_for_a_few_more(claim: Claim, more: tuple[int, int]) -> None:
    a, b = arms_of(5, 4, 0.0001, 0.0001)
    assert seeds_needed(a, b, detectable=0.05, claim=claim, level=0.0375) == more


def test_a_test_split_that_is_too_small_is_helped_by_no_seeds() -> None:
    rng = np.random.default_rng(0)
    a, b = (independent(np.repeat(rng.random((1, 300)) < 0.8, 5, axis=0)) for _ in range(2))
    standard_error = difference(a, b).standard_error
    for detectable in (standard_error, 2 * standard_error):
        assert seeds_needed(a, b, detectable=detectable, claim="this teacher", level=0.0375) is None
    needed = seeds_needed(a, b, detectable=3 * standard_error, claim="this teacher", level=0.0375)
    assert needed == (0, 6)
    assert seeds_needed(a, a, detectable=0.0, claim="this teacher", level=0.0375) is None


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
