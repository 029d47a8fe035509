"""Proposals by expected improvement for their cost: what they cost, what they gain, and where they lead."""

import math
import random
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.study import cost_aware
from sweetspot.study.cost_aware import FIRST, STUDENT_EPOCH, Costs, Visited, log_improvement, next_point
from sweetspot.study.sampler import PointSampler
from sweetspot.study.space import Point, distributions, points, suggest
from sweetspot.study.surrogate import Belief, Surrogate
from sweetspot.study_file import Draft, find

IMAGES = 1497
WSD = {"name": "wsd", "warmup": 0, "decay": 0.25}


def config(**values: Any) -> StudyConfig:
    draft = Draft.read(find("digits"))
    search = {"search.batch_size": [16, 32, 64, 128], "search.epochs": [2, 4, 8, 16, 32, 64],
              "search.sampler": "cost-aware", "search.min_steps": 0}  # fmt: skip
    for key, value in {**search, **{key.replace("__", "."): value for key, value in values.items()}}.items():
        draft.set(key, value, key)
    return draft.config()


def trial(study_config: StudyConfig, point: Point, accuracy: float = 0.9, **attrs: Any) -> FrozenTrial:
    """A completed one of three students, whose teacher was trained from the start at 0.1 s an epoch."""
    state = attrs.pop("state", TrialState.COMPLETE)
    told = {
        "replicate_accuracies": [accuracy - 0.003, accuracy, accuracy + 0.003],
        "steps": point.epochs * (IMAGES // point.batch_size),
        "epochs_reached": point.epochs, "epochs_trained": point.epochs, "student_epochs": 60,
        "seconds": {"teacher": 0.1 * point.epochs, "measuring": 0.0, "waiting": 5.0, "students": 2.0},
    }  # fmt: skip
    return optuna.trial.create_trial(
        state=state,
        value=accuracy if state == TrialState.COMPLETE else None,
        params=point.params,
        distributions=distributions(study_config),
        user_attrs=told | attrs if state != TrialState.RUNNING else {},
    )


def costs(study_config: StudyConfig, *trials: FrozenTrial) -> Costs:
    return Costs(study_config, [Visited(Point.of(t.params), t) for t in trials])


# -- costs ------------------------------------------------------------------------------------------------------------


def test_an_epoch_that_a_longer_run_shares_costs_nothing() -> None:
    study_config = config()
    known = costs(study_config, trial(study_config, Point(32, 16)))
    assert [known.missing_epochs(Point(32, epochs)) for epochs in (4, 16, 32)] == [0, 0, 16]
    assert known.missing_epochs(Point(64, 16)) == 16


def test_a_decay_branch_is_paid_for_by_each_length() -> None:
    study_config = config(teacher__schedule=WSD)
    known = costs(study_config, trial(study_config, Point(32, 16)))  # a trunk of 12 epochs
    assert [known.missing_epochs(Point(32, epochs)) for epochs in (8, 16, 32)] == [2, 0, 24 - 12 + 8]


def test_a_schedule_that_shares_nothing_saves_nothing() -> None:
    study_config = config(teacher__schedule={"name": "cosine"})
    known = costs(study_config, trial(study_config, Point(32, 16)))
    assert [known.missing_epochs(Point(32, epochs)) for epochs in (8, 16, 32)] == [8, 0, 32]


def test_what_was_pruned_has_left_its_epochs_and_what_runs_will() -> None:
    study_config = config()
    known = costs(
        study_config,
        trial(study_config, Point(32, 32), state=TrialState.PRUNED, epochs_reached=8, epochs_trained=8),
        trial(study_config, Point(64, 16), state=TrialState.RUNNING),
    )
    assert known.missing_epochs(Point(32, 16)) == 8
    assert known.missing_epochs(Point(64, 8)) == 0


def test_another_student_has_the_same_teacher_and_another_learning_rate_has_not() -> None:
    study_config = config(
        search__student={"temperature": {"low": 1, "high": 8}}, search__teacher={"lr": {"low": 0.01, "high": 0.1}}
    )
    point = Point(32, 16, (("student.temperature", 4.0), ("teacher.lr", 0.05)))
    known = costs(study_config, trial(study_config, point))
    assert known.missing_epochs(Point(32, 16, (("student.temperature", 2.0), ("teacher.lr", 0.05)))) == 0
    assert known.missing_epochs(Point(32, 16, (("student.temperature", 4.0), ("teacher.lr", 0.06)))) == 16


def test_costs_are_epochs_and_no_measured_second_changes_them() -> None:
    study_config = config()
    slow = {"teacher": 400.0, "measuring": 8.0, "waiting": 0.0, "students": 1.0}
    for known in (
        costs(study_config, trial(study_config, Point(32, 16))),
        costs(study_config, trial(study_config, Point(32, 16), seconds=slow)),
    ):
        assert known.of(Point(32, 8)) == pytest.approx(STUDENT_EPOCH * 20 * 3)
        assert known.of(Point(32, 32)) == pytest.approx(STUDENT_EPOCH * 20 * 3 + 16)


# -- gains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-0.4, -0.26, -0.24, -0.1, 0.0, 0.1, 1.0])
def test_the_expected_improvement_is_that_of_the_integral(ahead: float) -> None:
    x = np.linspace(0, 2, 400_001)
    density = np.exp(-(((x - ahead) / 0.05) ** 2) / 2) / (0.05 * math.sqrt(2 * math.pi))
    expected = float((x * density).sum() * (x[1] - x[0]))
    assert log_improvement(np.array([ahead]), np.array([0.05]))[0] == pytest.approx(math.log(expected), abs=0.02)


def test_a_hopeless_point_is_still_better_than_a_more_hopeless_one() -> None:
    found = log_improvement(np.array([-0.5, -0.6, -0.6]), np.array([0.001, 0.001, 0.0]))
    assert np.isfinite(found[:2]).all()
    assert found[0] > found[1] > found[2]


# -- choices ----------------------------------------------------------------------------------------------------------


def visited(study_config: StudyConfig) -> list[FrozenTrial]:
    """Batch size 32 to its end: accuracy rises to 16 epochs and stays; and one point of another batch size."""
    rising = {2: 0.7, 4: 0.8, 16: 0.9, 64: 0.9}
    there = [trial(study_config, Point(32, epochs), accuracy) for epochs, accuracy in rising.items()]
    return [*there, trial(study_config, Point(128, 16), 0.9)]


def test_of_points_that_promise_alike_the_one_whose_teacher_is_there_is_visited() -> None:
    study_config = config()
    there, free = visited(study_config), [Point(32, 32), Point(64, 32)]
    assert next_point(study_config, there, free, 0, per_cost=True) == Point(32, 32)
    assert next_point(study_config, there, free, 0, per_cost=False) == Point(64, 32)  # about which less is known


def test_a_point_next_to_one_under_way_promises_less() -> None:
    study_config = config()
    rising = {2: 0.7, 4: 0.8, 8: 0.87, 16: 0.9, 32: 0.91, 64: 0.91}
    there = [trial(study_config, Point(32, epochs), accuracy) for epochs, accuracy in rising.items()]
    one, other = Point(16, 32), Point(64, 32)  # as far to either side
    for chosen, left in ((one, other), (other, one)):
        under_way = trial(study_config, Point(left.batch_size, 64), state=TrialState.RUNNING)
        assert next_point(study_config, [*there, under_way], [one, other], 0, per_cost=False) == chosen


def test_under_trained_points_are_left_for_last() -> None:
    study_config = config(search__min_steps=100)  # 93, 46, 23 and 11 steps an epoch
    study = optuna.create_study(direction="maximize")
    found = search(study, study_config, 24)
    under_trained = [p.epochs * (IMAGES // p.batch_size) < 100 for p in found]
    assert sum(under_trained) == 6
    assert all(under_trained[-6:])


def test_a_point_that_may_have_the_steps_is_not_left_for_last() -> None:
    study_config = config(search__min_steps=180)
    there = [trial(study_config, Point(128, epochs)) for epochs in (4, 8)]  # 11 steps an epoch: 1,408 to 1,535 images
    may, may_not = Point(16, 2), Point(128, 2)  # the third visit would rather have the second
    assert next_point(study_config, there, [may, may_not], 0, per_cost=True) == may  # 176 to 190 steps
    # Where the images are known, they decide.
    known = [next_point(study_config, there, [may, may_not], 0, per_cost=True, train_images=n) for n in (1439, 1440)]
    assert known == [may_not, may]


def test_a_study_that_tells_its_images_leaves_under_trained_points_for_last_from_the_start() -> None:
    study_config = config(search__min_steps=64 * 93)  # at batch size 16 alone, to the end
    first = []
    for images in (None, IMAGES):
        study = optuna.create_study(direction="maximize", sampler=PointSampler(study_config))
        if images is not None:
            study.set_user_attr("train_images", images)
        first.append(suggest(study.ask(), study_config))
    assert first == [Point(32, 64), Point(16, 64)]


@pytest.mark.parametrize("per_cost", [True, False])
def test_of_many_free_points_a_few_are_judged_at_once_and_the_choice_is_that_among_all(
    monkeypatch: pytest.MonkeyPatch, per_cost: bool
) -> None:
    study_config = config()
    every, asked, at = points(study_config) or [], [], Surrogate.at

    def noted(self: Surrogate, features: Any, *values: Any) -> Belief:
        asked.append(len(features))
        return at(self, features, *values)

    monkeypatch.setattr(Surrogate, "at", noted)
    for visits in range(4, 14):
        shuffled = random.Random(visits).sample(every, len(every))
        there = [trial(study_config, p, accuracy(p)) for p in shuffled[:visits]]
        there += [trial(study_config, p, state=TrialState.RUNNING) for p in shuffled[visits : visits + 2]]
        chosen = []
        for at_once in (1000, 3):
            asked.clear()
            monkeypatch.setattr(cost_aware, "_AT_ONCE", at_once)
            chosen.append(next_point(study_config, there, shuffled[visits + 2 :], 0, per_cost=per_cost))
        assert chosen[0] == chosen[1]
        assert max(asked[1:]) == 3 + 2  # the first are those that are known


def test_the_first_visits_are_spread_over_what_is_likely_to_be_good() -> None:
    study_config = config()
    found = search(optuna.create_study(direction="maximize"), study_config, len(FIRST))
    assert len({p.batch_size for p in found}) >= 3
    assert all(p.epochs >= 8 for p in found)


def accuracy(point: Point) -> float:
    """A cliff, then best at batch size 32 and 16 epochs."""
    cliff = 0.2 / (1 + math.exp(2 * math.log(point.epochs * 8 / point.batch_size)))
    return 0.94 - cliff - 0.01 * math.log2(point.batch_size / 32) ** 2 - 0.01 * math.log2(point.epochs / 16) ** 2


def search(study: optuna.Study, study_config: StudyConfig, trials: int) -> list[Point]:
    """Each trial pays for the epochs that are not there yet, a second each, and two seconds for students."""
    found: list[Point] = []

    def objective(asked: optuna.Trial) -> float:
        point = suggest(asked, study_config)
        there = max((p.epochs for p in found if p.batch_size == point.batch_size), default=0)
        found.append(point)
        done = trial(study_config, point, accuracy(point), epochs_trained=max(0, point.epochs - there))
        done.user_attrs["seconds"]["teacher"] = float(done.user_attrs["epochs_trained"])
        for key, value in done.user_attrs.items():
            asked.set_user_attr(key, value)
        return accuracy(point)

    for _ in range(trials):
        study.sampler = PointSampler(study_config)
        study.optimize(objective, n_trials=1)
    return found


def test_the_best_point_of_24_is_found_in_ten_visits() -> None:
    study_config = config()
    every = points(study_config) or []
    best = max(every, key=accuracy)
    study = optuna.create_study(direction="maximize")
    assert best in search(study, study_config, 10)


def test_it_pays_less_than_one_that_does_not_look_at_costs() -> None:
    paid = {}
    for sampler in ("gp", "cost-aware"):
        study = optuna.create_study(direction="maximize")
        search(study, config(search__sampler=sampler), 10)
        paid[sampler] = sum(t.user_attrs["seconds"]["teacher"] for t in study.trials)
    assert paid["cost-aware"] < paid["gp"]
