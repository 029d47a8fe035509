"""Racing: its error as it is stated, on simulated studies, and what it asks for."""

from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from tiny_study import tiny_config

from sweetspot.store import Store, Student, StudyRecord
from sweetspot.study import racing
from sweetspot.study.racing import Race, chance_of_lag
from sweetspot.study.ranking import leaders, ranking
from sweetspot.study.space import Point, distributions
from sweetspot.study.visit import distillation_at

NOISE = 0.007

Rows = dict[Point, list[float]]


def raced(race: Race, means: NDArray[np.float64], rng: np.random.Generator) -> Rows:
    """A study that visits points of these true means in a random order, then brings its leaders to the maximum."""
    rows: Rows = {}

    def grow(point: Point, count: int) -> None:
        mean = means[point.epochs]
        rows[point] = [*rows[point], *rng.normal(mean, NOISE, count - len(rows[point])).tolist()]

    for index in rng.permutation(len(means)).tolist():
        point = Point(32, index)
        rows[point] = []
        while (wanted := race.wanted(rows, point)) > len(rows[point]):
            grow(point, wanted)
    while leaders := race.leaders(rows):
        for point in leaders:
            grow(point, race.maximum)
    return rows


@pytest.mark.parametrize("race", [Race(1, 3), Race(2, 8)])
@pytest.mark.parametrize("worse", [0, 10], ids=["all points equal", "half of them far below"])
def test_a_point_as_good_as_the_best_is_left_behind_no_more_often_than_stated(race: Race, worse: int) -> None:
    rng, left_behind, equal = np.random.default_rng(0), 0, 20 - worse
    studies = 40
    for _ in range(studies):
        rows = raced(race, np.repeat([0.9, 0.8], [equal, worse]), rng)
        left_behind += sum(len(rows[Point(32, i)]) < race.maximum for i in range(equal))
    assert left_behind <= race.error * equal * studies


def test_the_best_point_is_left_behind_no_more_often_than_stated_where_it_is_alone() -> None:
    rng = np.random.default_rng(0)
    alone = np.r_[0.9, np.full(19, 0.9 - NOISE)]
    left_behind = sum(len(raced(Race(1, 3), alone, rng)[Point(32, 0)]) < 3 for _ in range(60))
    assert left_behind <= 3  # 5 %


def test_points_that_are_clearly_worse_are_left_behind() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(20)
    for _ in range(20):
        rows = raced(Race(1, 8), np.repeat([0.9, 0.85], [10, 10]), rng)
        counts += [len(rows[Point(32, i)]) for i in range(20)]
    first, rest = counts[:10].mean() / 20, counts[10:].mean() / 20
    assert first > 7.8
    assert rest < 2.5  # those before the noise is known run all eight


def test_the_chance_of_a_lag_is_that_of_simulated_lags() -> None:
    rng = np.random.default_rng(0)
    counts, own, freedom, draws = np.array([3.0] * 10 + [1.0] * 8), 2, 12, 100_000
    others = rng.normal(size=(draws, len(counts))) / np.sqrt(counts)
    lags = (others - rng.normal(size=(draws, 1)) / np.sqrt(own)) / np.sqrt(1 / counts + 1 / own)
    greatest = lags.max(axis=1) / np.sqrt(rng.chisquare(freedom, draws) / freedom)
    for lag in (1.5, 2.5, 3.5):
        assert chance_of_lag(lag, own, counts, freedom) == pytest.approx((greatest >= lag).mean(), abs=0.004)
    assert chance_of_lag(-0.1, own, counts, freedom) == 1


def test_against_a_single_other_it_is_students_t_test() -> None:
    # Tables of Student's t: 2.228 is the 97.5th percentile with 10 degrees of freedom, 3.169 the 99.5th.
    assert chance_of_lag(2.228, 1, np.array([3.0]), 10) == pytest.approx(0.025, rel=0.01)
    assert chance_of_lag(3.169, 4, np.array([2.0]), 10) == pytest.approx(0.005, rel=0.01)


BEST, WORST, NEW = Point(32, 8), Point(32, 1), Point(64, 8)
KNOWN: Rows = {BEST: [0.90, 0.91, 0.92], Point(32, 4): [0.89, 0.90, 0.91], Point(32, 2): [0.88, 0.9, 0.89]}


def test_until_the_noise_is_known_every_point_runs_all_students_at_once() -> None:
    few: Rows = {BEST: [0.9, 0.91, 0.92], WORST: [0.1]}
    assert Race(1, 3).wanted({}, NEW) == 3
    assert Race(1, 3).wanted(few, NEW) == 3
    assert Race(1, 3).wanted(few, WORST) == 3


def test_a_point_begins_with_the_minimum_and_doubles_while_it_may_be_the_best() -> None:
    race = Race(1, 7)
    counts = [race.wanted({**KNOWN, NEW: [0.9] * count}, NEW) for count in range(9)]
    assert counts == [1, 2, 4, 4, 7, 7, 7, 7, 8]
    assert race.looks == (1, 2, 4)


def test_a_point_that_lags_far_behind_needs_no_more_than_it_has() -> None:
    assert [Race(1, 7).wanted({**KNOWN, NEW: [0.5] * count}, NEW) for count in (1, 2, 4)] == [1, 2, 4]


def test_the_leaders_are_those_that_may_be_best_and_lack_students() -> None:
    rows: Rows = {**KNOWN, NEW: [0.9], WORST: [0.5], Point(64, 4): [0.905, 0.905], Point(64, 2): []}
    assert Race(1, 3).leaders(rows) == [Point(64, 4), NEW]


def test_without_room_to_race_every_point_gets_what_it_is_given() -> None:
    assert Race(3, 3).wanted(KNOWN, NEW) == 3
    assert Race(3, 3).wanted({**KNOWN, NEW: [0.1]}, NEW) == 3
    assert Race(3, 3).leaders({**KNOWN, NEW: [0.9, 0.9]}) == [NEW]


def test_the_first_point_is_nobodys_rival() -> None:
    assert Race(1, 8).wanted({NEW: [0.9] * 7}, NEW) == 8


def test_students_that_do_not_scatter_leave_only_the_best_in_the_race() -> None:
    rows: Rows = {BEST: [0.9] * 4, Point(32, 4): [0.8] * 4, NEW: [0.9], WORST: [0.89]}
    assert [Race(1, 4).wanted(rows, point) for point in (NEW, WORST)] == [2, 1]


def may_be_best(race: Race, rows: Rows, point: Point, noise: float, freedom: int) -> bool:
    """As it is stated, for one point alone."""
    own, others = rows[point], [found for other, found in rows.items() if other != point and found]
    if not others:
        return True
    counts = np.array([float(len(found)) for found in others])
    lags = [(np.mean(found) - np.mean(own)) / np.sqrt(1 / len(found) + 1 / len(own)) for found in others]
    if noise == 0:
        return bool(max(lags) <= 0)
    return chance_of_lag(max(lags) / noise, len(own), counts, freedom) > race.error / len(race.looks)


@pytest.mark.parametrize("scatter", [NOISE, 0.0])
def test_the_leaders_and_what_points_want_are_those_of_each_point_on_its_own(scatter: float) -> None:
    rng, race, left = np.random.default_rng(1), Race(1, 8), set()
    for points in (1, 2, 5, 15, 15, 15, 40):
        means = rng.choice([0.9, 0.895, 0.88, 0.8], points)
        counts = np.append(rng.integers(0, 10, points - 1), 7)  # the last one alone has enough for the noise
        rows = {Point(32, i): rng.normal(means[i], scatter, counts[i]).round(3).tolist() for i in range(points)}
        freedom = sum(len(found) - 1 for found in rows.values() if found)
        noise = np.sqrt(sum(np.var(found) * len(found) for found in rows.values() if found) / freedom)
        expected = {p: may_be_best(race, rows, p, float(noise), freedom) for p, found in rows.items() if found}
        lacking = [p for p in expected if expected[p] and len(rows[p]) < 8]
        assert race.leaders(rows) == sorted(lacking, key=lambda p: -float(np.mean(rows[p])))
        for point in expected:
            if len(rows[point]) in race.looks:
                assert (race.wanted(rows, point) > len(rows[point])) == expected[point]
        left |= set(expected.values())
    assert left == {True, False}


def test_the_chance_is_asked_for_a_few_points_of_a_large_study_and_not_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, asked = np.random.default_rng(2), []

    def counted(*values: Any) -> float:
        asked.append(values)
        return chance_of_lag(*values)

    monkeypatch.setattr(racing, "chance_of_lag", counted)
    rows = {Point(32, i): rng.normal(0.9, NOISE, 1 + i % 3).tolist() for i in range(300)}
    assert 200 <= len(Race(1, 4).leaders(rows)) <= 300
    assert len(asked) <= 3 * 8  # by halving, of 100 points for each number of students


# -- the leaders of a search ------------------------------------------------------------------------------------------

IMAGES = 1097


def study(store: Store, rows: Rows, **values: object) -> tuple[StudyRecord, list[FrozenTrial]]:
    """A study that was at these points, with these students in the store."""
    config = tiny_config(student__replicates={"min": 1, "max": 4}, **values)
    record, trials = StudyRecord("tiny", config, "d" * 64, None, 0), []
    for point, accuracies in rows.items():
        distillation = distillation_at(config, record.data_hash, point).hash
        for replicate, accuracy in enumerate(accuracies):
            store.students.add(Student(distillation, "search", replicate, "tiny", accuracy, {}, 1.0, ""))
        trials.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE, value=0.5, params=point.params, distributions=distributions(config)
            )
        )
    return record, trials


FOUND: Rows = {
    Point(64, 1): [0.5],
    Point(64, 2): [0.90, 0.91],
    Point(64, 3): [0.88, 0.90, 0.90, 0.92],
    Point(128, 1): [0.93],
    Point(128, 2): [0.86, 0.87, 0.87, 0.88],
    Point(128, 3): [0.91],
}


def test_a_searchs_leaders_are_read_from_its_students_and_none_is_left_once_they_have_theirs(store: Store) -> None:
    record, trials = study(store, FOUND)
    lack = leaders(store, record, trials, IMAGES)
    assert lack == [Point(128, 1), Point(128, 3), Point(64, 2)]
    for point in lack:
        for replicate in range(len(FOUND[point]), 4):
            distillation = distillation_at(record.config, record.data_hash, point).hash
            store.students.add(Student(distillation, "search", replicate, "tiny", 0.9, {}, 1.0, ""))
    assert leaders(store, record, trials, IMAGES) == []


def test_under_trained_points_do_not_lead_where_there_are_others(store: Store) -> None:
    record, trials = study(store, FOUND, search__min_steps=20)  # 17 steps an epoch at batch size 64, 8 at 128
    assert leaders(store, record, trials, IMAGES) == [Point(128, 3), Point(64, 2)]
    of_these = [t for t in trials if Point.of(t.params) == Point(128, 1)]
    assert leaders(store, record, of_these, IMAGES) == [Point(128, 1)]


def test_only_a_point_with_all_its_students_is_called_best(store: Store) -> None:
    record, trials = study(store, FOUND)
    ranked = ranking(store, record, trials, IMAGES)
    assert [(r.point, r.is_settled) for r in ranked] == [
        (Point(64, 3), True),
        (Point(128, 2), True),
        (Point(128, 1), False),
        (Point(128, 3), False),
        (Point(64, 2), False),
        (Point(64, 1), False),
    ]
