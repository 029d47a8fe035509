"""Workers that are killed, stopped and taken for dead, at any moment: what is lost is little, and no number differs."""

import random
import signal
import sqlite3
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from one_trajectory import (
    LADDER,
    STEPS,
    STUDENT_EPOCHS,
    UNHURRIED,
    Undisturbed,
    assert_goes_on,
    assert_nothing_is_left_over,
    assert_part_of,
    assert_saves_when_it_is_due,
    complete,
    create,
    numbers,
    saved_places,
    study,
)
from optuna.trial import TrialState
from sqlalchemy import text

from benchmarks.watched_worker import Place, Worker, Workers
from sweetspot.store import Store
from sweetspot.store.trajectories import RUNS as TEACHERS
from sweetspot.study.search import GIVEN_BACK, load

# -- killed -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When a worker is killed: ``delay`` seconds after step ``first`` of an undisturbed study, before step ``last``."""

    first: int
    last: int
    delay: float


def moments(undisturbed: Undisturbed, kills: int, seed: int) -> list[Moment]:
    """By rising steps: in equal parts while the teacher trains, while students train, and between two trials."""
    rng = random.Random(seed)
    is_of_teacher = [run.startswith(TEACHERS) for run, _ in undisturbed.steps]
    kinds: dict[tuple[bool, bool], list[Moment]] = {}
    for first in range(len(undisturbed.steps) - STEPS):
        ends = is_of_teacher[first], is_of_teacher[first + STEPS]
        kinds.setdefault(ends, []).append(Moment(first, first + STEPS, rng.uniform(0, 0.2)))
    wanted = [(True, True), (False, False), (False, True)]
    chosen = [rng.choice(kinds[wanted[kill % 3]]) for kill in range(kills)]
    return sorted(chosen, key=lambda moment: moment.first)


def kill_again_and_again(
    kills: int, seed: int, undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, folder: Path
) -> None:
    """Kill one worker after the other, and compare what the last one leaves."""
    create(store, study(**UNHURRIED))
    number = {step: i for i, step in enumerate(undisturbed.steps)}
    places: dict[str, Place] = {}

    def has_come_to(step: int) -> bool:
        return any(number[last.run, last.place] >= step for last in worker.steps[-1:])

    for moment in moments(undisturbed, kills, seed):
        worker = workers.start("tiny", storage, folder, hold=undisturbed.steps[moment.last])
        worker.until(partial(has_come_to, moment.first))
        time.sleep(moment.delay)
        worker.kill()
        assert worker.said == ""
        assert not has_come_to(moment.last + 1)
        assert_goes_on(places, worker.steps)
        assert_saves_when_it_is_due(worker.events)
        places = saved_places(store)
    worker = workers.start("tiny", storage, folder)
    worker.ends_well()
    assert worker.said == ""
    assert_goes_on(places, worker.steps)
    assert_saves_when_it_is_due(worker.events)

    assert numbers(store) == undisturbed.numbers
    assert [trial.params for trial in complete(store)] == undisturbed.points
    assert_nothing_is_left_over(store)
    trials = load(store, "tiny").trials
    assert sum(trial.state == TrialState.FAIL for trial in trials) <= kills
    assert sum(trial.user_attrs.get("epochs_trained", 0) for trial in trials) <= max(LADDER), "none is counted twice"
    assert sum(trial.user_attrs.get("student_epochs", 0) for trial in trials) <= 2 * STUDENT_EPOCHS * len(LADDER)


def test_a_study_whose_workers_are_killed_equals_one_that_was_never_disturbed(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path
) -> None:
    """Each goes on at the step after the last save, and saves were made whenever they were due."""
    kill_again_and_again(3, 0, undisturbed, workers, storage, store, tmp_path)


@pytest.mark.slow
def test_so_does_one_whose_workers_are_killed_twenty_times(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path
) -> None:
    kill_again_and_again(20, 1, undisturbed, workers, storage, store, tmp_path)


def test_whoever_waits_for_a_teacher_takes_it_over_when_its_owner_is_killed(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path
) -> None:
    create(store, study(2, checkpoint_seconds=0.05, **UNHURRIED), 7, 3)
    owner = workers.start("tiny", storage, tmp_path, hold=(TEACHERS, (1, 30)))
    owner.until_it_holds()
    waiting = workers.start("tiny", storage, tmp_path)
    waiting.until(lambda: "waiting" in [w.phase for w in store.workers.of_study("tiny")])
    owner.kill()
    places = saved_places(store)
    assert places
    waiting.ends_well()
    assert_goes_on(places, waiting.steps)
    assert [step.place for step in owner.steps][-1] == (1, 30)

    assert_nothing_is_left_over(store)
    assert_part_of(undisturbed.numbers, numbers(store))
    first, second, again = load(store, "tiny").trials
    assert sum(trial.user_attrs.get("epochs_trained", 0) for trial in (first, second, again)) == 7
    assert (first.state, first.user_attrs[GIVEN_BACK]) == (TrialState.FAIL, "its worker ended")
    assert (second.params["epochs"], again.params) == (3, first.params)
    assert second.user_attrs["worker"] == again.user_attrs["worker"] != first.user_attrs["worker"]


# -- stopped ----------------------------------------------------------------------------------------------------------


def stop(worker: Worker, store: Store) -> None:
    """SIGSTOP, but not while it writes to the database: there it would keep everybody from writing."""
    while True:
        worker.signal(signal.SIGSTOP)
        if not _somebody_writes(store):
            return
        worker.signal(signal.SIGCONT)


def _somebody_writes(store: Store) -> bool:
    if store.url.get_backend_name() == "postgresql":
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with store.database.engine.connect() as connection:
            return bool(connection.scalar(text(f"{others} AND xact_start IS NOT NULL")))
    try:
        with sqlite3.connect(str(store.url.database), timeout=0.1, isolation_level=None) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    return False


@pytest.mark.ci
@pytest.mark.parametrize("grace", [900, 2], ids=["keeps its trial", "loses its trial too"])
def test_a_worker_that_is_stopped_until_its_teacher_was_taken_over_writes_nothing_more_of_it(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path, grace: int
) -> None:
    create(store, study(2, heartbeat_seconds=1, grace_seconds=grace), 7, 3)
    stopped = workers.start("tiny", storage, tmp_path, hold=(TEACHERS, (1, 30)))
    stopped.until_it_holds()
    stop(stopped, store)
    places = saved_places(store)
    other = workers.start("tiny", storage, tmp_path)
    if grace == 900:
        other.until(lambda: complete(store))
    else:
        other.ends_well()
    assert_goes_on(places, other.steps)
    assert [trial.params["epochs"] for trial in complete(store)] == ([3] if grace == 900 else [3, 7])
    before, places = numbers(store), saved_places(store)
    stopped.let_go()
    stopped.signal(signal.SIGCONT)
    stopped.ends_well()
    other.ends_well()

    after = stopped.steps[[step.place for step in stopped.steps].index((1, 30)) + 1 :]
    assert_goes_on(places, after)
    assert "another worker took over trajectory/" in stopped.said
    assert "Traceback" not in stopped.said
    assert_nothing_is_left_over(store)
    assert_part_of(numbers(store), before)
    assert_part_of(undisturbed.numbers, numbers(store))
    assert sorted(trial.params["epochs"] for trial in complete(store)) == [3, 7]
    if grace == 900:
        assert [trial.state for trial in load(store, "tiny").trials] == [TrialState.COMPLETE] * 2
        assert next(step.place for step in after if step.is_of_teacher) == (3, 1)
    else:
        assert after == []
        assert numbers(store) == before
        assert "was taken away: its result is dropped" in stopped.said
