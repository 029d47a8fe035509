"""The rows of workers: who lives, on which machine, doing what."""

import os
import platform
import socket
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import delete, select, update

from sweetspot.store.database import Database
from sweetspot.store.outage import outlasting_methods
from sweetspot.store.schema import WorkerRow, now

_SAME_START_SECONDS = 3.0
"""Starts of a process that differ by less are one: the time of boot is known to the second."""
_SILENCE = timedelta(seconds=60)
"""A worker that has nothing new to say is heard of every few seconds."""
_FORGOTTEN = timedelta(days=2)
"""A worker that was silent for so long has lost all it had, and is no longer listed."""


@dataclass(frozen=True)
class WorkerRecord:
    id: str
    host: str
    pid: int
    device: str
    study: str | None
    trial: int | None
    phase: str
    detail: dict[str, Any]
    started: datetime
    last_seen: datetime
    drain: bool
    """Whether it was asked to stop."""
    ended: bool
    """Its process is known to be gone. Of a silent process on another machine nothing is known."""

    @property
    def name(self) -> str:
        """What people call it."""
        return worker_name(self.host, self.pid)

    @property
    def silent_seconds(self) -> float:
        """Since it was last heard of."""
        return max(0.0, (now() - self.last_seen).total_seconds())

    @property
    def is_silent(self) -> bool:
        """Whether it ought to have been heard of since."""
        return self.silent_seconds > _SILENCE.total_seconds()


def worker_name(host: str, pid: int) -> str:
    """The name of a worker in listings and logs."""
    return f"{host}-{pid}"


@cache
def boot_id() -> str:
    """Differs between starts of this machine and between containers: wherever a process id means another process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{platform.node()}-{psutil.boot_time():.0f}"


def _started(pid: int) -> float:
    """Seconds from the machine's start to the process's: a step of the machine's clock does not change it."""
    booted = psutil.boot_time()
    return float(psutil.Process(pid).create_time() - booted)


@outlasting_methods
class WorkerStore:
    """Worker processes register here, say what they do, and are found dead."""

    def __init__(self, database: Database) -> None:
        self.outages = database.outages
        self._session = database.session

    def register(self, device: str) -> str:
        """Add this process; its worker id."""
        worker = uuid.uuid4().hex
        with self._session.begin() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.last_seen < now() - _FORGOTTEN))
            session.add(
                WorkerRow(
                    id=worker,
                    host=socket.gethostname(),
                    boot_id=boot_id(),
                    pid=os.getpid(),
                    process_start=_started(os.getpid()),
                    device=device,
                    detail={},
                )
            )
        return worker

    def update(self, worker: str, **values: Any) -> bool:
        """Set columns of a worker, and that it was seen now; whether it was asked to stop."""
        with self._session.begin() as session:
            session.execute(update(WorkerRow).where(WorkerRow.id == worker).values(last_seen=now(), **values))
            return bool(session.scalar(select(WorkerRow.drain).where(WorkerRow.id == worker)))

    def drain(self, workers: Collection[str]) -> None:
        """Ask workers to stop."""
        with self._session.begin() as session:
            session.execute(update(WorkerRow).where(WorkerRow.id.in_(workers)).values(drain=True))

    def all(self) -> list[WorkerRecord]:
        """Every worker that was heard of in the last days, dead ones included, by host and start."""
        with self._session() as session:
            rows = session.scalars(select(WorkerRow).order_by(WorkerRow.host, WorkerRow.started))
            return [_record(row) for row in rows]

    def unregister(self, worker: str) -> None:
        with self._session.begin() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.id == worker))

    def of_study(self, study: str) -> list[WorkerRecord]:
        """The workers that are at this study or its companions, dead ones included, oldest first."""
        with self._session() as session:
            rows = session.scalars(
                select(WorkerRow)
                .where((WorkerRow.study == study) | WorkerRow.study.startswith(f"{study}/", autoescape=True))
                .order_by(WorkerRow.started)
            )
            # Once more in Python: SQLite's LIKE takes "Study/" for "study/".
            return [_record(row) for row in rows if f"{row.study}/".startswith(f"{study}/")]

    def ended(self, workers: Collection[str]) -> set[str]:
        """Those of the workers whose process is known to be gone."""
        with self._session() as session:
            rows = {row.id: row for row in session.scalars(select(WorkerRow).where(WorkerRow.id.in_(workers)))}
        return {worker for worker in workers if worker not in rows or _has_ended(rows[worker])}

    def drained(self, workers: Collection[str]) -> set[str]:
        """Those of the workers that were asked to stop."""
        with self._session() as session:
            chosen = select(WorkerRow.id).where(WorkerRow.id.in_(workers), WorkerRow.drain.is_(True))
            return set(session.scalars(chosen))

    def has_ended(self, worker: str) -> bool:
        """True if the worker's process is known to be gone: it ran on this machine and does no longer."""
        return worker in self.ended([worker])


def _record(row: WorkerRow) -> WorkerRecord:
    return WorkerRecord(
        row.id, row.host, row.pid, row.device, row.study, row.trial, row.phase, row.detail, row.started, row.last_seen,
        row.drain, _has_ended(row),
    )  # fmt: skip


def _has_ended(row: WorkerRow) -> bool:
    if row.host != socket.gethostname():
        return False
    if row.boot_id != boot_id() and row.boot_id.split()[0] == boot_id().split()[0]:
        return False  # a container of its own: of its processes nothing is known here
    if row.boot_id != boot_id():  # of this machine before it was started again; or of another of the same name
        return now() - row.last_seen > _SILENCE
    try:
        is_another = abs(_started(row.pid) - row.process_start) > _SAME_START_SECONDS
        return is_another or bool(psutil.Process(row.pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
