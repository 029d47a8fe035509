"""What Optuna 5's storages do that others did not expect: that they still do, and that ours does not suffer from it.

One test per trap; those of studies and samplers are in
tests/study/test_optuna_traps.py. Where a test of Optuna's behaviour fails after an upgrade, the trap is gone or has
changed: look at our answer to it. Tested elsewhere:

- ten processes open an empty database at once, SQLite and PostgreSQL: tests/store/test_database.py
- our engine replaces a connection that the server cut; pool and SQLite options: tests/store/test_database.py
- a heartbeat fails and the next is recorded, call by call: tests/store/test_database.py
- a trial that fell silent on another machine is found and given back: tests/study/test_confirmation.py
- workers that are killed or stopped: tests/workers/test_killed.py; that they are processes of their own, never forks:
  tests/workers/test_optimize.py
"""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from wsgiref.util import setup_testing_defaults

import optuna
import psycopg
import pytest
from optuna.storages import GrpcStorageProxy, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages import fail_stale_trials as fail_stale
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages._rdb.models import BaseModel
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from sweetspot.config import RunConfig
from sweetspot.store import Store
from sweetspot.store.database import Database, open_database
from sweetspot.store.schema import WorkerRow
from sweetspot.store.url import database_url, full

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage")

T = TypeVar("T")
OpenOptunas = Callable[..., RDBStorage]
OpenOurs = Callable[[str], Database]
RUN = RunConfig(heartbeat_seconds=1, grace_seconds=60)


@pytest.fixture
def optunas() -> Iterator[OpenOptunas]:
    """Opens Optuna's own storage, as one would without us."""
    with ExitStack() as stack:

        def open_one(storage: str, engine: dict[str, Any] | None = None, **options: Any) -> RDBStorage:
            opened = RDBStorage(full(database_url(storage)), engine, **options)
            stack.callback(opened.engine.dispose)
            stack.callback(opened.remove_session)
            return opened

        yield open_one


@pytest.fixture
def ours() -> Iterator[OpenOurs]:
    """Opens our storage, with heartbeats."""
    with ExitStack() as stack:

        def open_one(storage: str) -> Database:
            database = open_database(database_url(storage), RUN)
            stack.callback(database.close)
            return database

        yield open_one


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of an empty SQLite database."""
    return f"sqlite:///{tmp_path}/study.db"


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def let_beats_age(engine: Engine) -> None:
    """As if every worker had been silent for decades."""
    with engine.begin() as connection:
        connection.execute(text("update trial_heartbeats set heartbeat = '2000-01-01 00:00:00'"))


def beating(engine: Engine) -> list[int]:
    """The ids of the trials that have a heartbeat."""
    with engine.connect() as connection:
        return list(connection.scalars(text("select trial_id from trial_heartbeats")))


# -- finished trials --------------------------------------------------------------------------------------------------


def test_a_finished_trial_takes_no_attribute_no_report_and_no_artifact(
    sqlite: str, optunas: OpenOptunas, tmp_path: Path
) -> None:
    study = optuna.create_study(storage=optunas(sqlite))
    trial = study.ask()
    study.tell(trial, 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("late", 1)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.report(0.5, 1)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    artifacts = optuna.artifacts.FileSystemArtifactStore(tmp_path)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        optuna.artifacts.upload_artifact(
            study_or_trial=trial, file_path=str(tmp_path / "picture.png"), artifact_store=artifacts
        )


# -- heartbeats -------------------------------------------------------------------------------------------------------


def test_optimize_alone_records_heartbeats(sqlite: str, optunas: OpenOptunas) -> None:
    storage = optunas(sqlite, heartbeat_interval=60)
    study = optuna.create_study(storage=storage)
    study.tell(study.ask(), 0.5)
    assert beating(storage.engine) == []
    study.optimize(lambda trial: 0.5, n_trials=1)
    assert beating(storage.engine) == [study.trials[1]._trial_id]


def test_no_other_shared_storage_has_heartbeats(sqlite: str, ours: OpenOurs, tmp_path: Path) -> None:
    assert not isinstance(JournalStorage(JournalFileBackend(str(tmp_path / "journal.log"))), BaseHeartbeat)
    assert not issubclass(GrpcStorageProxy, BaseHeartbeat)
    assert isinstance(ours(sqlite).storage, BaseHeartbeat)


def test_a_running_trial_without_a_heartbeat_never_becomes_stale(sqlite: str, optunas: OpenOptunas) -> None:
    """As a worker leaves it that died between asking and the first beat. Ours: see tests/study/test_optuna_traps.py."""
    storage = optunas(sqlite, heartbeat_interval=1, grace_period=1)
    study = optuna.create_study(storage=storage)
    silent, unheard = study.ask(), study.ask()
    storage.record_heartbeat(silent._trial_id)
    let_beats_age(storage.engine)
    with storage.engine.begin() as connection:
        connection.execute(text("update trials set datetime_start = '2000-01-01 00:00:00'"))
    fail_stale(study)
    assert states(study) == ["FAIL", "RUNNING"]
    assert unheard.number == 1


@pytest.fixture
def retrying(sqlite: str, optunas: OpenOptunas) -> RDBStorage:
    """A storage with all that Optuna has against lost trials."""
    retry = RetryHeartbeatStaleTrialCallback()
    return optunas(sqlite, heartbeat_interval=60, grace_period=120, heartbeat_stale_trial_callback=retry)


def test_a_stale_trial_is_retried(retrying: RDBStorage) -> None:
    study = optuna.create_study(storage=retrying)
    trial = study.ask()
    trial.suggest_int("epochs", 1, 9)
    retrying.record_heartbeat(trial._trial_id)
    fail_stale(study)
    assert states(study) == ["RUNNING"]
    let_beats_age(retrying.engine)
    fail_stale(study)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].params == trial.params


@pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt])
def test_a_trial_that_raised_fails_and_is_never_retried(retrying: RDBStorage, ending: type[BaseException]) -> None:
    def objective(trial: optuna.Trial) -> float:
        raise ending

    study = optuna.create_study(storage=retrying)
    with pytest.raises(ending):
        study.optimize(objective, n_trials=1)
    let_beats_age(retrying.engine)
    fail_stale(study)
    assert states(study) == ["FAIL"]


def test_a_trial_that_exits_runs_on_until_its_heartbeat_is_old(retrying: RDBStorage) -> None:
    """Unlike one that raised it is retried then; without heartbeats it would run for ever."""

    def objective(trial: optuna.Trial) -> float:
        raise SystemExit

    study = optuna.create_study(storage=retrying)
    with pytest.raises(SystemExit):
        study.optimize(objective, n_trials=1)
    fail_stale(study)
    assert states(study) == ["RUNNING"]
    let_beats_age(retrying.engine)
    fail_stale(study)
    assert states(study) == ["FAIL", "WAITING"]


def test_a_trial_set_back_to_waiting_trips_an_assertion_and_is_stale_when_it_is_taken_again(
    sqlite: str, optunas: OpenOptunas
) -> None:
    """Therefore ours fails it and adds a copy: see tests/study/test_optuna_traps.py."""

    def objective(trial: optuna.Trial) -> float:
        trial.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)
        return 0.5

    storage = optunas(sqlite, heartbeat_interval=60, grace_period=120)
    study = optuna.create_study(storage=storage)
    with pytest.raises(AssertionError, match="Should not reach"):
        study.optimize(objective, n_trials=1, catch=(Exception,))
    assert states(study) == ["WAITING"]
    let_beats_age(storage.engine)
    assert study.ask().number == 0
    fail_stale(study)
    assert states(study) == ["FAIL"]


# -- heartbeats and a database that does not answer -------------------------------------------------------------------


@contextmanager
def outage(url: str) -> Iterator[None]:
    """PostgreSQL cuts every connection to a database, and takes no new one."""
    name = make_url(url).database
    with psycopg.connect(url.replace(f"/{name}?", "/postgres?"), autocommit=True) as server:
        server.execute(f'alter database "{name}" allow_connections false')
        try:
            cut = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = %s"
            assert server.execute(cut, [name]).fetchall()
            yield
        finally:
            server.execute(f'alter database "{name}" allow_connections true')


def until(holds: Callable[[], object]) -> None:
    """The test's time limit ends it otherwise."""
    while not holds():
        time.sleep(0.02)


def heartbeat_thread() -> threading.Thread:
    (thread,) = [thread for thread in threading.enumerate() if "_record_heartbeat" in thread.name]
    return thread


def last_beat(url: str) -> datetime | None:
    with psycopg.connect(url) as connection:
        row = connection.execute("select heartbeat from trial_heartbeats").fetchone()
    return row[0] if row else None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_database_error_ends_optunas_heartbeat_for_good(postgresql: str, optunas: OpenOptunas) -> None:
    def objective(trial: optuna.Trial) -> float:
        until(lambda: last_beat(postgresql))
        thread = heartbeat_thread()
        with outage(postgresql):
            until(lambda: not thread.is_alive())
        return 0.5

    study = optuna.create_study(storage=optunas(postgresql, {"pool_pre_ping": True}, heartbeat_interval=1))
    study.optimize(objective, n_trials=1)
    assert states(study) == ["COMPLETE"], "nobody was told: any other worker could have failed it"


def test_our_heartbeat_goes_on_after_an_outage(postgresql: str, ours: OpenOurs) -> None:
    database = ours(postgresql)
    errors: list[str] = []
    event.listen(database.engine, "handle_error", lambda context: errors.append(str(context.original_exception)))

    def objective(trial: optuna.Trial) -> float:
        until(lambda: last_beat(postgresql))
        thread = heartbeat_thread()
        with outage(postgresql):
            until(lambda: any("not currently accepting connections" in error for error in errors))
        before = last_beat(postgresql)
        until(lambda: last_beat(postgresql) != before or not thread.is_alive())
        assert thread.is_alive()
        return 0.5

    study = optuna.create_study(storage=database.storage)
    study.optimize(objective, n_trials=1)
    assert states(study) == ["COMPLETE"]


# -- creating the schema ----------------------------------------------------------------------------------------------


def opened_meanwhile(engine: Engine, open_one: Callable[[], T]) -> "Future[T]":
    """What comes of opening a database in which another process has created Optuna's tables but not yet committed."""
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        BaseModel.metadata.create_all(first)
        second = pool.submit(open_one)
        until(lambda: first.scalar(text("select count(*) from pg_locks where not granted")) or second.done())
        assert not second.done(), "it waits for the first"
        first.commit()
        second.exception()
        return second


@pytest.fixture
def engine(postgresql: str) -> Iterator[Engine]:
    """A connection pool of a third party."""
    created = create_engine(full(database_url(postgresql)))
    yield created
    created.dispose()


def test_who_creates_optunas_tables_while_another_does_dies_of_it(
    postgresql: str, engine: Engine, optunas: OpenOptunas
) -> None:
    """Likewise with ten at once, but then by chance."""
    second = opened_meanwhile(engine, lambda: optunas(postgresql))
    assert isinstance(second.exception(), IntegrityError)


def test_ours_waits_for_the_other_and_opens_what_it_created(postgresql: str, engine: Engine, ours: OpenOurs) -> None:
    second = opened_meanwhile(engine, lambda: ours(postgresql))
    assert optuna.get_all_study_names(second.result().storage) == []


# -- connections ------------------------------------------------------------------------------------------------------


def cut_connections(url: str) -> None:
    """As a server or a firewall does that finds them idle."""
    with psycopg.connect(url) as connection:
        others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        assert connection.execute(f"select pg_terminate_backend(pid, 10000) {others}").fetchall()


def test_a_trial_cannot_be_told_over_a_connection_that_was_cut_while_it_trained(
    postgresql: str, optunas: OpenOptunas
) -> None:
    study = optuna.create_study(storage=optunas(postgresql))
    trial = study.ask()
    cut_connections(postgresql)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        study.tell(trial, 0.5)


def test_ours_replaces_the_connection_and_tells_the_trial(postgresql: str, ours: OpenOurs) -> None:
    study = optuna.create_study(storage=ours(postgresql).storage)
    trial = study.ask()
    cut_connections(postgresql)
    study.tell(trial, 0.5)
    assert states(study) == ["COMPLETE"]


def test_a_forked_process_speaks_over_its_parents_connection(postgresql: str, ours: OpenOurs) -> None:
    """Two processes then read each other's answers: a worker is a process of its own, or spawned."""
    database = ours(postgresql)

    def backend() -> int:
        with database.engine.connect() as connection:
            return int(connection.scalar(text("select pg_backend_pid()")) or 0)

    receiver, sender = multiprocessing.Pipe(duplex=False)
    of_parent = backend()
    child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(backend()))
    child.start()
    sender.close()
    assert receiver.recv() == of_parent
    child.join()


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of Greenwich, where clocks are 14 hours ahead of UTC."""
    monkeypatch.setenv("TZ", "East-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.usefixtures("far_east")
def test_times_are_stored_in_utc_and_read_in_local_time(storage: str, ours: OpenOurs) -> None:
    database = ours(storage)
    study = optuna.create_study(storage=database.storage)
    before = utc(), datetime.now()
    study.ask()
    after = utc(), datetime.now()
    with database.engine.connect() as connection:
        stored = connection.scalar(text("select datetime_start from trials"))
    assert before[0] <= datetime.fromisoformat(str(stored)) <= after[0]
    read = study.trials[0].datetime_start
    assert read is not None
    assert before[1] <= read <= after[1]


@pytest.mark.usefixtures("far_east")
def test_our_times_are_utc_too_and_read_as_stored(open_store: Callable[[], Store]) -> None:
    store = open_store()
    before = utc()
    worker = store.workers.register("cpu")
    after = utc()
    with store.database.session() as session:
        row = session.get(WorkerRow, worker)
    assert row is not None
    assert before <= row.last_seen <= after


def shift_clocks(url: str, to: str) -> None:
    """As daylight saving time does, where the server's time zone is that of a place."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter database \"{make_url(url).database}\" set timezone to '{to}'")


def test_optuna_takes_a_living_trial_for_stale_when_a_postgresqls_clock_is_put_forward(
    postgresql: str, optunas: OpenOptunas
) -> None:
    """A heartbeat is the server's local time, without a zone."""
    shift_clocks(postgresql, "Etc/GMT-1")
    storage = optunas(postgresql, heartbeat_interval=60, grace_period=900)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    shift_clocks(postgresql, "Etc/GMT-2")
    storage.engine.dispose()  # a connection keeps the zone that it began with, but not daylight saving time
    fail_stale(study)
    assert states(study) == ["FAIL"]


def test_ours_keeps_a_living_trial_when_a_postgresqls_clock_is_put_forward(postgresql: str, ours: OpenOurs) -> None:
    shift_clocks(postgresql, "Etc/GMT-1")
    database = ours(postgresql)
    study = optuna.create_study(storage=database.storage)
    trial = study.ask()
    database.storage.record_heartbeat(trial._trial_id)
    shift_clocks(postgresql, "Etc/GMT-2")
    database.engine.dispose()
    assert database.storage.silent_trial_ids(study._study_id) == []
    let_beats_age(database.engine)
    assert database.storage.silent_trial_ids(study._study_id) == [trial._trial_id]


# -- optuna-dashboard -------------------------------------------------------------------------------------------------


def test_a_figure_for_the_dashboard_is_stored_in_slices_of_2_kilobytes(sqlite: str, ours: OpenOurs) -> None:
    from optuna_dashboard import save_plotly_graph_object
    from plotly.graph_objects import Figure

    study = optuna.create_study(storage=ours(sqlite).storage)
    figure = Figure().add_scatter(y=list(range(3000)))
    save_plotly_graph_object(study, figure, graph_object_id="sweet-spot")
    slices = study._storage.get_study_system_attrs(study._study_id).values()
    assert sum(map(len, slices)) == len(figure.to_json())
    assert len(slices) == -(-len(figure.to_json()) // 2045) > 5


def test_the_dashboard_lets_strangers_of_any_host_delete_a_study(sqlite: str, ours: OpenOurs) -> None:
    from optuna_dashboard import wsgi

    storage = ours(sqlite).storage
    optuna.create_study(study_name="years of work", storage=storage)
    app = wsgi(storage)
    status: list[str] = []

    def ask(method: str) -> str:
        environment = {"REQUEST_METHOD": method, "PATH_INFO": "/api/studies/1", "HTTP_HOST": "stranger.example"}
        setup_testing_defaults(environment)
        b"".join(app(environment, lambda line, headers, error=None: status.append(line)))
        return status[-1][:3]

    assert [ask("GET"), ask("DELETE"), ask("GET")] == ["200", "204", "404"]
    assert optuna.get_all_study_names(storage) == []
