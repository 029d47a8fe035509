"""A point's students, its uncertainty, its state and why: from trials of every kind."""

import itertools
import math
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from scipy import stats
from tiny_study import tiny_config

from sweetspot.report.points import PointSummary, student_t, summaries, table
from sweetspot.store import Student
from sweetspot.study.ranking import Ranked
from sweetspot.study.search import GIVEN_BACK
from sweetspot.study.space import Point, distributions

CONFIG = tiny_config(search__batch_size=[64, 128], search__epochs=[1, 2, 3], search__min_steps=20)
IMAGES = 640
_numbers = itertools.count()


def trial(point: Point, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> FrozenTrial:
    space = distributions(CONFIG)
    made = optuna.trial.create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        params=point.params,
        distributions={name: space[name] for name in point.params},
        user_attrs=attrs,
    )
    made.number = next(_numbers)
    return made


def ranked(point: Point, *accuracies: float) -> Ranked:
    students = tuple(Student("d", "search", i, "s", a, {}, 1.0, "") for i, a in enumerate(accuracies))
    return Ranked(point, 0, students, sum(accuracies) / len(accuracies), False, len(accuracies) >= 2)


def only(trials: list[FrozenTrial], *best: Ranked) -> PointSummary:
    (found,) = summaries(CONFIG, trials, best, IMAGES)
    return found


def test_the_interval_pools_the_spread_of_all_points() -> None:
    first, second = Point(64, 2), Point(128, 3)
    found = summaries(
        CONFIG,
        [trial(first), trial(second)],
        [ranked(first, 0.90, 0.92), ranked(second, 0.80, 0.84, 0.88)],
        IMAGES,
    )
    spread = math.sqrt((2 * 0.01**2 + 2 * 0.04**2) / 3)
    for each, mean, count in zip(found, (0.91, 0.84), (2, 3), strict=True):
        half = stats.t.ppf(0.975, 3) * spread / math.sqrt(count)
        assert each.mean == pytest.approx(mean)
        assert each.uncertainty == pytest.approx(half, rel=1e-9)
        assert (each.low, each.high) == (pytest.approx(mean - half, rel=1e-9), pytest.approx(mean + half, rel=1e-9))


def test_single_students_say_nothing_of_the_spread() -> None:
    alone = only([trial(Point(64, 2))], ranked(Point(64, 2), 0.9))
    assert (alone.mean, alone.low, alone.high, alone.uncertainty) == (0.9, None, None, None)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 30, 1000])
def test_students_t_is_scipys(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_points_stand_in_the_order_of_their_first_visits_with_all_their_trials() -> None:
    a, b = Point(64, 1), Point(128, 1)
    trials = [trial(b), trial(a), trial(b)]
    found = summaries(CONFIG, trials, [ranked(a, 0.9), ranked(b, 0.8)], IMAGES)
    assert [each.point for each in found] == [b, a]
    assert found[0].trials == (trials[0].number, trials[2].number)
    assert [each.is_best for each in found] == [False, True]
    assert [(each.steps, each.is_under_trained) for each in found] == [(5, True), (10, True)]
    assert not any(e.is_under_trained for e in summaries(CONFIG, trials, [], 0))


@pytest.mark.parametrize(
    ("state", "attrs", "words"),
    [
        (TrialState.PRUNED, {"pruned_because": "S is low"}, ("pruned", "S is low")),
        (TrialState.PRUNED, {"infeasible": "out of memory"}, ("infeasible", "out of memory")),
        (TrialState.FAIL, {"error": "OSError: disk"}, ("failed", "OSError: disk")),
        (TrialState.FAIL, {}, ("failed", "no reason given")),
        (TrialState.RUNNING, {}, ("running", None)),
    ],
)
def test_what_became_of_a_point_and_why(
    state: TrialState, attrs: dict[str, Any], words: tuple[str, str | None]
) -> None:
    each = only([trial(Point(64, 2), state, **attrs)])
    assert (each.state, each.reason) == words
    assert (each.accuracies, each.mean, each.shrunken) == ((), None, None)


def test_a_point_that_one_trial_has_completed_is_complete() -> None:
    point = Point(64, 2)
    failed, done = trial(point, TrialState.FAIL, error="x"), trial(point, similarity_entropy=1.5)
    each = only([failed, done], ranked(point, 0.9))
    assert (each.state, each.reason, each.similarity_entropy) == ("complete", None, 1.5)


def test_trials_that_are_given_back_are_no_visits() -> None:
    assert summaries(CONFIG, [trial(Point(64, 2), TrialState.FAIL, **{GIVEN_BACK: "again"})], [], IMAGES) == ()


def test_a_pruned_point_knows_the_entropy_of_its_own_teacher_alone() -> None:
    pruned = trial(Point(64, 3), TrialState.PRUNED, pruned_because="S is high")
    pruned.intermediate_values = {1: 2.0, 3: 1.25, 4: math.nan}
    assert only([pruned]).similarity_entropy == 1.25
    pruned.intermediate_values = {1: 2.0, 2: math.nan}
    assert only([pruned]).similarity_entropy is None


def test_a_table_has_a_column_for_every_parameter() -> None:
    point = Point(64, 2)
    (row,) = table([only([trial(point)], ranked(point, 0.9, 0.92))])
    assert (row["batch_size"], row["epochs"], row["students"], row["accuracy"]) == (64, 2, 2, pytest.approx(0.91))
    assert (row["is_best"], row["settled"], row["state"]) == (True, True, "complete")
