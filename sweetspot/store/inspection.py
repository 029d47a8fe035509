"""A look at a database that makes nothing, changes nothing, and waits for nobody."""

import sqlite3
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, create_engine, func, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from sweetspot.store.checkpoints import used_blobs
from sweetspot.store.database import _engine_options, _unreachable, _version
from sweetspot.store.schema import VERSION, ArtifactsRow, StudyRow
from sweetspot.store.url import full

_ROUND_TRIPS = 5
_LOCKED_SECONDS = 5.0
_OPTUNAS_VERSION = "version_info"


@dataclass(frozen=True)
class Inspection:
    """What was found in a database that answers.

    Attributes:
        server: its kind and version, for people.
        schema: the version of our tables; None: there are none.
        unwritable: why nothing can be written into it; None if something can.
        optuna: why Optuna refuses its tables; None if it does not, or there are none.
        round_trip: seconds, the median of a few.
        clock_ahead: by so many seconds the server's clock is ahead of this machine's; None: it has none of its own.
        studies: how many there are.
        artifacts: the id that its artifacts carry; None before it has any.
        has_blobs: whether its rows refer to any.
    """

    server: str
    schema: int | None
    unwritable: str | None
    optuna: str | None
    round_trip: float
    clock_ahead: float | None
    studies: int = 0
    artifacts: str | None = None
    has_blobs: bool = False


def inspect_database(url: URL) -> Inspection:
    """Look at a database. An SQLite file that is not there is an error here, and stays away.

    Raises:
        UserError: if it cannot be reached.
    """
    try:
        engine = _engine(url)
        try:
            with engine.connect() as connection:
                return _inspection(url, engine, connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError, sqlite3.Error) as error:
        raise _unreachable(url, error) from None


def _engine(url: URL) -> Engine:
    options = _engine_options(url)
    if url.get_backend_name() == "sqlite":
        # Neither made, nor made another kind of file.
        address = f"file:{quote(str(url.database))}?mode=rw"
        options |= {"creator": lambda: sqlite3.connect(address, uri=True, timeout=_LOCKED_SECONDS)}
    return create_engine(full(url), **options)


def _inspection(url: URL, engine: Engine, connection: Connection) -> Inspection:
    schema = _version(connection)
    round_trip, clock_ahead = _times(connection)
    of_ours: dict[str, Any] = {}
    if schema == VERSION:
        with Session(connection) as session:
            row = session.get(ArtifactsRow, 1)
            of_ours = {
                "studies": session.scalar(select(func.count()).select_from(StudyRow)) or 0,
                "artifacts": row.database if row is not None else None,
                "has_blobs": bool(used_blobs(session)),
            }
    connection.rollback()
    return Inspection(
        server=_server(connection),
        schema=schema,
        unwritable=_unwritable(connection, schema),
        optuna=_refused_by_optuna(url, connection),
        round_trip=round_trip,
        clock_ahead=clock_ahead,
        **of_ours,
    )


def _server(connection: Connection) -> str:
    names = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}
    version = connection.dialect.server_version_info or ()
    name = names.get(connection.dialect.name, connection.dialect.name)
    return f"{name} {'.'.join(str(part) for part in version)}".strip()


def _times(connection: Connection) -> tuple[float, float | None]:
    """Seconds of a round trip; and by how many the server's clock is ahead."""
    trips, ahead = [], []
    is_postgresql = connection.dialect.name == "postgresql"
    query = text("SELECT extract(epoch FROM clock_timestamp())" if is_postgresql else "SELECT 1")
    for _ in range(_ROUND_TRIPS):
        here, began = time.time(), time.monotonic()
        there = connection.scalar(query)
        trips.append(time.monotonic() - began)
        ahead.append(float(there or 0) - here - trips[-1] / 2)
    return median(trips), median(ahead) if is_postgresql else None


def _unwritable(connection: Connection, schema: int | None) -> str | None:
    """Why nothing can be written, tried without writing."""
    match connection.dialect.name:
        case "sqlite":
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except SQLAlchemyError as error:
                return str(getattr(error, "orig", None) or error)
            finally:
                connection.rollback()
        case "postgresql":
            if connection.scalar(text("SHOW transaction_read_only")) == "on":
                return "it is read-only, as a standby is"
            may = "has_schema_privilege(current_schema(), 'CREATE')"
            if schema is not None:
                may = "has_table_privilege('sweetspot_study', 'INSERT, UPDATE, DELETE')"
            if not connection.scalar(text(f"SELECT {may}")):
                return "this user may not " + ("make tables there" if schema is None else "write into its tables")
    return None


def _refused_by_optuna(url: URL, connection: Connection) -> str | None:
    there = inspect(connection).has_table(_OPTUNAS_VERSION)
    connection.rollback()
    if not there:
        return None
    options = _engine_options(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            address = full(url).replace("{", "{{").replace("}", "}}")  # Optuna takes the URL for a format string
            storage = RDBStorage(address, options, skip_table_creation=True)
        except RuntimeError as error:
            return str(error).splitlines()[0]
    storage.remove_session()
    storage.engine.dispose()
    return None


def exists(url: URL) -> bool:
    """Whether there may be a database: False for an SQLite file that is not there."""
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).exists()
