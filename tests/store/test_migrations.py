"""A database of an older version is brought to this one, whoever opens it, and loses nothing."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, inspect, text

from sweetspot.errors import UserError
from sweetspot.store import Leases, Snapshot, Store
from sweetspot.store.schema import VERSION, Base
from sweetspot.store.url import database_url, full

RECIPE = "a" * 64

# As version 1 made them; the tables that have not changed since are left out.
VERSION_1 = """
CREATE TABLE sweetspot_schema (version INTEGER NOT NULL PRIMARY KEY);
CREATE TABLE sweetspot_recipe (
    hash VARCHAR(64) NOT NULL PRIMARY KEY, json TEXT NOT NULL, created TIMESTAMP NOT NULL);
CREATE TABLE sweetspot_snapshot (
    recipe VARCHAR(64) NOT NULL REFERENCES sweetspot_recipe (hash), branch INTEGER NOT NULL, epoch INTEGER NOT NULL,
    weights VARCHAR(64) NOT NULL, optimizer VARCHAR(64), resume_only BOOLEAN NOT NULL, created TIMESTAMP NOT NULL,
    PRIMARY KEY (recipe, branch, epoch));
INSERT INTO sweetspot_schema VALUES (1);
"""


@pytest.fixture
def version_1(storage: str) -> str:
    """The URL of a database of version 1 with a rung, and a point to resume from."""
    engine = create_engine(full(database_url(storage)))
    with engine.begin() as connection:
        for statement in VERSION_1.strip().split(";\n"):
            connection.execute(text(statement))
        connection.execute(text(f"INSERT INTO sweetspot_recipe VALUES ('{RECIPE}', '{{}}', '2026-11-01 12:00:00')"))
        for epoch, resume_only in ((10, "false"), (15, "true")):
            connection.execute(
                text(
                    f"INSERT INTO sweetspot_snapshot VALUES ('{RECIPE}', 0, {epoch}, '{epoch:064d}', '{'f' * 64}', "
                    f"{resume_only}, '2026-11-01 12:00:00')"
                )
            )
    engine.dispose()
    return storage


def test_the_snapshots_of_version_1_can_be_gone_on_from(version_1: str) -> None:
    with Store(version_1) as store:
        assert store.trajectories.snapshots(RECIPE, 0) == [
            Snapshot(RECIPE, 0, epoch, f"{epoch:064d}", "f" * 64, is_branch_point=True) for epoch in (10, 15)
        ]
        lease = Leases(store.database, "me", 60).acquire("run")
        assert lease is not None
        store.trajectories.add(Snapshot(RECIPE, 0, 20, "1" * 64), [], lease)
        columns = {c["name"] for c in inspect(store.database.engine).get_columns("sweetspot_snapshot")}
        assert columns == set(Base.metadata.tables["sweetspot_snapshot"].columns.keys())
        assert _version(store) == [VERSION]
    with Store(version_1) as store:
        assert [s.epoch for s in store.trajectories.snapshots(RECIPE, 0)] == [10, 15, 20]


def test_many_processes_migrate_at_once(version_1: str) -> None:
    def epochs(_: int) -> list[int]:
        with Store(version_1) as store:
            return [s.epoch for s in store.trajectories.snapshots(RECIPE, 0)]

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(epochs, range(6))) == [[10, 15]] * 6


def test_tables_without_a_version_are_those_of_a_process_that_died_while_it_made_them(storage: str) -> None:
    with Store(storage) as store, store.database.session.begin() as session:
        session.execute(text("DELETE FROM sweetspot_schema"))
        session.execute(text("DROP TABLE sweetspot_checkpoint"))
        for column in ("is_branch_point", "build", "used"):
            session.execute(text(f"ALTER TABLE sweetspot_snapshot DROP COLUMN {column}"))
        session.execute(text("ALTER TABLE sweetspot_snapshot ADD COLUMN resume_only BOOLEAN"))
    with Store(storage) as store:
        assert _version(store) == [VERSION]
        assert store.trajectories.checkpoints() == []


def test_a_database_of_a_newer_version_is_refused(storage: str) -> None:
    with Store(storage) as store, store.database.session.begin() as session:
        session.execute(text(f"UPDATE sweetspot_schema SET version = {VERSION + 1}"))
    with pytest.raises(UserError, match=f"newer sweetspot .schema {VERSION + 1}, this one knows {VERSION}.: update"):
        Store(storage)


def _version(store: Store) -> list[int]:
    with store.database.session() as session:
        return list(session.scalars(text("SELECT version FROM sweetspot_schema")))
