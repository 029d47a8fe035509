"""The list of workers, as text and as JSON."""

from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.table import Table

from sweetspot.report.sentences import duration
from sweetspot.store import WorkerRecord

_LISTED_SECONDS = 3600.0


def listed(workers: Iterable[WorkerRecord]) -> list[WorkerRecord]:
    """Those that people ask about: dead ones for an hour, the others as long as they are known."""
    return [worker for worker in workers if not worker.ended or worker.silent_seconds < _LISTED_SECONDS]


def state(worker: WorkerRecord) -> str:
    """What a worker does, in a word or two."""
    if worker.ended:
        return "died"
    if worker.is_silent:
        return "silent"
    return f"{worker.phase}, draining" if worker.drain else worker.phase


def workers_list(workers: Iterable[WorkerRecord]) -> list[dict[str, Any]]:
    """For programs; times in seconds."""
    return [
        {
            "name": worker.name,
            "host": worker.host,
            "pid": worker.pid,
            "device": worker.device,
            "study": worker.study,
            "trial": worker.trial,
            "state": state(worker),
            **{key: worker.detail.get(key) for key in ("batch_size", "epochs", "epoch", "images_per_second")},
            "last_seen_seconds": worker.silent_seconds,
        }
        for worker in workers
    ]


def workers_table(workers: Iterable[WorkerRecord]) -> Table:
    """One row per worker; "seen": so long ago it was last heard of."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("worker", "device", "study", "trial", "phase", "point", "epoch", "images/s", "seen"):
        right = column in ("trial", "epoch", "images/s", "seen")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "study")
    for worker in workers:
        detail = worker.detail
        rate = detail.get("images_per_second")
        table.add_row(
            escape(worker.name),
            worker.device,
            escape(worker.study or ""),
            "" if worker.trial is None else str(worker.trial),
            state(worker),
            f"{detail['batch_size']} x {detail['epochs']}" if "batch_size" in detail else "",
            str(detail.get("epoch", "")),
            "" if rate is None else f"{rate:,.0f}",
            duration(worker.silent_seconds),
        )
    return table
