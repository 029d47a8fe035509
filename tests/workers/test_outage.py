"""A database that is away: workers train on, hold what they find, and deliver it; after too long they end cleanly."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from one_trajectory import (
    TEACHERS,
    Undisturbed,
    assert_goes_on,
    assert_nothing_is_left_over,
    assert_part_of,
    complete,
    create,
    numbers,
    study,
)
from psycopg.conninfo import conninfo_to_dict

from benchmarks.watched_worker import Workers
from sweetspot.store import Store

Cut = Callable[[bool], None]


@pytest.fixture
def cut(_postgresql_server: str, postgresql: str) -> Cut:
    """Cuts the test's database off from everybody, or gives it back."""
    name = conninfo_to_dict(postgresql)["dbname"]

    def set_cut(is_cut: bool) -> None:
        with psycopg.connect(_postgresql_server, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {"false" if is_cut else "true"}')
            if is_cut:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    return set_cut


@pytest.fixture
def storage(postgresql: str) -> str:
    return postgresql


def test_a_teacher_grows_through_an_outage_and_is_delivered_afterwards(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path, cut: Cut
) -> None:
    create(store, study(1, heartbeat_seconds=1, grace_seconds=90), 12)
    worker = workers.start("tiny", storage, tmp_path, hold=(TEACHERS, (1, 30)))
    worker.until_it_holds()
    cut(True)
    worker.let_go()
    # Two more rungs, and the end of the teacher.
    worker.until(lambda: [step.place[0] for step in worker.steps if step.is_of_teacher][-1] == 11)
    worker.until(lambda: "waiting up to 60 s for the database" in worker.said)
    assert "training goes on" in worker.said  # whoever noticed first
    cut(False)
    worker.ends_well()
    assert "Traceback" not in worker.said
    assert_goes_on({}, worker.steps)  # no step twice
    assert_nothing_is_left_over(store)
    assert_part_of(undisturbed.numbers, numbers(store))
    assert {row[2] for row in numbers(store)["SnapshotRow"]} == {3, 7, 12}
    assert [trial.params["epochs"] for trial in complete(store)] == [12]
    assert len(store.artifacts.notes("")) == 0


def test_students_are_trained_through_an_outage(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path, cut: Cut
) -> None:
    create(store, study(1, heartbeat_seconds=1, grace_seconds=90), 3)
    worker = workers.start("tiny", storage, tmp_path, hold=("student/", (1, 10)))
    worker.until_it_holds()
    cut(True)
    worker.let_go()
    worker.until(lambda: "waiting up to 60 s for the database" in worker.said)
    cut(False)
    worker.ends_well()
    assert_goes_on({}, worker.steps)
    assert_nothing_is_left_over(store)
    assert_part_of(undisturbed.numbers, numbers(store))
    assert [trial.params["epochs"] for trial in complete(store)] == [3]


def test_an_outage_that_is_too_long_ends_the_worker_with_its_teacher_saved(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path, cut: Cut
) -> None:
    create(store, study(1, heartbeat_seconds=1, grace_seconds=3), 12)
    worker = workers.start("tiny", storage, tmp_path, hold=(TEACHERS, (1, 30)))
    worker.until_it_holds()
    cut(True)
    worker.let_go()
    worker.until_it_has_ended()
    assert worker.events[-1].place == (1, 0), worker.said
    assert worker.said.splitlines()[-1].startswith("error: the database does not answer"), worker.said
    assert "Traceback" not in worker.said
    cut(False)
    (note,) = store.artifacts.notes("")
    assert note.startswith("trajectory-")
    trained = [step for step in worker.steps if step.is_of_teacher]
    assert trained[-1].place[0] == 11

    other = workers.start("tiny", storage, tmp_path)
    other.ends_well()
    assert [step for step in other.steps if step.is_of_teacher] == [], "the whole teacher was left behind"
    assert_nothing_is_left_over(store)
    assert_part_of(undisturbed.numbers, numbers(store))
    assert store.artifacts.notes("") == []
    assert [trial.params["epochs"] for trial in complete(store)] == [12]


def test_artifacts_that_cannot_be_written_for_a_while_cost_nothing(
    undisturbed: Undisturbed, workers: Workers, storage: str, store: Store, tmp_path: Path
) -> None:
    create(store, study(1, heartbeat_seconds=1, grace_seconds=90), 12)
    worker = workers.start("tiny", storage, tmp_path, hold=(TEACHERS, (1, 30)))
    worker.until_it_holds()
    blobs = tmp_path / "artifacts" / "blobs"
    blobs.rename(tmp_path / "away")
    blobs.touch()  # where a folder should be
    worker.let_go()
    worker.until(lambda: "waiting up to 60 s for the artifacts" in worker.said)
    assert "held until it can be delivered, training goes on" in worker.said
    assert [step.place[0] for step in worker.steps if step.is_of_teacher][-1] == 11
    blobs.unlink()
    (tmp_path / "away").rename(blobs)
    worker.ends_well()
    assert "Traceback" not in worker.said
    assert_goes_on({}, worker.steps)
    assert_nothing_is_left_over(store)
    assert_part_of(undisturbed.numbers, numbers(store))
    assert [trial.params["epochs"] for trial in complete(store)] == [12]
