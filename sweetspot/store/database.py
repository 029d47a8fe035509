"""The one place that sets engine options and creates the schema: Optuna's storage and our tables on one engine."""

import logging
import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudyModel, TrialHeartbeatModel, TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, delete, event, func, insert, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from sweetspot.config import RunConfig
from sweetspot.errors import UserError
from sweetspot.store.filesystem import network_file_system
from sweetspot.store.migrations import migrate
from sweetspot.store.outage import DatabaseDownError, Outages, outlasting
from sweetspot.store.schema import VERSION, Base, SchemaVersion, StudyRow
from sweetspot.store.trials import read_trials
from sweetspot.store.url import full, shown
from sweetspot.timing import span

_log = logging.getLogger(__name__)
_BUSY_SECONDS = 60
_SQLITE_DOWN = ("locked", "busy", "disk I/O error", "unable to open", "disk is full", "readonly")
_CONNECT_SECONDS = 10
_SILENT_SECONDS = 20
_compatible: set[str] = set()
"""Versions of Optuna's tables that this Optuna has been seen to know: to look, it runs the files of all migrations."""

T = TypeVar("T")


class Storage(RDBStorage):
    """Optuna's storage that outlasts outages: its calls wait for the database, and heartbeats go on after them.

    Args:
        url: of the database.
        run: heartbeat and grace period; None: no heartbeats.
    """

    def __init__(self, url: URL, run: RunConfig | None) -> None:
        self.outages = Outages(
            "database", _why_down, lambda error, waited: DatabaseDownError(_down(url, error, waited))
        )
        super().__init__(
            full(url).replace("{", "{{").replace("}", "}}"),  # Optuna takes the URL for a format string
            _engine_options(url),
            skip_compatibility_check=True,  # it is done below
            heartbeat_interval=run.heartbeat_seconds if run else None,
            grace_period=run.grace_seconds if run else None,
        )
        if (found := self.get_current_version()) not in _compatible:
            self._version_manager.check_table_schema_compatibility()
            _compatible.add(found)
        if url.get_backend_name() == "postgresql":
            event.listen(self.engine, "connect", _prepare_postgresql)
            self.remove_session()
            self.engine.dispose()  # Optuna has connected before

    def record_heartbeat(self, trial_id: int) -> None:
        """As in Optuna, but an error is logged: raised, it would end the heartbeat's thread for good."""
        try:
            super().record_heartbeat(trial_id)  # type: ignore[no-untyped-call,unused-ignore]
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            _log.info("heartbeat of trial %d not recorded, will retry: %s", trial_id, type(error).__name__)

    def silent_trial_ids(self, study_id: int) -> list[int]:
        """The running trials of a study whose heartbeat has stood still for longer than the grace period."""
        return self._stale_trial_ids(study_id) if self.heartbeat_interval is not None else []

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """None: Optuna asks before each trial and fails them for good; whoever claims gives them back instead."""
        return []

    @outlasting
    def _stale_trial_ids(self, study_id: int) -> list[int]:
        """As in Optuna, but by columns, and with those of which no heartbeat was ever recorded."""
        trial, beat = TrialModel, TrialHeartbeatModel
        last_heard = func.coalesce(beat.heartbeat, trial._datetime_start_utc)
        running = select(trial.trial_id, last_heard).outerjoin(beat, beat.trial_id == trial.trial_id)
        running = running.where(trial.study_id == study_id, trial.state == TrialState.RUNNING)
        grace = timedelta(seconds=self.grace_period or 0)
        with self.engine.connect() as connection:
            now = connection.scalar(select(func.now())).replace(tzinfo=None)  # type: ignore[union-attr]
            return [trial_id for trial_id, last in connection.execute(running) if last and now - last > grace]

    @outlasting
    def _get_trials(
        self, study_id: int, states: Any, included_trial_ids: set[int], trial_id_greater_than: int
    ) -> list[FrozenTrial]:
        with self.engine.connect() as connection:
            return read_trials(connection, study_id, states, included_trial_ids, trial_id_greater_than)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As in Optuna; a result whose acknowledgement was lost in an outage is found delivered."""
        tries = 0

        def tell() -> bool:
            nonlocal tries
            tries += 1
            try:
                done = super(Storage, self).set_trial_state_values(trial_id, state, values)
                if done or tries == 1 or state != TrialState.RUNNING:
                    return done
                # Under the claim nobody else takes a waiting trial: one that runs, and is nobody's yet, is ours.
                there = super(Storage, self).get_trial(trial_id)
                return there.state == TrialState.RUNNING and "worker" not in there.user_attrs
            except optuna.exceptions.UpdateFinishedTrialError:
                if tries == 1:
                    raise
                there = super(Storage, self).get_trial(trial_id)
                if there.state != state or (values is not None and list(values) != there.values):
                    raise
                return True

        return self.outages.outlast(tell)


# A trial that is created twice because an acknowledgement was lost is found and mended under the next claim.
for _name in (
    "delete_study", "get_all_studies", "get_all_trials", "get_study_directions", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_system_attrs", "get_study_user_attrs", "get_trial", "get_trial_param",
    "get_trial_id_from_study_id_trial_number", "get_trial_system_attrs", "get_trial_user_attrs",
    "set_study_system_attr", "set_study_user_attr", "set_trial_intermediate_value", "set_trial_param",
    "set_trial_system_attr", "set_trial_user_attr",
    "_create_new_trial", "_get_best_trial_id", "_set_trial_param",
):  # fmt: skip
    setattr(Storage, _name, outlasting(getattr(RDBStorage, _name)))


class Database:
    """Optuna's storage and our tables in one relational database.

    Use it from one process; open it again in a child. Sessions may be used from several threads, one each.
    """

    def __init__(self, url: URL, storage: Storage) -> None:
        self.url = url
        self.storage = storage
        self.engine = storage.engine
        self.outages = storage.outages
        self.session: sessionmaker[Session] = sessionmaker(self.engine, expire_on_commit=False)

    def close(self) -> None:
        self.storage.remove_session()
        self.engine.dispose()

    @outlasting
    def study_names(self, beginning: str) -> list[str]:
        """The names of the Optuna studies that begin so, sorted.

        Optuna's own listing reads all that dashboards show of every study with them.
        """
        column = StudyModel.study_name
        with self.session() as session:
            names = session.scalars(select(column).where(column.startswith(beginning, autoescape=True)))
            return sorted(name for name in names if name.startswith(beginning))  # databases may ignore case

    def has_study(self, name: str) -> bool:
        """Whether there is an Optuna study of this name."""
        return name in self.study_names(name)


def open_database(url: URL, run: RunConfig | None = None) -> Database:
    """Connect, creating the schema where it is missing; many processes may do so at once.

    Args:
        url: from :func:`sweetspot.store.url.database_url`.
        run: heartbeat and grace period of the study whose trials are run; without it no heartbeats are recorded.

    Raises:
        UserError: if the database cannot be reached, belongs to a newer version, or is an SQLite file on a network file
            system.
    """
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).parent
        if (kind := network_file_system(folder)) is not None:
            raise UserError(
                f"SQLite does not work on a network file system ({folder} is {kind}): its locks are not kept there, "
                "and the file is damaged sooner or later; use PostgreSQL (--storage postgresql://…), or a disk of this "
                "machine"
            )
    with span("database"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = _retried(url, lambda: Storage(url, run))
        database = Database(url, storage)
        try:
            _retried(url, lambda: _create_schema(database))
        except UserError:
            database.close()
            raise
    return database


def _engine_options(url: URL) -> dict[str, Any]:
    # A worker needs one connection; the threads of its heartbeat, pulse and leases a second, and a third now and then.
    # The second is kept: opened anew, twice a trial, it cost a fifth of the database's CPU seconds.
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 2}
    if url.get_backend_name() == "sqlite":
        return options | {"creator": lambda: _connect_sqlite(str(url.database))}
    # All four threads of a worker may be waiting for a database that is cut off.
    options |= {"pool_timeout": 4 * _CONNECT_SECONDS, "connect_args": {"connect_timeout": _CONNECT_SECONDS}}
    if url.get_backend_name() == "postgresql":
        # A connection that is cut without a word is noticed in seconds, not in the two hours of the system's default.
        options["connect_args"] |= {
            "keepalives": 1,
            "keepalives_idle": _CONNECT_SECONDS,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 1000 * _SILENT_SECONDS,
        }
    return options


def _prepare_postgresql(connection: Any, _: object) -> None:
    """Heartbeats are stored in the session's local time, which must not be put forward in spring.

    And a worker that is stopped, or whose machine is gone, in the midst of a transaction must not keep a row for ever.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_SILENT_SECONDS}s'")
        for name, value in (("idle", _CONNECT_SECONDS), ("interval", 5), ("count", 3)):
            cursor.execute(f"SET tcp_keepalives_{name} = {value}")
    connection.commit()


def _connect_sqlite(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _retried(url: URL, create: Callable[[], T], seconds: float = 20.0) -> T:
    """``create()``, again where another process creates the same tables at the same moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return create()
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if not _is_race(error) or time.monotonic() > deadline:
                raise _unreachable(url, error) from None
        except optuna.exceptions.StorageInternalError as error:
            if time.monotonic() > deadline:
                raise _unreachable(url, error) from None
        except (SQLAlchemyError, ImportError, sqlite3.Error) as error:
            raise _unreachable(url, error) from None
        except RuntimeError as error:  # Optuna: the tables belong to another version of Optuna
            raise UserError(f"the database {shown(url)} cannot be used: {_first_line(error)}") from None
        time.sleep(random.uniform(0.05, 0.3))


def _is_race(error: SQLAlchemyError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("already exists", "duplicate", "unique", "locked", "no such table"))


def _unreachable(url: URL, error: Exception) -> UserError:
    if isinstance(error, ImportError | NoSuchModuleError):
        return UserError(f"the database {shown(url)} needs a driver that is not installed: {_first_line(error)}")
    hint = "is the server running, and are host, user, password and database right?"
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).parent
        hint = f"may you write in {folder}?" if folder.is_dir() else f"there is no folder {folder}"
    cause = getattr(error, "orig", None) or error
    reason = _without_password(url, _first_line(cause))
    return UserError(f"cannot open the database {shown(url)} ({reason}): {hint}")


def _why_down(error: Exception) -> str | None:
    """Why a database does not answer; None for an error that says something else."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    if isinstance(cause, PendingRollbackError):  # Optuna asks again on a connection that was cut
        return "the connection to the database was cut"
    if isinstance(cause, PoolTimeoutError):
        return "every connection waits for the database"
    if not isinstance(cause, DBAPIError):
        return None
    original = cause.orig or cause
    if isinstance(original, sqlite3.Error):
        is_down = any(word in str(original) for word in _SQLITE_DOWN)
    else:
        is_down = cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)
        # A server that has become a standby is read-only until clients find the new one.
        # 25P03: this worker was stopped in the midst of a transaction, which the server has ended.
        is_down = is_down or getattr(original, "sqlstate", None) in ("25006", "25P03")
    return f"the database does not answer ({_first_line(original)})" if is_down else None


def _down(url: URL, error: Exception, waited: float) -> str:
    why = _without_password(url, _why_down(error) or "")
    for_long = f" and has not for {waited:.0f} s" if waited > 1 else ""
    return f"{why}{for_long}: {shown(url)}; the same command continues"


def _without_password(url: URL, text: str) -> str:
    return text.replace(str(url.password), "***") if url.password else text


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _create_schema(database: Database) -> None:
    """Create or migrate our tables, one process at a time."""
    with database.engine.connect() as connection:
        if _version(connection) == VERSION:
            return
        connection.rollback()
        _lock_schema(connection)
        try:
            found = _version(connection)
            if found is not None and found > VERSION:
                raise UserError(
                    f"the database {shown(database.url)} was made by a newer sweetspot (schema {found}, "
                    f"this one knows {VERSION}): update sweetspot"
                )
            if found is not None:
                migrate(connection, found, VERSION)
            Base.metadata.create_all(connection)
            connection.execute(delete(SchemaVersion))
            connection.execute(insert(SchemaVersion).values(version=VERSION))
            connection.commit()
        finally:
            _unlock_schema(connection)


def _version(connection: Connection) -> int | None:
    """The version of our tables; None where there are none."""
    there = inspect(connection)
    if not there.has_table(SchemaVersion.__tablename__):
        return None
    found = connection.scalar(select(SchemaVersion.version))
    if found is None and there.has_table(StudyRow.__tablename__):
        return 1  # its process died between the tables and the row
    return found


_SCHEMA_LOCK = 0x5377656574  # "Sweet"


def _lock_schema(connection: Connection) -> None:
    """Wait until no other process creates or migrates our tables; held until :func:`_unlock_schema`."""
    match connection.dialect.name:
        case "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        case "postgresql":
            connection.execute(select(func.pg_advisory_lock(_SCHEMA_LOCK)))
        case _:  # MySQL and MariaDB
            if connection.scalar(select(func.get_lock("sweetspot_schema", _BUSY_SECONDS))) != 1:
                raise UserError("another process has been changing the database's tables for a minute: try again")


def _unlock_schema(connection: Connection) -> None:
    connection.rollback()  # nothing where all went well: it is committed
    match connection.dialect.name:
        case "sqlite":
            pass
        case "postgresql":
            connection.execute(select(func.pg_advisory_unlock(_SCHEMA_LOCK)))
        case _:
            connection.execute(select(func.release_lock("sweetspot_schema")))
