"""What a confirmation compares, and on which test split; trained for real, in this process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from sklearn.datasets import load_digits
from tiny_study import tiny_config

from sweetspot.config import StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.report.result import read_result
from sweetspot.store import ExternalTeacher, Store, StudyRecord
from sweetspot.store.url import data_folder
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, ECONOMY, LONGEST, SMOOTHED
from sweetspot.study.choices import SMOOTHINGS, TEMPERATURES
from sweetspot.study.confirmation import (
    LEADER,
    Plan,
    current_plan,
    ensure_planned,
    is_complete,
    is_unplanned,
    outcomes,
)  # fmt: skip
from sweetspot.study.lost import sweep, withdraw
from sweetspot.study.search import GIVEN_BACK, TASK, create_or_continue, load, open_study
from sweetspot.study.space import Alone, Point, distributions
from sweetspot.study.tasks import TASK_NUMBER, Task, open_tasks, queue, task_of, untried
from sweetspot.study.visit import distillation_at
from sweetspot.workers.worker import work


def npz(path: Path, test: slice) -> str:
    """Digits as a file of one's own, with another test split for another ``test``."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * 15).astype(np.uint8)
    np.savez(path, train_x=pixels[:900], train_y=labels[:900], test_x=pixels[test], test_y=labels[test])
    return f"npz:{path}"


def run(store: Store, url: str, name: str, config: StudyConfig) -> None:
    create_or_continue(store, name, config, load_study_data(config, data_folder(), torch.device("cpu")))
    work(name, storage=url, device="cpu")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def test_students_are_never_judged_by_another_studys_test_split(tmp_path: Path, url: str) -> None:
    values: dict[str, Any] = {"data__validation": 200, "search__trials": 1, "confirm__seeds": 2}
    with Store(url) as store:
        for name, test in (("a", slice(900, 1300)), ("b", slice(1300, 1797))):
            run(store, url, name, tiny_config(data__dataset=npz(tmp_path / f"{name}.npz", test), **values))
        plans = [current_plan(store, name) for name in ("a", "b")]
        assert plans[0].test_hash != plans[1].test_hash  # type: ignore[union-attr]
        b = read_result(store, "b")
        assert b.cost.teacher_epochs_trained == 0, "the training images are the same, so the teacher is shared"
        arms = load(store, "b/confirm").get_trials(states=(TrialState.COMPLETE,))
        assert all(t.user_attrs["student_epochs"] == 2 * 2 for t in arms)
        assert b.confirmation is not None
        assert b.confirmation.plan.looks == 2
        correct = b.confirmation.accuracies[BEST][0] * 497
        assert correct == pytest.approx(round(correct))


def test_a_confirmation_of_an_earlier_best_point_is_not_mixed_with_a_new_one(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        run(store, url, "tiny", tiny_config(search__trials=1, search__epochs=[1, 8], search__sampler="grid"))
        first = read_result(store, "tiny")
        assert first.confirmation is not None
        run(store, url, "tiny", tiny_config(
            search__trials=4, search__epochs=[1, 8], search__sampler="grid", confirm__seeds=0,
        ))  # fmt: skip
        second = read_result(store, "tiny")
        assert second.best is not None
        assert first.best is not None
        if second.best.point == first.best.point:
            pytest.fail("eight epochs are better than one, and the search has visited both")
        answer = second.to_dict()
        assert (answer["confirmed"], answer["test_accuracy"]) == (None, None)
        assert set(answer["gain"].values()) == {None}
        assert "another best point" in answer["verdict"]


def test_an_arm_that_fails_is_tried_again_and_then_told(
    url: str, monkeypatch: pytest.MonkeyPatch, digits: StudyData
) -> None:
    def broken(self: StudyData) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(StudyData, "test", broken)  # a plug-in's data set that fails when its test split is read
    with Store(url) as store:
        run(store, url, "tiny", tiny_config(search__trials=1))
        plan = current_plan(store, "tiny")
        assert plan is not None
        arms = [task_of(t).arm for t in load(store, "tiny/confirm").trials]
        assert arms.count(BEST) == arms.count(ALONE) == 3
        result = read_result(store, "tiny")
        assert result.confirmation is None
        assert "the confirmation failed at" in result.verdict
        assert "OSError: the disk is gone" in result.verdict


def test_the_most_accurate_teacher_is_one_that_this_search_has_reached(url: str, digits: StudyData) -> None:
    """Another study has trained the same trajectory further: that is not this search's to choose from."""
    with Store(url) as store:
        run(store, url, "long", tiny_config(search__batch_size=[64], search__epochs=[1, 2, 9], search__trials=3))
        run(store, url, "short", tiny_config(
            search__batch_size=[64], search__epochs=[1, 2, 9], search__trials=1, search__sampler="random", seed=0,
            pruner={"name": "none"}, student__temperature=3.0,
        ))  # fmt: skip
        plan = current_plan(store, "short")
        assert plan is not None
        (visited,) = [t.params["epochs"] for t in load(store, "short").trials]
        assert plan.arms[ACCURATE].epochs <= visited  # type: ignore[union-attr]
        assert plan.arms[LONGEST].epochs == 9  # type: ignore[union-attr]


def tasks_done(store: Store, name: str) -> list[Task]:
    return [task_of(t) for t in load(store, f"{name}/confirm").get_trials(states=(TrialState.COMPLETE,))]


ALL = ["student_alone", "label_smoothing", "most_accurate_teacher", "temperature", "longest_teacher", "economy"]


def test_what_is_chosen_is_chosen_on_validation_before_the_test_split_is_seen(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        run(store, url, "tiny", tiny_config(search__trials=2, confirm__arms=ALL))
        done = tasks_done(store, "tiny")
        looks = [task.purpose for task in done]
        assert looks == sorted(looks, reverse=True), "choices ('search') come before arms ('confirm')"
        amounts = {t.source.label_smoothing for t in done if isinstance(t.source, Alone) and t.purpose == "search"}
        assert amounts == set(SMOOTHINGS)
        plan = current_plan(store, "tiny")
        assert plan is not None
        temperatures = {
            dict(t.source.others).get("student.temperature")
            for t in done
            if t.arm == BEST_T and t.purpose == "search" and isinstance(t.source, Point)
        }
        assert temperatures == set(TEMPERATURES) - {4.0}, "with the study's own, 4, the search has trained students"
        best_of = max(
            SMOOTHINGS, key=lambda amount: np.mean([
                s.accuracy for s in store.students.of([hash_of(store, "tiny", Alone(amount))], "search")
                [hash_of(store, "tiny", Alone(amount))][:2]
            ]),
        )  # fmt: skip
        assert plan.arms[SMOOTHED] == Alone(best_of)
        assert plan.claim == "this teacher"
        assert set(plan.arms) == {BEST, ALONE, SMOOTHED, ACCURATE, BEST_T, ACCURATE_T, LONGEST, ECONOMY}


def hash_of(store: Store, name: str, source: Alone | Point) -> str:
    record = store.studies.get(name)
    assert record is not None
    return distillation_at(record.config, record.data_hash, source).hash


def test_fresh_teachers_teach_students_of_their_own(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        run(store, url, "tiny", tiny_config(
            search__batch_size=[64], search__epochs=[1], search__trials=1, confirm__teachers=5, confirm__seeds=2,
            confirm__arms=["student_alone", "most_accurate_teacher"],
        ))  # fmt: skip
        record, plan = store.studies.get("tiny"), current_plan(store, "tiny")
        assert record is not None
        assert plan is not None
        assert plan.claim == "this point"
        found = outcomes(store, record, plan)
        assert found[BEST].units.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert len(set(found[ALONE].units.tolist())) == 10, "students alone have no teacher in common"
        teachers = [t.source for t in tasks_done(store, "tiny") if t.arm == BEST]
        assert sorted(dict(p.others)["teacher.seed"] for p in teachers if isinstance(p, Point)) == [1, 2, 3, 4, 5]
        rows = found[BEST].correct
        assert len(np.unique(rows, axis=0)) == 10, "no two students are the same"
        assert ACCURATE not in {t.arm for t in tasks_done(store, "tiny")}, (
            "the only point is the best one, and runs once"
        )
        run(store, url, "tiny", tiny_config(
            search__batch_size=[64], search__epochs=[1], search__trials=1, confirm__teachers=5, confirm__seeds=3,
            confirm__arms=["student_alone", "most_accurate_teacher"],
        ))  # fmt: skip
        trained = [t.user_attrs.get("student_epochs", 0) for t in load(store, "tiny/confirm").trials]
        assert sum(trained) == 2 * 5 * 3 * 2, "two arms, five teachers, three students of two epochs; none twice"


def test_more_seeds_are_a_further_look_that_reuses_the_students_there_are(url: str, digits: StudyData) -> None:
    values: dict[str, Any] = {"search__batch_size": [64], "search__epochs": [1], "search__trials": 1}
    with Store(url) as store:
        run(store, url, "tiny", tiny_config(**values, confirm__seeds=2))
        first = current_plan(store, "tiny")
        run(store, url, "tiny", tiny_config(**values, confirm__seeds=4))
        second = current_plan(store, "tiny")
        assert first is not None
        assert second is not None
        assert [(p.look, p.looks, p.seeds) for p in (first, second)] == [(1, 1, 2), (2, 2, 4)]
        trained = [t.user_attrs["student_epochs"] for t in load(store, "tiny/confirm").trials]
        assert sum(trained) == 2 * 2 * 4, "two arms, four students of two epochs each, none trained twice"
        run(store, url, "tiny", tiny_config(**values, confirm__seeds=4))
        third = current_plan(store, "tiny")
        assert third == replace(second, continued=3), "the same plan is no further look"
        run(store, url, "tiny", tiny_config(**values, confirm__seeds=4, confirm__margin=0.3))
        fourth = current_plan(store, "tiny")
        assert fourth is not None
        assert (fourth.look, fourth.margin) == (3, 0.3), "what does not matter is not chosen after a look"
        assert sum(t.user_attrs["student_epochs"] for t in load(store, "tiny/confirm").trials) == sum(trained)


def test_the_leaders_of_a_search_get_all_their_students(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        run(store, url, "tiny", tiny_config(
            search__trials=6, student__replicates={"min": 1, "max": 3}, confirm__seeds=0, search__sampler="random",
        ))  # fmt: skip
        result = read_result(store, "tiny")
        assert result.best is not None
        assert result.best.is_settled
        assert len(result.best.accuracies) >= 3
        if store.database.has_study("tiny/confirm"):
            assert {t.arm for t in tasks_done(store, "tiny")} == {LEADER}


def test_a_plan_is_read_as_it_was_written(digits: StudyData) -> None:
    arms = {BEST: Point(64, 3).having(student__temperature=2.0), ALONE: Alone(), SMOOTHED: Alone(0.05)}
    plan = Plan(arms, 5, 2, 0.002, "x", look=1, looks=3, continued=2)
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json('{"points": {}, "seeds": 5, "looks": 1, "test": "x"}') is None, "of an earlier version"
    before = plan.to_json().replace('"format":3', '"format":2').replace(',"margin":0.002', "")
    assert "margin" not in before
    assert Plan.from_json(before) is None, "of an earlier version"


def test_what_waits_for_an_earlier_plan_is_withdrawn(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        config = tiny_config()
        create_or_continue(store, "tiny", config, digits)
        record = store.studies.get("tiny")
        assert record is not None
        old = [Task(BEST, Point(64, 1), "confirm", 0, 2, "x"), Task(ALONE, Alone(), "confirm", 0, 2, "x")]
        assert queue(store, record, old)
        new = [Task(BEST, Point(64, 2), "confirm", 0, 2, "x"), old[1]]
        assert queue(store, record, new)
        trials = load(store, "tiny/confirm").trials
        waiting = [task_of(t) for t in trials if t.state == TrialState.WAITING]
        assert sorted(waiting, key=new.index) == new, "what both plans need waits on"
        assert untried(store, record, new) == []
        assert open_tasks(store, record, new) == new
        assert [t.system_attrs["fixed_params"][TASK_NUMBER] for t in trials] == [0, 1, 2]


def planned(store: Store, url: str, **values: Any) -> StudyRecord:
    """A study whose search is done and whose confirmation is planned, but not begun."""
    config = tiny_config(search__batch_size=[64], search__epochs=[1], search__trials=1, confirm__seeds=0, **values)
    run(store, url, "tiny", config)
    config = config.model_copy(update={"confirm": config.confirm.model_copy(update={"seeds": 2})})
    data = load_study_data(config, data_folder(), torch.device("cpu"))
    record = create_or_continue(store, "tiny", config, data)
    assert is_unplanned(store, record)
    assert ensure_planned(store, record, data)
    return record


def test_a_worker_that_died_between_plan_and_tasks_loses_neither(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        record = planned(store, url)
        companion = load(store, "tiny/confirm")
        for trial in companion.get_trials(deepcopy=False):
            withdraw(companion, trial)  # as if they had never been queued
        assert is_unplanned(store, record)
        assert ensure_planned(store, record, digits)
        assert not is_unplanned(store, record)
        plan = current_plan(store, "tiny")
        assert plan is not None
        assert (plan.look, plan.looks) == (1, 1), "the same plan is no further look"


def test_nobody_but_who_continues_a_study_changes_what_it_compares(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        record = planned(store, url)
        work("tiny", storage=url, device="cpu")
        assert not is_unplanned(store, record)
        more = record.config.model_copy(update={"confirm": record.config.confirm.model_copy(update={"seeds": 3})})
        store.studies.set_config("tiny", more)
        changed = store.studies.get("tiny")
        assert changed is not None
        assert not is_unplanned(store, changed), "its configuration alone is no request"
        record = create_or_continue(store, "tiny", more, digits)
        assert is_unplanned(store, record)


def test_a_plan_that_was_asked_for_again_stands_whatever_others_find_later(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        record = planned(store, url, confirm__arms=["student_alone", "most_accurate_teacher", "your_teacher"])
        for _ in range(2):
            work("tiny", storage=url, device="cpu")
            create_or_continue(store, "tiny", record.config, digits)
        work("tiny", storage=url, device="cpu")
        store.external_teachers.add(ExternalTeacher("a" * 64, record.data_hash, "convnet", "mine", 9))
        assert not is_unplanned(store, record), "a teacher that came later waits until the study is continued"
        create_or_continue(store, "tiny", record.config, digits)
        assert is_unplanned(store, record)


def test_no_verdict_is_given_while_a_rival_may_yet_be_tried(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        record = planned(store, url, confirm__arms=["student_alone", "label_smoothing", "most_accurate_teacher"])
        work("tiny", storage=url, device="cpu")
        plan = current_plan(store, "tiny")
        assert plan is not None
        assert is_complete(store, record, plan)
        store.students.delete([hash_of(store, "tiny", plan.arms[SMOOTHED])])  # type: ignore[arg-type]
        assert not is_complete(store, record, plan)
        assert read_result(store, "tiny").confirmation is None
        companion = load(store, "tiny/confirm")
        (task,) = plan.tasks(SMOOTHED, 0)
        for number in range(3):
            companion.enqueue_trial({TASK_NUMBER: 90 + number}, user_attrs={TASK: task.to_json()})
            companion.tell(companion.ask(), state=TrialState.FAIL)
        result = read_result(store, "tiny")
        assert result.confirmation is not None
        assert SMOOTHED in result.confirmation.failed
        create_or_continue(store, "tiny", record.config, digits)
        assert not is_complete(store, record, plan), "who continues a study tries again what has failed"


def test_trials_and_plans_of_an_earlier_version_harm_nobody(url: str, digits: StudyData) -> None:
    with Store(url) as store:
        config = tiny_config(search__batch_size=[64], search__epochs=[1], search__trials=1, confirm__seeds=0)
        run(store, url, "tiny", config)
        companion = open_study(store, "tiny/confirm", "student accuracy")
        companion.set_user_attr("plan", '{"points": {}, "seeds": 5, "looks": 1, "test": "x"}')
        companion.enqueue_trial({TASK_NUMBER: 0}, user_attrs={"plan": "{}"})
        running = companion.ask()
        running.suggest_int(TASK_NUMBER, 0, 999)
        worker = store.workers.register("cpu")
        running.set_user_attr("worker", worker)
        store.workers.unregister(worker)
        companion.enqueue_trial({TASK_NUMBER: 1}, user_attrs={"plan": "{}"})
        record = store.studies.get("tiny")
        assert record is not None
        assert read_result(store, "tiny").best is not None
        confirm = config.confirm.model_copy(update={"seeds": 2})
        run(store, url, "tiny", config.model_copy(update={"confirm": confirm}))
        assert read_result(store, "tiny").confirmation is not None


def test_the_trial_of_a_worker_that_fell_silent_elsewhere_is_given_back(url: str, digits: StudyData) -> None:
    """On another machine nothing is known of the process: its heartbeat stands still for longer than the grace."""
    config = tiny_config(run__heartbeat_seconds=1, run__grace_seconds=2)
    with Store(url, run=config.run) as store:
        create_or_continue(store, "tiny", config, digits)
        study = load(store, "tiny")
        trial = study.ask(distributions(config))
        worker = store.workers.register("cpu")
        trial.set_user_attr("worker", worker)
        store.database.storage.record_heartbeat(trial._trial_id)
        with store.database.engine.begin() as connection:  # an hour ago
            connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
        sweep(store, study)
        first, second = study.trials
        assert (first.state, first.user_attrs[GIVEN_BACK]) == (TrialState.FAIL, "its worker fell silent")
        assert (second.state, second.params) == (TrialState.WAITING, trial.params)
        assert optuna.get_all_study_names(store.database.storage) == ["tiny"]
