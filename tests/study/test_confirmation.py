"""What a confirmation compares, and on which test split; trained for real, in this process."""

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
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.confirmation import ACCURATE, ALONE, BEST, LONGEST, current_plan
from sweetspot.study.lost import sweep
from sweetspot.study.search import GIVEN_BACK, create_or_continue, load
from sweetspot.study.space import distributions
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
        arms = [plan.arm_of(t.params) for t in load(store, "tiny/confirm").trials]
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
        assert plan.points[ACCURATE].epochs <= visited  # type: ignore[union-attr]
        assert plan.points[LONGEST].epochs == 9  # type: ignore[union-attr]


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
