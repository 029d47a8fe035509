"""From an older schema of our tables to this one: one function per version."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection


def _to_2(op: Operations) -> None:
    """Points to resume from leave the snapshots for a table of their own; those that are there stay as snapshots."""
    if "resume_only" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("sweetspot_snapshot")}:
        return  # where tables change outside of transactions: it was done when a process died
    op.add_column(
        "sweetspot_snapshot", sa.Column("is_branch_point", sa.Boolean, nullable=False, server_default=sa.true())
    )
    op.add_column("sweetspot_snapshot", sa.Column("build", sa.String(128), nullable=False, server_default=""))
    op.add_column("sweetspot_snapshot", sa.Column("used", sa.DateTime))
    op.drop_column("sweetspot_snapshot", "resume_only")


def _to_3(op: Operations) -> None:
    """Workers can be asked to stop."""
    there = sa.inspect(op.get_bind())
    if not there.has_table("sweetspot_worker"):
        return
    if "drain" not in {column["name"] for column in there.get_columns("sweetspot_worker")}:
        op.add_column("sweetspot_worker", sa.Column("drain", sa.Boolean, nullable=False, server_default=sa.false()))


def _to_4(op: Operations) -> None:
    """Class similarity and external teachers have tables of their own, which are new."""


def _to_5(op: Operations) -> None:
    """The looks of deleted studies have a table, which is new."""


_TO: dict[int, Callable[[Operations], None]] = {2: _to_2, 3: _to_3, 4: _to_4, 5: _to_5}
"""What makes a version out of the one before it. Tables that are new are made by whoever calls."""


def migrate(connection: Connection, found: int, wanted: int) -> None:
    """Bring our tables from version ``found`` to ``wanted``, within the connection's transaction."""
    op = Operations(MigrationContext.configure(connection))
    for version in range(found + 1, wanted + 1):
        _TO[version](op)
