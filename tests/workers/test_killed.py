"""Workers that are killed, stopped and taken for dead, at any moment: what is lost is little, and no number differs."""

import random
import signal
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select, text
from tiny_study import tiny_config
from watched_worker import Event, Place, Worker, Workers

from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.store.checkpoints import used_blobs
from sweetspot.store.schema import EpochRow, LeaseRow, SnapshotRow, StudentRow
from sweetspot.store.students import student_run
from sweetspot.store.trajectories import RUNS as TEACHERS
from sweetspot.store.trajectories import run_of
from sweetspot.study.search import GIVEN_BACK, create_or_continue, load

LADDER = (3, 7, 12)
BATCH_SIZE = 16
STUDENT_BATCH_SIZE = 32
STUDENT_EPOCHS = 4
CHECKPOINT_SECONDS = 0.2
STEPS = 25
"""Within so many steps a worker is killed: at the last of them it waits for it."""
UNHURRIED = {"heartbeat_seconds": 1000, "grace_seconds": 2000}
"""Nobody falls silent within a test: that a process is gone must be seen at once."""


def study(trials: int = len(LADDER), **run: float) -> StudyConfig:
    """One trajectory, of which each point takes a part; two students a point."""
    return tiny_config(
        search__batch_size=[BATCH_SIZE], search__epochs=LADDER, search__trials=trials, student__epochs=STUDENT_EPOCHS,
        student__batch_size=STUDENT_BATCH_SIZE, confirm__seeds=0, run={"checkpoint_seconds": CHECKPOINT_SECONDS} | run,
    )  # fmt: skip


def create(store: Store, config: StudyConfig, *epochs: int) -> None:
    """The study, with the trials of these epochs in the queue."""
    create_or_continue(store, "tiny", config, load_study_data(config, None, torch.device("cpu")))
    for wanted in epochs:
        load(store, "tiny").enqueue_trial({"batch_size": BATCH_SIZE, "epochs": wanted})


# -- what a store holds -----------------------------------------------------------------------------------------------

Numbers = dict[str, dict[Any, Any]]


def numbers(store: Store) -> Numbers:
    """All that was found, to the bit, by what it is of: without times, and without who found it."""
    timed = ("seconds", "created", "used", "id", "test_correct")
    with store.database.session() as session:
        tables = {
            table.__name__: [
                {c.name: getattr(row, c.name) for c in table.__table__.columns if c.name not in timed}
                for row in session.scalars(select(table))
            ]
            for table in (EpochRow, SnapshotRow, StudentRow)
        }
    keys = {
        "EpochRow": ("recipe", "branch", "epoch", "temperature", "probe"),
        "SnapshotRow": ("recipe", "branch", "epoch"),
        "StudentRow": ("distillation", "purpose", "replicate"),
    }
    found: Numbers = {
        name: {tuple(row[key] for key in keys[name]): row for row in rows} for name, rows in tables.items()
    }
    measured = ("similarity_entropy", "teacher_accuracy", "steps", "replicate_accuracies")
    found["trials"] = {
        tuple(sorted(trial.params.items())): (
            trial.value,
            trial.intermediate_values,
            {key: trial.user_attrs[key] for key in measured},
        )
        for trial in complete(store)
    }
    return found


def complete(store: Store) -> list[FrozenTrial]:
    """By number."""
    return [trial for trial in load(store, "tiny").trials if trial.state == TrialState.COMPLETE]


def assert_nothing_is_left_over(store: Store) -> None:
    """No trial, lease, worker or checkpoint is under way any more, and all that rows refer to is there and whole."""
    others = [trial for trial in load(store, "tiny").trials if trial.state != TrialState.COMPLETE]
    assert {(trial.state.name, GIVEN_BACK in trial.user_attrs) for trial in others} <= {("FAIL", True)}
    points = [tuple(sorted(trial.params.items())) for trial in complete(store)]
    assert len(points) == len(set(points))
    for trial in others:  # one that was killed while it was asked for may have only a part of its parameters
        (again,) = [c for c in complete(store) if trial.number in c.system_attrs.get("retry_history", [])]
        assert trial.params.items() <= again.params.items()
    assert store.trajectories.checkpoints() == []
    with store.database.session() as session:
        assert [lease.name for lease in session.scalars(select(LeaseRow)) if lease.owner] == []
        for name in used_blobs(session):
            store.artifacts.get(name)


def saved_places(store: Store) -> dict[str, Place]:
    """Where each run goes on, or has ended, by its name; those that have not been saved are left out."""
    places = {checkpoint.run: checkpoint.position for checkpoint in store.trajectories.checkpoints()}
    with store.database.session() as session:
        for student in session.scalars(select(StudentRow)):
            places[student_run(student.distillation, "search", student.replicate)] = (STUDENT_EPOCHS, 0)
        for teacher in session.scalars(select(SnapshotRow).where(SnapshotRow.optimizer.is_not(None))):
            run = run_of(teacher.recipe, teacher.branch)
            places[run] = max(places.get(run, (0, 0)), (teacher.epoch, 0))
    return places


# -- what a worker has done -------------------------------------------------------------------------------------------


@cache
def train_images() -> int:
    return load_study_data(study(), None, torch.device("cpu")).train_images


def steps_done(run: str, place: Place) -> int:
    """Of a run, from its beginning."""
    return place[0] * (train_images() // (BATCH_SIZE if run.startswith(TEACHERS) else STUDENT_BATCH_SIZE)) + place[1]


def assert_goes_on(places: Mapping[str, Place], steps: Iterable[Event]) -> None:
    """In every run the first step is the one after the saved place, and no later one is left out or repeated."""
    done = {run: steps_done(run, place) for run, place in places.items()}
    for step in steps:
        done[step.run] = done.get(step.run, 0) + 1
        assert done[step.run] == steps_done(step.run, step.place), step


def assert_saves_when_it_is_due(events: Sequence[Event]) -> None:
    """By the worker's own clock: once a checkpoint is due, no further step is trained before it is saved.

    The time is taken from the first step after the last save, so that it is never more than what the worker has seen.
    """
    since, is_due, what = 0.0, False, ""
    for event in events:
        if event.what == "saved":
            what = ""
        elif event.what == "step":
            of = event.run.rsplit("/", 1)[0]
            if of != what:  # the first step after a save, or of another training
                since, is_due, what = event.at, False, of
            assert not is_due, event
            is_due = event.at - since > CHECKPOINT_SECONDS


@dataclass(frozen=True)
class Undisturbed:
    """A study that one worker has brought to its end.

    Attributes:
        points: in the order of its trials.
        steps: all that were trained, in their order, as (run, place).
    """

    numbers: Numbers
    points: list[dict[str, Any]]
    steps: list[tuple[str, Place]]


@pytest.fixture(scope="module")
def undisturbed(_forks: Workers, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    storage = f"sqlite:///{folder}/study.db"
    with Store(storage, str(folder / "artifacts")) as store:
        create(store, study())
        worker = _forks.start("tiny", storage, folder)
        worker.ends_well()
        assert worker.said == ""
        assert_goes_on({}, worker.steps)
        assert_saves_when_it_is_due(worker.events)
        assert sum(event.what == "saved" for event in worker.events) > 2 * len(LADDER)
        assert_nothing_is_left_over(store)
        assert sum(trial.user_attrs["epochs_trained"] for trial in complete(store)) == max(LADDER)
        points = [trial.params for trial in complete(store)]
        return Undisturbed(numbers(store), points, [(step.run, step.place) for step in worker.steps])


def assert_part_of(whole: Numbers, part: Numbers) -> None:
    """Whatever was found is as it is in the whole. (Of the last teacher more is kept.)"""
    for name, rows in part.items():
        for key, row in rows.items():
            there = whole[name][key]
            if name == "SnapshotRow":
                row, there = ({**r, "optimizer": None} for r in (row, there))
            assert row == there


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
