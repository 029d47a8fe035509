"""Every verdict, its words, and what the numbers in them say."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweetspot.study.arms import (
    ACCURATE,
    ACCURATE_T,
    ALONE,
    BEST,
    BEST_T,
    ECONOMY,
    LONGEST,
    SMOOTHED,
    YOURS,
)  # fmt: skip
from sweetspot.study.comparisons import Comparisons, gains_of, needed_of
from sweetspot.study.inference import Interval, Outcomes, difference, look_level
from sweetspot.study.verdict import economy_words, verdict, verdicts


def points(mean: float, standard_error: float) -> Interval:
    """In percentage points."""
    return Interval(mean / 100, standard_error / 100, 40.0)


CLEAR, SMALL, OPEN, NONE, BAD = (
    points(*each) for each in ((1.2, 0.25), (0.12, 0.03), (0.3, 0.3), (0.0, 0.05), (-1.0, 0.25))
)


def compared(**gains: Interval) -> Comparisons:
    """A claim about this teacher, from 5 students."""
    return Comparisons("this teacher", gains, 0, 5, 600, 0.002, 1)


def against(alone: Interval, accurate: Interval | None = None, **others: Interval) -> Comparisons:
    """Where no gain over the most accurate teacher is given, it is the best point."""
    gains = {ALONE: alone, **({} if accurate is None else {ACCURATE: accurate}), **others}
    return replace(compared(**gains), same=frozenset() if accurate else frozenset({ACCURATE}))


@pytest.mark.parametrize(
    ("found", "kind", "start"),
    [
        (against(CLEAR, CLEAR), "confirmed for this teacher", "confirmed for this teacher: the best point gains"),
        (against(SMALL, CLEAR), "confirmed for this teacher", "confirmed"),
        (against(CLEAR, CLEAR, label_smoothing=CLEAR), "confirmed for this teacher", "confirmed"),
        (against(CLEAR, CLEAR, most_accurate_own_temperature=CLEAR), "confirmed for this teacher", "confirmed"),
        (against(CLEAR, OPEN), "undecided", "undecided: "),
        (against(OPEN, CLEAR), "undecided", "undecided: "),
        (against(CLEAR, CLEAR, label_smoothing=OPEN), "undecided", "undecided: "),
        (against(CLEAR, CLEAR, most_accurate_own_temperature=OPEN), "undecided", "undecided: "),
        (compared(student_alone=CLEAR), "undecided", "undecided: the best point was not compared with the most acc"),
        (compared(most_accurate_teacher=CLEAR), "undecided", "undecided: the best point was not compared with the stu"),
        (against(NONE, CLEAR), "distillation does not help here", "distillation does not help here: the best point's"),
        (against(NONE, None), "distillation does not help here", "distillation does not help here: "),
        (against(NONE, NONE, label_smoothing=NONE), "distillation does not help here", "distillation does not help"),
        (against(BAD, CLEAR), "distillation does not help here", "distillation does not help here: it hurts, for "),
        (against(CLEAR, CLEAR, label_smoothing=NONE), "no better", "no better than the student with label smoothing: "),
        (against(CLEAR, None, label_smoothing=NONE), "no better", "no better than the student with label smoothing: "),
        (against(CLEAR, NONE), "no better", "no better than the most accurate teacher: "),
        (against(OPEN, BAD), "no better", "no better than the most accurate teacher: "),
        (
            against(CLEAR, OPEN, most_accurate_own_temperature=NONE),
            "no better",
            "no better than the most accurate teacher, each at its own best temperature: ",
        ),
        (
            against(CLEAR, CLEAR, most_accurate_own_temperature=NONE),
            "temperature does it",
            "temperature does it: the best point gains +1.20 points over the most accurate teacher at this temperature",
        ),
        (
            against(CLEAR, None),
            "the most accurate teacher is the best point",
            "the most accurate teacher is the best point: distillation helps, by +1.20 points",
        ),
        (
            against(OPEN, None),
            "the most accurate teacher is the best point",
            "the most accurate teacher is the best point: training the teacher for accuracy is enough here. Whether di",
        ),
    ],
)
def test_each_outcome_has_its_verdict(found: Comparisons, kind: str, start: str) -> None:
    result = verdict(found)
    assert result.kind == kind
    assert result.words.startswith(start)
    assert result.confirmed is {"confirmed for this teacher": True, "undecided": None}.get(kind, False)


def test_the_claims_are_never_mixed() -> None:
    teacher = against(CLEAR, CLEAR)
    point = replace(teacher, claim="this point", teachers=6, students=4)
    assert verdict(teacher).kind == "confirmed for this teacher"
    assert (
        "This is about the exported snapshot and fresh students only (5 of them), not about the point in general, at "
        "this temperature and under this learning-rate rule."
    ) in verdict(teacher).words
    assert verdict(point).kind == "confirmed for this point"
    assert (
        "This is about fresh teachers of the point (6 x 4 students), at this temperature and under this learning-rate "
        "rule."
    ) in verdict(point).words


@pytest.mark.parametrize(("claim", "teachers"), [("this point", 0), ("this teacher", 3)])
def test_a_claim_that_its_teachers_do_not_support_is_refused(claim: Any, teachers: int) -> None:
    with pytest.raises(ValueError, match="a claim about"):
        Comparisons(claim, {}, teachers, 5, 600, 0.002, 1)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_makes_no_sense_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be"):
        Comparisons("this teacher", {}, 0, 5, 600, margin, 1)


def test_a_confirmed_point_states_all_gains_and_their_bounds() -> None:
    assert verdict(against(CLEAR, points(0.5, 0.1), longest_teacher=OPEN)).words == (
        "confirmed for this teacher: the best point gains +1.20 points over the student alone (at least +0.74 with "
        "96.25 % confidence) and +0.50 points over the most accurate teacher (at least +0.32 with 96.25 % confidence). "
        "Its gain over the longest-trained teacher is +0.30 points (95 % interval -0.31 to +0.91). "
        "This is about the exported snapshot and fresh students only (5 of them), not about the point in general, at "
        "this temperature and under this learning-rate rule. "
        "Decided with an error of 3.75 %, as look 1 of this study may have: all its looks together err in at most 5 %."
    )


def test_what_was_varied_as_well_is_no_longer_a_condition() -> None:
    own = against(CLEAR, CLEAR, most_accurate_own_temperature=CLEAR)
    assert "general, under this learning-rate rule. " in verdict(own).words
    assert "general, at this temperature. " in verdict(replace(against(CLEAR, CLEAR), lr_checked=True)).words
    assert "general. " in verdict(replace(own, lr_checked=True)).words
    same = replace(own, same=frozenset({ACCURATE, ACCURATE_T}))
    assert "at this temperature" in verdict(same).words


def test_a_gain_that_is_real_but_does_not_matter_is_said_to_be_small() -> None:
    assert "though not by the margin of 0.20 points" in verdict(against(CLEAR, SMALL)).words
    assert "margin" not in verdict(against(CLEAR, CLEAR)).words


def test_label_smoothing_that_is_enough_is_said_to_be() -> None:
    words = verdict(against(CLEAR, CLEAR, label_smoothing=NONE)).words
    assert "What is taught helps, by +1.20 points over the student alone" in words
    assert "and label smoothing is enough here." in words


def test_an_arm_that_ties_with_itself_is_never_confirmed() -> None:
    nothing = Interval(0.0, 0.0, math.inf)
    for margin in (0.0, 0.002):
        result = verdict(replace(against(CLEAR, nothing), margin=margin))
        assert result.kind == "no better"
        assert "gain over it is +0.00 points" in result.words


def test_a_rounded_zero_has_no_minus() -> None:
    assert "-0.00" not in verdict(against(CLEAR, points(-0.001, 0.0))).words


def test_what_decides_nothing_is_told() -> None:
    found = against(CLEAR, CLEAR, **{LONGEST: BAD, ECONOMY: NONE, YOURS: BAD, f"{YOURS}_2": OPEN, BEST_T: BAD})
    found = replace(found, names={YOURS: "mine", f"{YOURS}_2": "hers"}, economy_cost=1 / 3)
    result = verdict(found)
    assert result.confirmed
    assert "Its gain over the longest-trained teacher is -1.00 points (95 % interval -1.51 to -0.49)." in result.words
    assert "Its gain over your teacher mine is -1.00 points" in result.words
    assert "Its gain over your teacher hers is +0.30 points" in result.words
    assert "The cheapest teacher is as good, at 1/3 of the teacher's training: +0.00 points" in result.words


def test_arms_that_are_missing_are_named() -> None:
    found = replace(
        against(CLEAR, CLEAR),
        failed=(LONGEST, YOURS, "finalist_2"),
        left_out=("label_smoothing", "temperature", "economy"),
        names={YOURS: "mine"},
    )
    words = verdict(found).words
    assert "The longest-trained teacher could not be trained." in words
    assert "Your teacher mine could not teach." in words
    assert "Finalist 2 could not be trained." in words
    assert "Left out: label smoothing, other temperatures, the cheapest teacher that is as good." in words


def test_a_best_point_that_is_the_longest_trained_teacher_is_said_to_be() -> None:
    found = replace(against(CLEAR, CLEAR, longest_teacher=NONE), same=frozenset({LONGEST}))
    assert "The best point is the longest-trained teacher." in verdict(found).words
    assert "Its gain over the longest" not in verdict(found).words


def test_a_test_split_that_was_exported_is_said_to_be_seen() -> None:
    assert "its test split is not unseen" in verdict(replace(against(CLEAR, CLEAR), was_exported=True)).words
    assert "not unseen" not in verdict(against(CLEAR, CLEAR)).words


# -- looks and finalists ----------------------------------------------------------------------------------------------


def test_a_later_look_asks_for_more() -> None:
    found = against(CLEAR, points(0.5, 0.25))
    assert found.p_value == pytest.approx(0.026, abs=0.001)
    assert verdict(found).confirmed
    second = verdict(replace(found, look=2))
    assert second.confirmed is None
    assert ". It is not known to be better than the most accurate teacher, by +0.50 points" in second.words
    assert "Decided with an error of 0.938 %, as look 2 of this study may have" in second.words


def test_a_later_look_asks_for_more_to_say_no_as_well() -> None:
    found = against(CLEAR, points(-0.4, 0.25))
    assert verdict(found).kind == "no better"
    assert verdict(replace(found, look=2)).kind == "undecided"


def test_no_is_said_of_any_of_several_rivals_with_one_error() -> None:
    """An upper bound of 0.17 points where two rivals share the error of the look, of 0.23 where three do."""
    gain = points(-0.37, 0.25)
    assert verdict(against(CLEAR, gain)).kind == "no better"
    assert verdict(against(CLEAR, gain, label_smoothing=CLEAR)).kind == "undecided"


gain = st.builds(Interval, st.floats(-0.03, 0.03), st.floats(0.0005, 0.02), st.floats(2, 200))


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw may import SciPy
@given(gain, gain, gain, gain, st.integers(1, 4))
def test_the_rule_holds_for_all_intervals(
    alone: Interval, smoothed: Interval, accurate: Interval, own: Interval, look: int
) -> None:
    gains = {ALONE: alone, SMOOTHED: smoothed, ACCURATE: accurate, ACCURATE_T: own}
    result = verdict(replace(compared(**gains), look=look))
    level, share = look_level(look), look_level(look) / 4
    expected: bool | None = None
    if all(each.p_above() < level for each in gains.values()):
        expected = True
    elif any(each.upper(share) < 0.002 for each in gains.values()):
        expected = False
    assert result.confirmed is expected


@given(st.floats(-0.03, 0.03), st.floats(0.0005, 0.02))
def test_no_gain_is_both_confirmed_and_denied(mean: float, standard_error: float) -> None:
    found = verdict(against(CLEAR, Interval(mean, standard_error, 8.0)))
    if found.confirmed is False:
        assert mean < 0.002
    if found.confirmed:
        assert mean > 0


def test_further_finalists_share_the_error() -> None:
    """p values of 0.026 each: enough for one, not for the better of two."""
    found = against(CLEAR, points(0.5, 0.25))
    first, second = verdicts([found, replace(found, finalist="finalist 2")])
    assert verdict(found).confirmed
    assert first.confirmed is None
    assert "shared by 2 finalists" in first.words
    assert second.words.startswith("undecided: more [confirm] seeds would narrow it. Finalist 2 is better than the stu")
    assert "This is about the snapshot of finalist 2 and fresh students only" in second.words
    clear = against(CLEAR, CLEAR)
    assert [each.confirmed for each in verdicts([found, clear])] == [True, True]  # Holm: the second has all of it
    assert verdicts([]) == []


def test_a_finalist_that_is_the_most_accurate_teacher_leaves_nothing_to_reject() -> None:
    found = against(CLEAR, None)
    assert found.p_value == 1
    assert [each.confirmed for each in verdicts([found, against(CLEAR, CLEAR)])] == [False, True]
    assert verdict(replace(found, finalist="finalist 2")).words.startswith("the most accurate teacher is finalist 2: ")


def test_finalists_of_different_looks_are_refused() -> None:
    found = against(CLEAR, CLEAR)
    with pytest.raises(ValueError, match="one look"):
        verdicts([found, replace(found, look=2)])


# -- from outcomes ----------------------------------------------------------------------------------------------------


def outcomes(seed: int, **accuracies: float) -> dict[str, Outcomes]:
    """Arms of 5 teachers with 4 students each; images are as hard for all."""
    rng = np.random.default_rng(seed)
    hard = rng.random(600)
    units = np.arange(20) // 4
    return {
        arm: Outcomes(
            hard < accuracy + 0.01 * rng.normal(size=(5, 1))[units] + 0.02 * rng.normal(size=(20, 600)), units
        )
        for arm, accuracy in accuracies.items()
    }


def test_gains_are_those_of_the_best_point_and_at_its_own_temperature_where_both_are() -> None:
    found = outcomes(
        0,
        best_point=0.9,
        student_alone=0.8,
        most_accurate_teacher=0.88,
        best_point_own_temperature=0.91,
        most_accurate_own_temperature=0.9,
    )
    gains = gains_of(found)
    assert set(gains) == {ALONE, ACCURATE, BEST_T, ACCURATE_T}
    assert gains[ALONE] == difference(found[BEST], found[ALONE])
    assert gains[ACCURATE_T] == difference(found[BEST_T], found[ACCURATE_T])
    assert ACCURATE_T not in gains_of({arm: each for arm, each in found.items() if arm != BEST_T})


def test_what_is_undecided_says_how_many_seeds_would_settle_which_difference() -> None:
    found = outcomes(5, best_point=0.9, student_alone=0.8, most_accurate_teacher=0.893, label_smoothing=0.8)
    gains = gains_of(found)
    comparisons = Comparisons("this point", gains, 5, 4, 600, 0.005, 1)
    needed = needed_of(found, comparisons)
    assert set(needed) == {ACCURATE}
    plan = needed[ACCURATE]
    assert plan is not None
    assert plan[0] > 5
    assert plan[1] == 4
    words = verdict(replace(comparisons, needed=needed)).words
    settled = 100 * max(0.005, gains[ACCURATE].mean)
    assert words.startswith(
        f"undecided: about {plan[0] - 5} more teacher seeds would settle a difference of {settled:.2f} points from the "
        "most accurate teacher with a chance of 80 %. The best point is better than the student alone, by "
    )
    several = needed_of(found, comparisons, finalists=3)[ACCURATE]
    assert several is not None
    assert several[0] > plan[0]


def test_the_margin_is_what_must_be_settled_where_it_is_larger_than_the_gain() -> None:
    found = replace(against(CLEAR, points(-0.05, 0.5)), needed={ACCURATE: (0, 30)})
    assert found.detectable(ACCURATE) == 0.002
    assert found.detectable(ALONE) == pytest.approx(0.012)
    assert "about 25 more student seeds would settle a difference of 0.20 points from" in verdict(found).words


@pytest.mark.parametrize(
    ("claim", "have", "plan", "words"),
    [
        ("this point", (5, 4), (6, 4), "about 1 more teacher seed would settle"),
        ("this point", (5, 4), (5, 6), "about 2 more student seeds for each teacher would settle"),
        ("this point", (5, 4), (9, 5), "4 more teacher seeds and 1 more student seed for each teacher would settle"),
        ("this teacher", (0, 4), (0, 5), "about 1 more student seed would settle"),
        ("this teacher", (0, 4), (0, 1004), "about 1,000 more student seeds would settle"),
    ],
)
def test_seeds_are_counted(claim: Any, have: tuple[int, int], plan: tuple[int, int], words: str) -> None:
    found = Comparisons(claim, {ALONE: CLEAR, ACCURATE: OPEN}, *have, 600, 0.002, 1, needed={ACCURATE: plan})
    assert words in verdict(found).words


def test_of_several_open_comparisons_the_one_that_needs_most_is_told() -> None:
    found = against(OPEN, points(0.1, 0.3))
    words = verdict(replace(found, needed={ALONE: (0, 20), ACCURATE: (0, 90)})).words
    assert "about 85 more student seeds would settle a difference of 0.20 points from the most accurate" in words
    words = verdict(replace(found, needed={ALONE: (0, 20), ACCURATE: None})).words
    assert (
        "a test split of 600 images is too small to settle a difference of 0.20 points from the most accurate teacher, "
        "whatever the seeds"
    ) in words


# -- the cheapest that is as good -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "confirmed", "words"),
    [
        (
            points(-0.05, 0.05),
            True,
            "the cheapest teacher is as good, at 1/3 of the teacher's training: -0.05 points (at least -0.14 with "
            "96.25 % confidence, where a loss of 0.20 does not matter)",
        ),
        (
            points(-0.6, 0.1),
            False,
            "the cheapest teacher is not as good, at 1/3 of the teacher's training: -0.60 points (at most -0.42 with "
            "96.25 % confidence, where a loss of 0.20 does not matter)",
        ),
        (
            points(-0.1, 0.2),
            None,
            "whether the cheapest teacher is as good, at 1/3 of the teacher's training, is undecided: -0.10 points "
            "(at least -0.47 and at most +0.27, each with 96.25 % confidence), where a loss of 0.20 does not matter",
        ),
    ],
)
def test_a_cheaper_teacher_is_as_good_where_its_loss_is_surely_within_the_margin(
    gain: Interval, confirmed: bool | None, words: str
) -> None:
    found = economy_words(gain, 0.002, 0.333, level=look_level(1))
    assert found.confirmed is confirmed
    assert found.words == words


def test_a_cheaper_teacher_is_as_good_at_the_error_of_the_look() -> None:
    """-0.05 +- 0.07 points: surely within 0.20 at the first look, and not at the second."""
    found = replace(against(CLEAR, CLEAR, **{ECONOMY: points(0.05, 0.07)}), economy_cost=0.5)
    first, second = verdict(found).words, verdict(replace(found, look=2)).words
    assert "The cheapest teacher is as good, at 1/2 of the teacher's training: -0.05 points (at least -0.18 wi" in first
    assert "is undecided: -0.05 points (at least -0.22 and at most +0.12, each with 99.06 % confidence)" in second


@given(st.floats(-0.02, 0.02), st.floats(0.0001, 0.01), st.floats(0, 0.01), st.integers(1, 4))
def test_non_inferiority_is_the_bounds_against_the_margin(
    mean: float, standard_error: float, margin: float, look: int
) -> None:
    gain, level = Interval(mean, standard_error, 12.0), look_level(look)
    found = economy_words(gain, margin, 0.5, level=level).confirmed
    assert (found is True) == (gain.lower(level) > -margin)
    assert (found is False) == (gain.upper(level) < -margin)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1 / 3, "at 1/3 of"),
        (0.5, "at 1/2 of"),
        (0.62, "at 5/8 of"),
        (0.05, "at 1/20 of"),
        (0.97, "at 97 % of"),
        (1.0, "at 100 % of"),
        (0.945, "at about 9/10 of"),
        (0.003, "at about 1/100 of"),
    ],
)
def test_a_cost_is_told_as_a_simple_share(ratio: float, words: str) -> None:
    assert words in economy_words(NONE, 0.002, ratio, level=0.05).words
