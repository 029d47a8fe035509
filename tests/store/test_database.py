import logging
import multiprocessing
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
import pytest
from sqlalchemy import func, inspect, select, text, update

from sweetspot.config import RunConfig
from sweetspot.errors import UserError
from sweetspot.store.database import Database, open_database
from sweetspot.store.outage import patience
from sweetspot.store.schema import VERSION, Base, SchemaVersion
from sweetspot.store.url import database_url, full

Open = Callable[[], Database]


@pytest.fixture
def open_(storage: str) -> Iterator[Open]:
    """Opens the database of this test once more, with heartbeats."""
    run = RunConfig(heartbeat_seconds=15, grace_seconds=900)
    with ExitStack() as stack:

        def open_one() -> Database:
            database = open_database(database_url(storage), run)
            stack.callback(database.close)
            return database

        yield open_one


# -- creating ---------------------------------------------------------------------------------------------------------


def test_an_empty_database_gets_both_schemas(open_: Open) -> None:
    database = open_()
    tables = set(inspect(database.engine).get_table_names())
    assert set(Base.metadata.tables) <= tables
    assert {"studies", "trials", "trial_heartbeats"} <= tables
    with database.session() as session:
        assert session.scalars(select(SchemaVersion.version)).all() == [VERSION]


def test_opening_again_changes_nothing_and_shows_what_was_written(open_: Open) -> None:
    optuna.create_study(study_name="mine", storage=open_().storage)
    again = open_()
    assert optuna.get_all_study_names(again.storage) == ["mine"]
    with again.session() as session:
        assert session.scalar(select(func.count()).select_from(SchemaVersion)) == 1


def _open_at_once(storage: str, number: int, everybody_is_there: object, result: Connection) -> None:
    try:
        everybody_is_there.wait(120)  # type: ignore[attr-defined]
        database = open_database(database_url(storage))
        optuna.create_study(study_name=f"study {number}", storage=database.storage)
        database.close()
        result.send("")
    except BaseException as error:
        result.send(f"{type(error).__name__}: {error}")


def test_ten_processes_open_the_same_empty_database_at_once(storage: str, open_: Open) -> None:
    processes = multiprocessing.get_context("forkserver")  # which imports once what ten spawned ones import ten times
    processes.set_forkserver_preload(["sweetspot.store"])
    everybody_is_there = processes.Barrier(10)
    pipes, workers = [], []
    for number in range(10):
        receiver, sender = processes.Pipe(duplex=False)
        workers.append(
            processes.Process(target=_open_at_once, args=(storage, number, everybody_is_there, sender), daemon=True)
        )
        workers[-1].start()
        sender.close()
        pipes.append(receiver)
    results = [pipe.recv() for pipe in pipes]
    for worker in workers:
        worker.join()
    assert results == [""] * 10
    database = open_()
    assert sorted(optuna.get_all_study_names(database.storage)) == sorted(f"study {i}" for i in range(10))
    with database.session() as session:
        assert session.scalars(select(SchemaVersion.version)).all() == [VERSION]
        assert session.scalar(text("select count(*) from alembic_version")) == 1


def test_a_database_of_a_newer_version_is_refused(open_: Open) -> None:
    with open_().session.begin() as session:
        session.execute(update(SchemaVersion).values(version=VERSION + 1))
    with pytest.raises(UserError, match=rf"newer sweetspot \(schema {VERSION + 1}, this one knows {VERSION}\): update"):
        open_()


def test_a_database_of_another_optuna_is_refused_in_one_line(open_: Open) -> None:
    with open_().session.begin() as session:
        session.execute(text("update alembic_version set version_num = 'v99.0.0'"))
    with pytest.raises(UserError, match="cannot be used: The runtime optuna version") as caught:
        open_()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["with a space.db", "{curly}.db", "100%25.db", "what?.db", "ümläut.db"])
def test_any_file_name_will_do(name: str, tmp_path: Path) -> None:
    url = database_url(f"{tmp_path}/{name}")
    open_database(url).close()
    assert (tmp_path / name).is_file()
    assert database_url(full(url)) == url  # as a worker process reads it


# -- connections ------------------------------------------------------------------------------------------------------


def test_every_sqlite_connection_writes_ahead_and_syncs_at_checkpoints_only(tmp_path: Path) -> None:
    database = open_database(database_url(f"{tmp_path}/study.db"))
    with ExitStack() as stack:
        for connection in [stack.enter_context(database.engine.connect()) for _ in range(3)]:
            assert connection.scalar(text("pragma journal_mode")) == "wal"
            assert connection.scalar(text("pragma synchronous")) == 1
            assert connection.scalar(text("pragma busy_timeout")) == 60_000
    database.close()


def test_a_connection_that_the_server_cut_is_replaced(postgresql: str) -> None:
    ours, other = (open_database(database_url(postgresql)) for _ in range(2))
    with ours.engine.connect() as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
    with other.session.begin() as session:
        assert session.scalar(text("select pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    with ours.engine.connect() as connection:
        assert connection.scalar(text("select pg_backend_pid()")) != pid
    ours.close()
    other.close()


def test_our_tables_and_optunas_share_one_engine(open_: Open) -> None:
    database = open_()
    assert database.engine is database.storage.engine


# -- what cannot be opened --------------------------------------------------------------------------------------------


def _refused(url: str) -> str:
    with pytest.raises(UserError) as caught:
        open_database(database_url(url))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2@127.0.0.1:1/studies",
        "postgresql://127.0.0.1:1/studies?user=ann&password=hunter2",
        "postgresql://ann:hun%40ter2%2F%7B@127.0.0.1:1/studies",
    ],
)
def test_a_server_that_does_not_answer_gives_one_line_without_the_password(url: str) -> None:
    line = _refused(url)
    assert line.startswith("cannot open the database postgresql")
    assert "127.0.0.1:1/studies" in line
    assert "is the server running" in line
    assert "hunter2" not in line
    assert "ter2" not in line


def test_a_socket_that_is_not_there_gives_one_line(tmp_path: Path) -> None:
    assert "is the server running" in _refused(f"postgresql://ann:hunter2@/studies?host={tmp_path}")


def test_a_database_that_the_server_lacks_gives_its_one_line(postgresql: str) -> None:
    missing = postgresql.replace("postgres:@/test_", "postgres:hunter2@/no_such_")
    line = _refused(missing)
    assert "does not exist" in line
    assert "hunter2" not in line


def test_a_driver_that_is_not_installed_is_named() -> None:
    line = _refused("postgresql+psycopg2://ann:hunter2@lab/studies")
    assert "needs a driver that is not installed" in line
    assert "hunter2" not in line


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"there is no folder {tmp_path}/nowhere" in _refused(f"{tmp_path}/nowhere/study.db")


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").mkdir()
    assert f"may you write in {tmp_path}?" in _refused(f"{tmp_path}/study.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("precious notes " * 100)
    assert "file is not a database" in _refused(f"{tmp_path}/study.db")
    assert (tmp_path / "study.db").read_text() == "precious notes " * 100


# -- heartbeats -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_a_heartbeat_outlives_a_database_error(open_: Open, caplog: pytest.LogCaptureFixture) -> None:
    database = open_()
    trial = optuna.create_study(storage=database.storage).ask()
    with database.session.begin() as session:
        session.execute(text("alter table trial_heartbeats rename to hidden"))
    with caplog.at_level(logging.INFO):
        database.storage.record_heartbeat(trial._trial_id)
    assert "will retry" in caplog.text
    with database.session.begin() as session:
        session.execute(text("alter table hidden rename to trial_heartbeats"))
    database.storage.record_heartbeat(trial._trial_id)
    with database.session() as session:
        beats = session.scalars(text("select trial_id from trial_heartbeats")).all()
    assert beats == [trial._trial_id]


def test_the_heartbeat_settings_are_the_studys(storage: str) -> None:
    database = open_database(database_url(storage), RunConfig(heartbeat_seconds=7, grace_seconds=70))
    assert database.storage.get_heartbeat_interval() == 7
    assert database.storage.grace_period == 70
    database.close()


def test_without_a_study_no_heartbeats_are_recorded(storage: str) -> None:
    database = open_database(database_url(storage))
    assert database.storage.get_heartbeat_interval() is None
    database.close()


def test_a_reader_is_not_kept_waiting_by_a_writer(open_: Open, storage: str) -> None:
    writer, reader = open_(), open_()
    with writer.session() as session:
        session.execute(update(SchemaVersion).values(version=VERSION))
        with reader.session() as looking:
            assert looking.scalar(select(SchemaVersion.version)) == VERSION
        session.rollback()
    if storage.startswith("sqlite"):
        with sqlite3.connect(storage.removeprefix("sqlite:///")) as plain:
            assert plain.execute("pragma journal_mode").fetchone() == ("wal",)
        plain.close()


def test_a_worker_that_stands_still_in_a_transaction_keeps_nobody_waiting_for_ever(postgresql: str) -> None:
    """The server ends its transaction, and the worker takes that for an outage: it does its work again."""
    database = open_database(database_url(postgresql))
    try:
        with database.engine.connect() as connection:
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "20s"
            connection.rollback()
        tries = []

        def work() -> int:
            tries.append(len(tries))
            with database.engine.connect() as connection:
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
                if len(tries) == 1:
                    time.sleep(0.5)
                return int(connection.scalar(text("SELECT 7")) or 0)

        with patience(30):
            assert database.outages.outlast(work) == 7
        assert len(tries) == 2
    finally:
        database.close()
