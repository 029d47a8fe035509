"""A study of one trajectory, with what a store holds of it and what workers have done of it, to be compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from tiny_study import tiny_config

from benchmarks.watched_worker import Event, Place
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.store.checkpoints import used_blobs
from sweetspot.store.schema import EpochRow, LeaseRow, SnapshotRow, StudentRow
from sweetspot.store.students import student_run
from sweetspot.store.trajectories import RUNS as TEACHERS
from sweetspot.store.trajectories import run_of
from sweetspot.store.url import data_folder
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
    """One trajectory, of which each point takes a part, not the longest first; two students a point."""
    return tiny_config(
        search__batch_size=[BATCH_SIZE], search__epochs=LADDER, search__trials=trials, student__epochs=STUDENT_EPOCHS,
        student__batch_size=STUDENT_BATCH_SIZE, confirm__seeds=0, search__sampler="tpe",
        run={"checkpoint_seconds": CHECKPOINT_SECONDS} | run,
    )  # fmt: skip


def create(store: Store, config: StudyConfig, *epochs: int) -> None:
    """The study, with the trials of these epochs in the queue."""
    create_or_continue(store, "tiny", config, load_study_data(config, data_folder(), torch.device("cpu")))
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
    return load_study_data(study(), data_folder(), torch.device("cpu")).train_images


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


def assert_part_of(whole: Numbers, part: Numbers) -> None:
    """Whatever was found is as it is in the whole. (Of the last teacher more is kept.)"""
    for name, rows in part.items():
        for key, row in rows.items():
            there = whole[name][key]
            if name == "SnapshotRow":
                row, there = ({**r, "optimizer": None} for r in (row, there))
            assert row == there
