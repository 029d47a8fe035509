"""The replay pays what the table says, judges on what the search has not seen, and tells a good search from a bad."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial
from tiny_study import tiny_config

from benchmarks import search
from benchmarks.search_bench import Bench, repetitions, trials_of
from benchmarks.search_methods import METHODS, VARIANTS, Search, exhaustive, plain_optuna, shared_grid, unpruned
from benchmarks.search_plot import spread
from benchmarks.search_pruning import PRUNERS, FeaturePruner, comparison
from benchmarks.search_regret import Choice, Course, Curve, split
from benchmarks.search_replay import Clock, Recording, Seen
from benchmarks.search_result import by_method, goals, summary
from sweetspot.errors import UserError
from sweetspot.report.table import (
    Baselines,
    Epoch,
    LeftOut,
    Student,
    Table,
    TableData,
    TablePoint,
    Trajectory,
    write_table,
)
from sweetspot.study.pruner import measurements_of
from sweetspot.study.space import Point
from sweetspot.training.schedules import schedule

TRAIN_IMAGES = 1280
EPOCH, MEASURING, STUDENT = 2.0, 0.1, 4.0
"""Seconds of the synthetic table."""


def synthetic(
    *,
    sizes: tuple[int, ...] = (16, 32, 64, 128),
    ladder: tuple[int, ...] = (1, 2, 4, 8, 16),
    seeds: int = 5,
    replicates: int = 4,
    branches: bool = False,
    teacher_noise: float = 0.005,
    student_noise: float = 0.007,
    without: tuple[tuple[int, int], ...] = (),
    **values: object,
) -> Table:
    """A table of made-up accuracies: they rise with the steps to a plateau, where small batches are slightly better.

    S falls along a trajectory. Of a trajectory, each point has paid for measuring the epochs since the point before.
    """
    rng = np.random.default_rng(0)
    config = tiny_config(
        search__batch_size=list(sizes),
        search__epochs=list(ladder),
        search__trials=len(sizes) * len(ladder) * seeds,
        teacher__schedule={"name": "wsd", "warmup": 0, "decay": 0.25} if branches else {"name": "constant"},
        student__replicates={"min": replicates, "max": replicates},
        **values,
        **({"search__teacher": {"seeds": seeds}} if seeds > 1 else {}),
    )
    plan = schedule(config.teacher.schedule, min(ladder))
    leaves = {e: plan.shared_epochs(e) for e in ladder}

    def steps(size: int, epochs: int) -> int:
        return epochs * (TRAIN_IMAGES // size)

    def row(size: int, epoch: int) -> Epoch:
        done = math.log(1 + steps(size, epoch))
        mass = 0.6 * math.exp(-done / 4) + rng.normal(0, 0.002)
        accuracy = 0.97 - 0.5 * math.exp(-done / 2) + rng.normal(0, 0.002)
        views = {
            "response_entropy": 3 * mass,
            "similarity_entropy": 2 * mass,
            "similarity_information": 0.5,
            "delivered_similarity": 0.2 * mass,
            "non_target_mass": mass,
            "accuracy": accuracy,
        }
        return Epoch(epoch, epoch in ladder, mass, EPOCH, views, views)

    def student(replicate: int, mean: float) -> Student:
        accuracy = mean + rng.normal(0, student_noise)
        early = [accuracy - 0.1 * math.exp(-e) + rng.normal(0, 0.003) for e in range(3)]
        return Student(replicate, accuracy, (*early, accuracy), STUDENT)

    trajectories, points = [], []
    for seed, size in itertools.product(range(seeds), sizes):
        ends = {0: (0, max(leaves.values()))} | {e: (left, e) for e, left in leaves.items() if left < e}
        for branch, (first, last) in ends.items():
            rows = tuple(row(size, epoch) for epoch in range(first + 1, last + 1))
            trajectories.append(Trajectory(size, seed, branch, first, rows))
        before = 0
        for epochs in ladder:
            branch = epochs if leaves[epochs] < epochs else 0
            measured = max(0, leaves[epochs] - before) + epochs - leaves[epochs]
            before = leaves[epochs]
            plateau = 0.9 - 0.3 * math.exp(-steps(size, epochs) / 60) - 0.004 * abs(math.log2(size / 32))
            mean = plateau + rng.normal(0, teacher_noise)
            students = tuple(student(replicate, mean) for replicate in range(replicates))
            if (size, epochs) not in without:
                points.append(
                    TablePoint(size, epochs, seed, steps(size, epochs), branch, MEASURING * measured, students)
                )
    return Table(
        study="made up",
        command="",
        created="2026-01-01T00:00:00Z",
        machine={},
        versions={},
        config=config,
        data=TableData("0" * 64, "digits", 10, TRAIN_IMAGES, 300, None),
        replicates=replicates,
        teacher_seeds=seeds,
        temperature=4.0,
        trajectories=tuple(trajectories),
        points=tuple(points),
        left_out=tuple(LeftOut(size, e, seed, "diverged") for size, e in without for seed in range(seeds)),
        baselines=Baselines(),
    )


def bench(table: Table, trials: int | None = None, replicates: int = 3) -> Bench:
    return Bench.of(table, trials, replicates)


def seen(table: Table, **changes: Any) -> Seen:
    there = bench(table, **changes)
    return Seen.of(there.recording, there.config, 0, tuple(range(table.replicates)), 0)


def teach(clock: Clock, point: Point) -> float:
    """The seconds that a point's teacher costs now."""
    before = clock.seconds
    for _ in clock.train(point):
        pass
    return clock.seconds - before


# -- what is paid -----------------------------------------------------------------------------------------------------


def test_a_shared_epoch_is_paid_for_once_with_its_measuring() -> None:
    clock = Clock(Recording(synthetic()), 0)
    assert teach(clock, Point(32, 4)) == pytest.approx(4 * (EPOCH + MEASURING))
    assert teach(clock, Point(32, 8)) == pytest.approx(4 * (EPOCH + MEASURING))
    assert teach(clock, Point(32, 2)) == 0
    assert teach(clock, Point(64, 2)) == pytest.approx(2 * (EPOCH + MEASURING))


def test_a_decay_branch_is_paid_for_beside_the_trunk_it_hangs_from() -> None:
    """A quarter of each run is its own decay: 16 epochs are 12 of the trunk and 4 more."""
    clock = Clock(Recording(synthetic(branches=True)), 0, measures=False)
    assert teach(clock, Point(32, 16)) == pytest.approx(16 * EPOCH)
    assert teach(clock, Point(32, 8)) == pytest.approx(2 * EPOCH)
    assert teach(clock, Point(32, 8)) == 0


def test_who_shares_nothing_pays_every_time_and_for_no_measuring() -> None:
    clock = Clock(Recording(synthetic()), 0, shares=False, measures=False)
    assert [teach(clock, Point(32, 8)) for _ in range(2)] == pytest.approx([8 * EPOCH] * 2)


def test_a_trial_on_a_branch_reports_the_trunk_before_the_branch_point_alone() -> None:
    """Of 8 epochs the last 2 are the branch's: a rung at 6, where it leaves the trunk, is not reported."""
    clock = Clock(Recording(synthetic(ladder=(1, 4, 6, 8), branches=True)), 0)
    assert [epoch for epoch, _ in clock.train(Point(32, 8))] == [1, 4, 8]


def test_rungs_come_when_they_are_paid_for() -> None:
    clock = Clock(Recording(synthetic()), 0, measures=False)
    assert {e: clock.seconds for e, _ in clock.train(Point(32, 8))} == {e: e * EPOCH for e in (1, 2, 4, 8)}


def test_the_exhaustive_search_pays_for_every_teacher_and_student() -> None:
    choices = exhaustive(seen(synthetic()))
    assert choices[-1].seconds == pytest.approx(4 * (1 + 2 + 4 + 8 + 16) * EPOCH + 20 * 3 * STUDENT)
    assert len(choices) == 20


def test_the_default_in_the_middle_pays_for_one_teacher_and_one_student() -> None:
    (choice,) = METHODS["default_middle"](seen(synthetic()))
    assert choice == Choice(8 * EPOCH + STUDENT, Point(32, 8))


def test_the_most_accurate_teacher_is_found_by_training_them_all() -> None:
    there = seen(synthetic())
    (choice,) = METHODS["default_most_accurate"](there)
    assert choice.seconds == pytest.approx(4 * 16 * (EPOCH + MEASURING) + STUDENT)
    accuracies = {p: there.teacher(p).validation["accuracy"] for p in there.recording.points}  # type: ignore[union-attr]
    assert choice.point == max(accuracies, key=accuracies.__getitem__)


def test_plain_optuna_pays_for_the_student_epochs_before_it_is_pruned() -> None:
    table = synthetic(student_noise=0.0)
    choices = plain_optuna(seen(table))
    per_epoch = STUDENT / 4
    paid = np.diff([0.0, *(choice.seconds for choice in choices)])
    students = {round((cost % EPOCH) / per_epoch, 6) for cost in paid}
    assert students <= {0.0, 1.0}  # whole epochs
    full = {round(e * EPOCH + 3 * STUDENT, 6) for e in (1, 2, 4, 8, 16)}
    assert any(round(cost, 6) not in full for cost in paid)


# -- what is judged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seeds", "replicates"), [(5, 2), (3, 1), (2, 4), (1, 3)])
def test_a_choice_is_judged_on_students_that_the_search_has_not_seen(seeds: int, replicates: int) -> None:
    table = synthetic(seeds=seeds, replicates=replicates)
    before = split(Recording(table), 1, np.random.default_rng(1))

    def without_luck(point: TablePoint) -> TablePoint:
        students = [replace(s, accuracy=0.5) if s.replicate in before.replicates else s for s in point.students]
        return replace(point, students=tuple(students)) if point.teacher_seed == before.teacher_seed else point

    changed = tuple(map(without_luck, table.points))
    after = split(Recording(replace(table, points=changed)), 1, np.random.default_rng(1))
    assert after.replicates == before.replicates
    assert after.regrets == pytest.approx(before.regrets)
    assert before.replicates


def test_teachers_take_turns_as_the_one_that_is_searched() -> None:
    recording = Recording(synthetic())
    assert [split(recording, n, np.random.default_rng(n)).teacher_seed for n in range(6)] == [0, 1, 2, 3, 4, 0]


def test_where_all_points_are_equal_no_choice_is_charged_for_the_luck_of_others() -> None:
    """The plain maximum of noisy means would charge about 1.9 standard errors, here 1 point."""
    table, rng = synthetic(replicates=1), np.random.default_rng(0)
    choices, oracles = [], []
    for _ in range(40):
        points = [replace(p, students=(replace(p.students[0], accuracy=rng.normal(0.9, 0.01)),)) for p in table.points]
        recording = Recording(replace(table, points=tuple(points)))
        drawn = split(recording, 0, rng)
        choices.append(drawn.regrets.mean())
        oracles.append(drawn.oracle)
    assert abs(np.mean(choices)) < 0.002
    assert abs(np.mean(oracles)) < 0.003


def test_a_bad_choice_is_charged_what_it_is_worse() -> None:
    recording = Recording(synthetic(teacher_noise=0.0, student_noise=0.0))
    drawn = split(recording, 0, np.random.default_rng(0))
    means = recording.accuracies.mean(axis=(1, 2))
    assert drawn.regrets == pytest.approx(means.max() - means)
    assert drawn.oracle == pytest.approx(0)
    assert drawn.judge_error == pytest.approx(0)


def test_an_error_of_the_judge_is_that_of_a_mean_over_what_was_not_searched() -> None:
    recording = Recording(synthetic(teacher_noise=0.01, student_noise=0.0, seeds=10))
    errors = [split(recording, n, np.random.default_rng(n)).judge_error for n in range(5)]
    assert np.mean(errors) == pytest.approx(0.01 / math.sqrt(9), rel=0.15)


# -- curves -----------------------------------------------------------------------------------------------------------


def course(*steps: tuple[float, float]) -> Course:
    seconds, regrets = zip(*steps, strict=True)
    return Course(np.array(seconds), np.array(regrets), Point(32, 1))


def test_a_curve_is_infinite_until_half_of_the_searches_have_a_choice() -> None:
    curve = Curve.of([course((1, 0.03), (4, 0.01)), course((2, 0.02)), course((3, 0.00))])
    assert curve.seconds.tolist() == [1, 2, 3, 4]
    assert curve.median.tolist() == pytest.approx([math.inf, 0.03, 0.02, 0.01])


def test_the_goal_is_reached_when_the_median_stays_there() -> None:
    curve = Curve.of([course((1, 0.05), (2, 0.001), (3, 0.01), (4, 0.002), (5, -0.01))])
    assert curve.seconds_to(0.002) == 4
    assert curve.seconds_to(0.001) == 5
    assert curve.seconds_to(-0.02) is None
    assert curve.seconds_to(0.002, high=-0.01) == 5


def test_a_summary_ends_where_the_curve_does() -> None:
    recording = Recording(synthetic(seeds=3))
    splits = [split(recording, n, np.random.default_rng(n)) for n in range(3)]
    courses = [course((1, 0.05), (2, 0.004)), course((1, 0.02), (4, 0.001)), course((3, 0.0))]
    told = summary(courses, splits, [Point(32, 1)])
    assert (told["regret_median"], told["cost_median"], told["cost_to_goal"]) == (0.1, 3.0, 4.0)
    assert told["regret_median_error"] is None, "three teachers: one is searched, one picks, one judges"


def test_the_error_of_a_median_over_searches_is_that_over_tables() -> None:
    """The searches of one table, however many, are judged by the same few teachers; here they choose the same point."""
    table, rng = synthetic(seeds=5, replicates=1), np.random.default_rng(0)
    medians, errors = [], []
    for _ in range(60):
        luck = {(p.batch_size, p.epochs, p.teacher_seed): rng.normal(0.9, 0.01) for p in table.points}
        points = [
            replace(p, students=(replace(p.students[0], accuracy=luck[p.batch_size, p.epochs, p.teacher_seed]),))
            for p in table.points
        ]
        recording = Recording(replace(table, points=tuple(points)))
        splits = [split(recording, n, np.random.default_rng(n)) for n in range(5)]
        courses = [Course(np.array([1.0]), np.array([s.regrets[0]]), recording.points[0]) for s in splits]
        told = summary(courses, splits, recording.points)
        medians.append(told["regret_median"])
        errors.append(told["regret_median_error"])
    assert np.mean(errors) == pytest.approx(np.std(medians), rel=0.4)


def method(median: float, p90: float, cost: float, to_goals: float | None) -> dict[str, Any]:
    regrets = {"regret_median": median, "regret_median_error": 0.1, "regret_p90": p90, "regret_p90_error": None}
    return regrets | {"cost_median": cost, "cost_to_both_goals": to_goals}


def found(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "sweetspot": method(0.1, 0.4, 200, 90),
        "plain_optuna": method(0.1, 0.6, 1500, 300),
        "exhaustive": method(0.1, 0.4, 1000, 600),
        "default_middle": method(0.9, 1.0, 10, None),
        "default_most_accurate": method(0.3, 0.4, 100, None),
    } | changes


def test_goals_are_met_by_a_good_search_that_is_cheap() -> None:
    told = goals(found(), 60)
    assert told["met"]
    assert told["defaults_as_good"] == {}
    assert told["defaults_that_meet_it"] == []
    assert told["of_exhaustive"]["ratio"] == pytest.approx(0.2)
    assert told["of_plain_optuna"]["ratio"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({"sweetspot": method(0.21, 0.4, 200, 90)}, 60),
        ({"sweetspot": method(0.1, 0.51, 200, 90)}, 60),
        ({"sweetspot": method(0.1, 0.4, 251, 90)}, 60),
        ({"sweetspot": method(0.1, 0.4, 200, 101)}, 60),
        ({"sweetspot": method(0.1, 0.4, 200, None)}, 60),
        ({}, 100),  # a tenth is the goal
    ],
)
def test_goals_are_not_met_otherwise(changes: dict[str, dict[str, Any]], points: int) -> None:
    assert not goals(found(**changes), points)["met"]


def test_what_plain_optuna_never_reaches_is_compared_with_all_that_it_cost() -> None:
    told = goals(found(plain_optuna=method(0.5, 0.6, 900, None)), 60)["of_plain_optuna"]
    assert told == {"ratio": 0.1, "plain_gets_there": False, "goal": 0.3333, "met": True}


def test_a_default_that_is_as_good_is_told() -> None:
    told = goals(found(default_middle=method(0.2, 0.5, 10, 10)), 60)
    assert told["defaults_as_good"] == {"default_middle": 0.01}
    assert told["defaults_that_meet_it"] == ["default_middle"]
    told = goals(found(default_most_accurate=method(0.2, 0.5, 300, 300)), 60)
    assert told["defaults_as_good"] == {"default_most_accurate": 0.3}
    assert told["defaults_that_meet_it"] == [], "for more than the goal allows"


# -- the searches -----------------------------------------------------------------------------------------------------


def test_a_replayed_trial_has_what_the_pruner_learns_from() -> None:
    asked: dict[int, FrozenTrial] = {}

    class Watching(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
            asked[trial.number] = trial
            return False

    there = seen(synthetic(), trials=3)
    Search("random", lambda config: Watching())(there)
    assert len(asked) == 3
    for trial in asked.values():
        assert trial.last_step == trial.params["epochs"]
        teacher = there.teacher(Point.of(trial.params))
        assert teacher is not None
        assert measurements_of(trial) == pytest.approx(
            {
                "similarity entropy": teacher.views["similarity_entropy"],
                "delivered similarity": teacher.views["delivered_similarity"],
                "teacher accuracy": teacher.validation["accuracy"],
                "log steps": math.log(teacher.steps),
            }
        )


def test_racing_spares_students_that_bad_points_would_have_had() -> None:
    table = synthetic(teacher_noise=0.0, student_noise=0.001, replicates=8)
    there = seen(table, replicates=8)
    raced, full = shared_grid(there), Search("random", unpruned, races=False, visits_all=True)(there)
    assert raced[-1].seconds < full[-1].seconds - 40 * STUDENT
    assert raced[-1].point == full[-1].point


def test_a_point_that_is_pruned_has_cost_its_teacher_alone() -> None:
    class Never(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
            return len(study.trials) > 1

    there = seen(synthetic(), trials=4)
    choices = Search("random", lambda config: Never(), races=False)(there)
    first_rungs = len(choices) - 1
    assert choices[-1].seconds - choices[0].seconds <= first_rungs * (EPOCH + MEASURING) + 1e-9
    assert len({choice.point for choice in choices}) == 1


def test_infeasible_points_are_left_out_and_searched_past() -> None:
    table = synthetic(without=((32, 8), (64, 16)))
    there = bench(table, trials=20)
    assert len(there.recording.points) == 18
    done = repetitions(there, dict.fromkeys(METHODS, 2), 1)
    chosen = {course.chosen for courses in by_method(done, METHODS).values() for course in courses}
    assert chosen.isdisjoint({Point(32, 8), Point(64, 16)})


def test_a_point_without_the_students_of_one_teacher_is_left_out() -> None:
    table = synthetic()
    assert Point(16, 1) not in Recording(replace(table, points=table.points[1:])).points


def test_every_method_finds_the_best_point_where_nothing_is_noise() -> None:
    table = synthetic(teacher_noise=0.0, student_noise=0.0)
    done = repetitions(bench(table, trials=20), {"sweetspot": 2, "exhaustive": 2, "shared_grid": 2}, 1)
    for courses in by_method(done, ("sweetspot", "exhaustive", "shared_grid")).values():
        assert [course.regrets[-1] for course in courses] == pytest.approx([0, 0], abs=1e-4)


def test_a_replay_repeats_exactly_whatever_the_workers() -> None:
    there = bench(synthetic(), trials=12)
    times = {"sweetspot": 3, "plain_optuna": 2}
    one, two = repetitions(there, times, 1), repetitions(there, times, 2)
    assert [sorted(each.courses) for each in one] == [["plain_optuna", "sweetspot"]] * 2 + [["sweetspot"]]
    for a, b in zip(one, two, strict=True):
        for name in a.courses:
            assert a.courses[name].seconds.tolist() == b.courses[name].seconds.tolist()
            assert a.courses[name].regrets.tolist() == b.courses[name].regrets.tolist()


def test_what_a_trial_has_cost_is_in_its_attributes() -> None:
    studies: list[optuna.Study] = []

    class Watching(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
            studies.append(study)
            return len(study.trials) == 20 and trial.last_step == trial.params["epochs"]

    there = seen(synthetic())
    choices = Search("random", lambda config: Watching(), races=False, visits_all=True)(there)
    trials = studies[-1].trials
    assert sum(sum(t.user_attrs["seconds"].values()) for t in trials) == pytest.approx(choices[-1].seconds)
    assert sum(t.user_attrs["seconds"]["teacher"] for t in trials) == pytest.approx(4 * 16 * EPOCH)
    for trial in trials:
        attributes = trial.user_attrs
        assert attributes["epochs_trained"] + attributes["epochs_reused"] == trial.params["epochs"]
        assert attributes["student_epochs"] == (0 if trial.number == 19 else 3 * 4)


# -- pruning ----------------------------------------------------------------------------------------------------------


def test_a_rule_prunes_what_its_features_say_is_bad_and_inside_their_range_alone() -> None:
    study = optuna.create_study(direction="maximize", pruner=FeaturePruner(lambda t: (t.user_attrs["x"],), seed=1))
    epochs = {"epochs": optuna.distributions.IntDistribution(1, 1)}

    def trial(x: float) -> FrozenTrial:
        return optuna.trial.create_trial(
            value=0.9 - 0.3 * abs(x), params={"epochs": 1}, distributions=epochs,
            user_attrs={"x": x, "replicate_accuracies": [0.9 - 0.3 * abs(x) + noise for noise in (-0.001, 0.001)]},
        )  # fmt: skip

    study.add_trials([trial(x) for x in np.linspace(-1, 1, 12)])
    pruned = {x: study.pruner.prune(study, trial(x)) for x in (0.0, 0.8, 1.5)}
    assert pruned == {0.0: False, 0.8: True, 1.5: False}


def test_what_is_known_before_the_teacher_is_pruned_before_it() -> None:
    class Never(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
            assert trial.user_attrs["steps"] > 0
            return len(study.trials) > 1

    choices = Search("random", lambda config: Never(), races=False, asks_ahead=True)(seen(synthetic(), trials=5))
    assert len({choice.seconds for choice in choices}) == 1


def test_pruners_are_compared_with_none_in_searches_that_saw_the_same() -> None:
    plain = [replace(course((10, 0.01)), students=4.0), replace(course((30, 0.03)), students=6.0)]
    less = [replace(course((5, 0.02)), students=1.0), replace(course((25, 0.03)), students=4.0)]
    told = comparison({"grid: no pruning": plain, "grid: other": less})
    names = ("regret_added", "regret_added_error", "cost_saved", "student_cost_saved")
    assert told["grid: no pruning"] == dict.fromkeys(names, 0.0)
    assert told["grid: other"] == dict(zip(names, (0.5, 0.5, 0.25, 0.5), strict=True))


@pytest.mark.parametrize(("points", "trials"), [(4, 4), (20, 10), (60, 15), (99, 25), (100, 13), (400, 40)])
def test_a_search_has_trials_for_a_part_of_the_points(points: int, trials: int) -> None:
    assert trials_of(points) == trials


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        {"sizes": (16, 32, 64), "ladder": (1, 2, 4), "seeds": 1, "replicates": 3},
        {"sizes": (16, 32, 64), "ladder": (1, 2, 4), "seeds": 2, "replicates": 2, "branches": True},
        {"sizes": (16,), "ladder": (1, 2), "seeds": 3, "replicates": 1},
    ],
)
def test_a_small_table_of_any_kind_can_be_searched(
    table: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.json"
    write_table(synthetic(**table), path)
    arguments = [str(path), "--json", "--repetitions", "3", "--workers", "1", "--plot", str(tmp_path / "plot.svg")]
    search.main(arguments)
    told = json.loads(capsys.readouterr().out)
    for name in (*METHODS, "oracle"):
        assert told[name].keys() >= {"regret_median", "regret_p90", "cost_median", "cost_to_goal", "chosen"}
        assert told[name]["regret_p90"] >= told[name]["regret_median"]
    assert told["points"] == len(table["sizes"]) * len(table["ladder"])
    assert told["table"]["replicates"] == table["replicates"]
    picture = (tmp_path / "plot.svg").read_text()
    assert "Sweetspot" in picture
    search.main(arguments[:1] + arguments[2:])
    assert "oracle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (synthetic(seeds=1, replicates=2), "takes at least 3"),
        (synthetic(sizes=(16,), ladder=(1, 2), without=((16, 1),)), "needs at least 2"),
        (synthetic(search__student={"alpha": {"low": 0.1, "high": 0.9}}), "searched alpha, too"),
    ],
)
def test_a_table_that_cannot_be_searched_is_refused_in_one_line(
    table: Table, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.json"
    write_table(table, path)
    with pytest.raises(SystemExit) as ended:
        search.main([str(path)])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_variants_and_pruners_are_told_when_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.json"
    write_table(synthetic(sizes=(16, 32, 64), ladder=(1, 2, 4)), path)
    search.main([str(path), "--json", "--repetitions", "2", "--workers", "1", "--variants", "--pruning"])
    told = json.loads(capsys.readouterr().out)
    assert told["variants"].keys() == VARIANTS.keys()
    assert told["pruning"].keys() == PRUNERS.keys()
    assert told["pruning"]["search: no pruning"]["cost_saved"] == 0


@pytest.mark.parametrize("levels", [[0.0, 1.0, 2.0, 3.0], [50.0] * 5, [0.0, 0.0, 99.0, 100.0], [98.0, 99.0, 100.0]])
def test_labels_keep_their_distance_and_their_order(levels: list[float]) -> None:
    moved = spread(levels, 10.0, 0.0, 100.0)
    assert np.diff(moved).min() >= 10.0 - 1e-9
    assert 0.0 <= moved[0] <= moved[-1] <= 100.0


def test_labels_that_are_far_apart_stay() -> None:
    assert spread([5.0, 40.0, 80.0], 10.0, 0.0, 100.0) == [5.0, 40.0, 80.0]


def test_points_that_were_left_out_do_not_use_up_a_search() -> None:
    """Two of four points could not be run; whoever is proposed first."""
    table = synthetic(sizes=(16, 64), ladder=(1, 2), seeds=3)
    there = replace(table, points=tuple(p for p in table.points if p.batch_size == 16))
    bench = Bench.of(there, 1, 3)
    for number in range(6):
        drawn = bench.split(number)
        assert bench.search(METHODS["sweetspot"], number, drawn).chosen in bench.recording.points


def test_a_table_without_costs_is_refused() -> None:
    table = synthetic(seeds=3)
    points = tuple(replace(p, students=tuple(replace(s, seconds=-1.0) for s in p.students)) for p in table.points)
    with pytest.raises(UserError, match="seconds are negative"):
        Recording(replace(table, points=points))
