"""Workers that are asked to stop: at the next step, with their place saved and their trial given back."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from one_trajectory import (
    TEACHERS,
    UNHURRIED,
    Undisturbed,
    assert_goes_on,
    assert_nothing_is_left_over,
    assert_part_of,
    complete,
    create,
    numbers,
    saved_places,
    study,
)
from optuna.trial import TrialState

from benchmarks.watched_worker import Worker, Workers
from sweetspot.cli import main
from sweetspot.store import Store
from sweetspot.study.search import GIVEN_BACK, load


def by_sigterm(worker: Worker, store: Store) -> None:
    worker.signal(signal.SIGTERM)
    worker.until(lambda: "asked to stop" in worker.said, 20)


def by_command(worker: Worker, store: Store) -> None:
    (name,) = [record.name for record in store.workers.all() if not record.ended]
    address = ["--storage", store.url.render_as_string(hide_password=False), "--artifacts", store.artifacts_url]
    assert main(["workers", "drain", name, *address]) == 0
    worker.until(lambda: "asked to stop" in worker.said, 20)


@pytest.mark.parametrize(("run", "ask"), [(TEACHERS, by_sigterm), (TEACHERS, by_command), ("student/", by_sigterm)])
def test_a_worker_that_is_drained_saves_its_place_at_the_next_step_and_gives_its_trial_back(
    undisturbed: Undisturbed,
    workers: Workers,
    storage: str,
    store: Store,
    tmp_path: Path,
    run: str,
    ask: Callable[[Worker, Store], None],
) -> None:
    create(store, study(1, checkpoint_seconds=1000, **UNHURRIED), 7)
    drained = workers.start("tiny", storage, tmp_path, hold=(run, (1, 30)))
    drained.until_it_holds()
    ask(drained, store)
    drained.let_go()
    drained.ends_well()
    last = [step for step in drained.steps if step.run.startswith(run)][-1]
    assert last.place == (1, 30)
    places = saved_places(store)
    assert places[last.run] == (1, 30)
    lost, waiting = load(store, "tiny").trials
    assert (lost.state, lost.user_attrs[GIVEN_BACK]) == (TrialState.FAIL, "drained")
    assert (waiting.state, waiting.params) == (TrialState.WAITING, lost.params)

    other = workers.start("tiny", storage, tmp_path)
    other.ends_well()
    assert_goes_on(places, other.steps)
    assert_nothing_is_left_over(store)
    assert_part_of(undisturbed.numbers, numbers(store))
    assert [trial.params["epochs"] for trial in complete(store)] == [7]


@pytest.mark.parametrize("storage", ["sqlite"], indirect=True)
def test_a_second_signal_stops_at_once(workers: Workers, storage: str, store: Store, tmp_path: Path) -> None:
    create(store, study(1, checkpoint_seconds=1000, **UNHURRIED), 7)
    worker = workers.start("tiny", storage, tmp_path, hold=(TEACHERS, (1, 30)))
    worker.until_it_holds()
    by_sigterm(worker, store)
    worker.signal(signal.SIGTERM)
    worker.ends_well()  # it is still held at its step
    assert [trial.state.name for trial in load(store, "tiny").trials] == ["FAIL", "WAITING"]
    assert load(store, "tiny").trials[0].user_attrs[GIVEN_BACK] == "interrupted"
    assert not [w for w in store.workers.all() if not w.ended]


@pytest.mark.parametrize("storage", ["sqlite"], indirect=True)
def test_drains_never_make_a_point_infeasible(workers: Workers, storage: str, store: Store, tmp_path: Path) -> None:
    """Four times at the same step, which nothing is saved before."""
    create(store, study(1, checkpoint_seconds=1000, **UNHURRIED), 3)
    for _ in range(4):
        worker = workers.start("tiny", storage, tmp_path, hold=("", (0, 1)))
        worker.until_it_holds()
        by_sigterm(worker, store)
        worker.signal(signal.SIGTERM)
        worker.ends_well()
    worker = workers.start("tiny", storage, tmp_path)
    worker.ends_well()
    assert [trial.params["epochs"] for trial in complete(store)] == [3]
