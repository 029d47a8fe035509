"""Trials whose worker died: queued again, each once, until a point turns out to kill whoever comes near it."""

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import update
from tiny_study import tiny_config

from sweetspot.data.study_data import StudyData
from sweetspot.store import Leases, Store
from sweetspot.store.schema import WorkerRow
from sweetspot.study.lost import MOST_DEATHS, fail, queue_again, sweep
from sweetspot.study.sampler import Taken
from sweetspot.study.search import GIVEN_BACK, Counts, create_or_continue, load
from sweetspot.study.space import Point, suggest

CONFIG = tiny_config()

Take = Callable[[], FrozenTrial]


@pytest.fixture
def study(store: Store, digits: StudyData) -> optuna.Study:
    create_or_continue(store, "tiny", CONFIG, digits)
    return load(store, "tiny")


@pytest.fixture
def take(study: optuna.Study) -> Take:
    """A worker that is dead by now takes a trial."""

    def one() -> FrozenTrial:
        trial = study.ask()
        trial.set_user_attr("worker", "nobody")
        suggest(trial, CONFIG)
        return study.trials[trial.number]

    return one


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_a_point_whose_workers_die_again_and_again_is_infeasible(store: Store, study: optuna.Study, take: Take) -> None:
    point = Point.of(take().params)
    for death in range(1, MOST_DEATHS):
        sweep(store, study)
        assert states(study) == ["FAIL"] * death + ["WAITING"]
        assert Point.of(take().params) == point
    sweep(store, study)
    assert states(study) == ["FAIL"] * (MOST_DEATHS - 1) + ["PRUNED"]
    last = study.trials[-1]
    assert last.user_attrs["infeasible"] == "3 workers died one after the other, and nothing new was saved in between"
    assert last.value is None
    assert last.system_attrs["constraints:infeasible"] == 1.0
    assert point in Taken(study.trials)
    assert Counts.of(study.trials) == Counts(complete=0, pruned=1, failed=0, running=0, waiting=0)


def test_deaths_between_which_something_was_saved_do_not_count(store: Store, study: optuna.Study, take: Take) -> None:
    for saved in ("a", "a", "b", "b", "c"):
        take()
        sweep(store, study, saved=lambda trial, saved=saved: saved)
    assert states(study) == ["FAIL"] * 5 + ["WAITING"]
    take()
    sweep(store, study, saved=lambda trial: "c")
    take()
    sweep(store, study, saved=lambda trial: "c")
    assert states(study)[-1] == "PRUNED"


def test_drains_between_deaths_neither_count_nor_begin_anew(store: Store, study: optuna.Study, take: Take) -> None:
    for _ in range(5):
        fail(study, take(), "drained")
        queue_again(study)
    assert states(study)[-1] == "WAITING"
    for death in range(MOST_DEATHS):
        take()
        sweep(store, study)
        if death < MOST_DEATHS - 1:
            fail(study, take(), "drained")
            queue_again(study)
    assert states(study)[-1] == "PRUNED"


def test_an_arm_of_a_confirmation_fails_instead(store: Store, study: optuna.Study, take: Take) -> None:
    for _ in range(MOST_DEATHS):
        trial = take()
        study._storage.set_trial_user_attr(trial._trial_id, "task", "{}")
        sweep(store, study)
    last = study.trials[-1]
    assert (last.state, GIVEN_BACK in last.user_attrs) == (TrialState.FAIL, False)
    assert last.user_attrs["error"].startswith("3 workers died")


def test_who_dies_between_failing_a_trial_and_queueing_it_again_loses_nothing(
    store: Store, study: optuna.Study, take: Take
) -> None:
    trial = take()
    fail(study, trial, "drained")
    assert states(study) == ["FAIL"]
    sweep(store, study)
    sweep(store, study)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].params == trial.params


def test_a_result_that_came_first_stays(store: Store, study: optuna.Study, take: Take) -> None:
    trial = take()
    study.tell(trial.number, 0.5)
    fail(study, trial, "its worker ended")
    sweep(store, study)
    assert states(study) == ["COMPLETE"]


def test_half_a_point_is_none(store: Store, study: optuna.Study) -> None:
    """A worker that is killed between two parameters leaves the study as it was."""
    trial = study.ask()
    trial.set_user_attr("worker", "nobody")
    trial.suggest_categorical("batch_size", CONFIG.search.batch_size)

    def saved(trial: FrozenTrial) -> str:
        return f"{trial.params['batch_size']} {trial.params['epochs']}"

    sweep(store, study, ("batch_size", "epochs"), saved)
    sweep(store, study, ("batch_size", "epochs"), saved)
    assert states(study) == ["FAIL"]
    assert Counts.of(study.trials) == Counts(complete=0, pruned=0, failed=0, running=0, waiting=0)


def test_a_trial_that_finishes_while_it_is_given_back_counts(store: Store, study: optuna.Study, take: Take) -> None:
    trial = take()
    study._storage.set_trial_user_attr(trial._trial_id, GIVEN_BACK, "its worker fell silent")
    assert Counts.of(study.trials).running == 1
    study.tell(trial.number, 0.5)
    sweep(store, study)
    assert states(study) == ["COMPLETE"]
    assert Counts.of(study.trials).finished == 1


def test_the_leases_of_the_dead_are_free(store: Store, study: optuna.Study) -> None:
    worker = store.workers.register("cpu")
    assert Leases(store.database, worker, 60).acquire("branch") is not None
    trial = study.ask()
    trial.set_user_attr("worker", worker)
    suggest(trial, CONFIG)
    store.workers.unregister(worker)
    assert "branch" in Leases(store.database, "me", 60).held_by_others("")
    sweep(store, study)
    assert Leases(store.database, "me", 60).held_by_others("") == {}


def test_a_worker_that_was_draining_when_it_ended_has_not_died(store: Store, study: optuna.Study) -> None:
    for _ in range(MOST_DEATHS + 1):
        worker = store.workers.register("cpu")
        store.workers.update(worker, drain=True)
        trial = study.ask()
        trial.set_user_attr("worker", worker)
        suggest(trial, CONFIG)
        with store.database.session.begin() as session:
            session.execute(update(WorkerRow).where(WorkerRow.id == worker).values(process_start=-1.0))
        sweep(store, study)
    assert states(study)[-1] == "WAITING"
    assert study.trials[0].user_attrs[GIVEN_BACK] == "drained"


def test_a_trial_that_never_had_parameters_is_not_queued_again(store: Store, study: optuna.Study) -> None:
    study.ask()
    sweep(store, study)
    assert states(study) == ["FAIL"]
    assert Counts.of(study.trials) == Counts(complete=0, pruned=0, failed=0, running=0, waiting=0)
