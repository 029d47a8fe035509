"""``sweetspot watch``: a study that others work on, followed from its beginning, through an outage, to its end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import torch
from optuna.trial import TrialState
from psycopg.conninfo import conninfo_to_dict
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.errors import RunError
from sweetspot.report.watch import Event, Look
from sweetspot.report.watch_view import Lines
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.deletion import delete_study
from sweetspot.study.search import create_or_continue, get_study, load
from sweetspot.study.space import distributions
from sweetspot.workers.watch import watch_study

Command = Callable[..., Any]
CONFIG = tiny_config(search__trials=2, confirm__seeds=0)


class Told(Lines):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, events: Sequence[Event], look: Look | None) -> None:
        self.events += events

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events]


def watched(storage: str, artifacts: Path, *steps: Callable[[Store], None]) -> list[str]:
    """What is told of a study to which these things happen, one between each two looks."""
    view, left = Told(), list(steps)
    time = datetime(2026, 11, 20, tzinfo=UTC)

    def now() -> datetime:
        nonlocal time
        time += timedelta(seconds=60)
        return time

    with Store(storage, str(artifacts)) as store:
        create_or_continue(store, "tiny", CONFIG, load_study_data(CONFIG, data_folder(), torch.device("cpu")))
        watch_study(
            "tiny", view, storage=storage, artifacts=str(artifacts), sleep=lambda _: left.pop(0)(store), now=now
        )
    assert not left
    return view.texts


def prune(store: Store) -> None:
    study = load(store, "tiny")
    trial = study.ask(distributions(CONFIG))
    trial.set_user_attr("pruned_because", "similarity entropy is low")
    study.tell(trial, state=TrialState.PRUNED)


def end(store: Store) -> None:
    store.studies.set_ended("tiny", "enough")


def test_a_study_is_followed_to_its_end(storage: str, tmp_path: Path) -> None:
    told = watched(storage, tmp_path, prune, lambda _: None, end)
    assert told[0].startswith("tiny: 0/2 trials, 0 pruned, 0 running")
    assert told[1].startswith("1/2  trial 0: batch ")
    assert "pruned: similarity entropy is low  |  1 pruned, 0 running, search: ETA unknown" in told[1]
    assert told[2:] == ["the search has ended: enough", "done: no trial was completed"]


@pytest.fixture
def cut(_postgresql_server: str, postgresql: str) -> Iterator[Callable[[bool], None]]:
    """Cuts the test's database off from everybody, or gives it back."""
    name = conninfo_to_dict(postgresql)["dbname"]

    def set_cut(is_cut: bool) -> None:
        with psycopg.connect(_postgresql_server, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {"false" if is_cut else "true"}')
            if is_cut:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    yield set_cut
    set_cut(False)


def test_an_outage_is_told_once_and_waited_for(postgresql: str, tmp_path: Path, cut: Callable[[bool], None]) -> None:
    told = watched(
        postgresql, tmp_path, lambda _: cut(True), lambda _: None, lambda _: None, lambda _: cut(False), prune, end
    )
    assert told[1].startswith("the database does not answer (")
    assert told[1].endswith(": waiting for it")
    assert told[2] == "the database answers again after 3 min"
    assert told[3].startswith("1/2  trial 0: ")
    assert len(told) == 6


def test_a_study_that_is_deleted_meanwhile_ends_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the study 'tiny' was deleted"):
        watched(f"sqlite:///{tmp_path}/study.db", tmp_path, lambda store: delete_study(store, get_study(store, "tiny")))


def test_a_search_that_failed_is_exit_status_1(command: Command, create: Callable[..., None]) -> None:
    create(CONFIG)
    with Store() as store:
        store.studies.set_ended("digits", "failed: 10 trials in a row; the last: x")
    said = command("watch")
    assert said.status == 1
    assert said.err == "error: failed: 10 trials in a row; the last: x; see sweetspot trials digits\n"


def test_for_programs_each_event_is_an_object_on_a_line(command: Command, create: Callable[..., None]) -> None:
    create(CONFIG)
    with Store() as store:
        store.studies.set_ended("digits", "enough")
    said = command("watch", "digits", "--json", "--interval", "0.01")
    assert (said.status, said.err) == (0, "")
    study, done = map(json.loads, said.out.splitlines())
    assert (study["event"], study["study"], study["trials"]["total"]) == ("study", "digits", 2)
    assert (done["event"], done["confirmed"], done["ended"]) == ("done", None, "enough")
    assert datetime.fromisoformat(done["time"]).tzinfo is not None


def test_ctrl_c_ends_it_and_leaves_the_study_alone(create: Callable[..., None]) -> None:
    create(CONFIG)
    command = [sys.executable, "-m", "sweetspot", "watch", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "digits: 0/2 trials" in process.stdout.readline()  # at once, whatever the pipe would hold back
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "error: interrupted; the same command continues where it stopped\n"
    assert process.returncode == 130


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_where_there_is_no_database_none_is_made(command: Command, tmp_path: Path) -> None:
    said = command("watch", "--storage", f"sqlite:///{tmp_path}/study.db")
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        f"error: there is no study in sqlite:///{tmp_path}/study.db: start one with sweetspot optimize\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert command("watch").status == 2
    assert list(Path(os.environ["SWEETSPOT_HOME"]).iterdir()) == []


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_an_interval_that_is_none(refused: Callable[..., str], interval: str) -> None:
    assert "--interval" in refused("watch", "--interval", interval)


def test_a_study_that_is_not_there(command: Command, create: Callable[..., None]) -> None:
    create(CONFIG)
    said = command("watch", "digitz")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("error: unknown study 'digitz': did you mean 'digits'?")
    create(CONFIG, "other")
    assert command("watch").err.startswith("error: which study? ")
