"""``sweetspot workers``: the list of those that work, and asking them to stop."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from sweetspot.store import Store
from sweetspot.store.schema import WorkerRow, now
from sweetspot.workers.drain import Drain
from sweetspot.workers.pulse import Pulse

Command = Callable[..., Any]


@pytest.fixture
def at_work() -> str:
    """A worker of this process; its name."""
    with Store() as store:
        worker = store.workers.register("cuda:0")
        detail = {"batch_size": 64, "epochs": 30, "epoch": 7, "images_per_second": 12345.6}
        store.workers.update(worker, study="digits", trial=3, phase="teacher", detail=detail)
        (record,) = store.workers.all()
        return record.name


def test_workers_are_listed_with_what_they_do(command: Command, at_work: str) -> None:
    said = command("workers")
    assert (said.status, said.err) == (0, "")
    head, row = said.out.splitlines()
    assert head.split() == ["worker", "device", "study", "trial", "phase", "point", "epoch", "images/s", "seen"]
    assert row.split()[:-2] == [at_work, "cuda:0", "digits", "3", "teacher", "64", "x", "30", "7", "12,346"]
    (there,) = json.loads(command("workers", "--json").out)
    assert (there["name"], there["study"], there["trial"], there["state"]) == (at_work, "digits", 3, "teacher")
    assert (there["epoch"], there["images_per_second"]) == (7, 12345.6)


def set_row(**values: Any) -> None:
    with Store() as store, store.database.session.begin() as session:
        session.execute(update(WorkerRow).values(**values))


def test_a_silent_worker_a_dead_one_and_one_that_is_long_dead_are_told_apart(command: Command, at_work: str) -> None:
    set_row(last_seen=now() - timedelta(minutes=5))
    assert json.loads(command("workers", "--json").out)[0]["state"] == "silent"
    set_row(pid=2**22 + 1)
    assert json.loads(command("workers", "--json").out)[0]["state"] == "died"
    set_row(last_seen=now() - timedelta(hours=2))
    assert json.loads(command("workers", "--json").out) == []
    set_row(host="elsewhere")  # of whom nothing is known
    assert json.loads(command("workers", "--json").out)[0]["state"] == "silent"


def test_without_workers_the_list_says_what_starts_some(command: Command) -> None:
    assert command("workers").out == "no worker: sweetspot optimize starts some, sweetspot worker joins a study\n"
    assert command("workers", "--json").out == "[]\n"


def test_a_worker_is_asked_to_stop_by_its_name_or_with_all_others(command: Command, at_work: str) -> None:
    assert command("workers", "drain", at_work).out == f"asked {at_work} to stop\n"
    assert json.loads(command("workers", "--json").out)[0]["state"] == "teacher, draining"
    assert command("workers", "drain", "--all").out == f"asked {at_work} to stop\n"


@pytest.mark.parametrize("arguments", [(), ("somebody", "--all")])
def test_which_workers_must_be_said(command: Command, at_work: str, arguments: tuple[str, ...]) -> None:
    said = command("workers", "drain", *arguments)
    assert (said.status, said.err) == (2, "error: which workers? give a NAME of sweetspot workers, or --all\n")


def test_a_worker_that_is_not_there_is_refused(command: Command, at_work: str) -> None:
    said = command("workers", "drain", at_work[:-1])
    assert said.status == 2
    assert said.err.startswith(f"error: unknown worker {at_work[:-1]!r}: did you mean {at_work!r}?")


def test_init_makes_an_empty_database_and_says_so_again(command: Command, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/new.db"
    for _ in range(2):
        said = command("init", "--storage", address)
        assert (said.status, said.out) == (0, f"ready: {address}, artifacts in {tmp_path}/artifacts\n")


def test_options_before_a_command_are_not_lost_without_a_word(command: Command, at_work: str, tmp_path: Path) -> None:
    said = command("workers", "--storage", f"{tmp_path}/other.db", "drain", "--all")
    assert (said.status, said.err) == (2, "error: --storage before drain: put it after\n")
    assert json.loads(command("workers", "--json").out)[0]["state"] == "teacher"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--workers-per-gpu", "2", "--workers", "3"), "goes with --workers auto, not with --workers 3"),
        (("--workers-per-gpu", "2", "--device", "cpu"), "there is no GPU"),
        (("--workers-per-gpu", "0"), "greater than or equal to 1"),
        (("--log-file", "no/such/folder/log"), "--log-file no/such/folder/log: No such file or directory"),
    ],
)
def test_bad_values_of_the_options_of_optimize_are_refused(
    command: Command, arguments: tuple[str, ...], why: str
) -> None:
    said = command("optimize", "--dataset", "digits", *arguments)
    assert said.status == 2
    assert why in said.err
    assert len(said.err.splitlines()) == 1


def test_a_worker_asked_to_stop_between_two_beats_hears_of_it(at_work: str) -> None:
    drain = Drain()
    with Store() as store:
        worker = store.workers.register("cpu")
        with Pulse(store, worker, 5.0, drain):
            store.workers.drain([worker])
    assert drain.is_requested()
