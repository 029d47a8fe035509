"""Pulse: the thread that says that a worker lives, and what it does."""

import logging
import os
import signal
import threading
import time
from types import TracebackType
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from sweetspot.store import Store
from sweetspot.study.space import Point

_log = logging.getLogger(__name__)
_BEAT_SECONDS = 0.5

SUPERVISOR = "SWEETSPOT_SUPERVISOR"
"""The environment variable with the process id of the supervisor; its worker ends when it is gone."""


class Pulse:
    """Keeps the worker's row while the main thread trains. A context manager.

    Args:
        worker: the worker's id.
        seconds: between signs of life where there is no news.
    """

    def __init__(self, store: Store, worker: str, seconds: float) -> None:
        self._store = store
        self._worker = worker
        self._seconds = seconds
        self._news: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._supervisor = os.environ.get(SUPERVISOR)
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def say(self, **columns: Any) -> None:
        """Set columns of the worker's row at the next beat; the latest value counts."""
        with self._lock:
            self._news |= columns

    def progress(self, phase: str, point: Point | None, epoch: int, similarity_entropy: float | None) -> None:
        """An :class:`~sweetspot.study.workplace.OnProgress` that says it."""
        detail: dict[str, Any] = {"epoch": epoch}
        if point is not None:
            detail |= {"batch_size": point.batch_size, "epochs": point.epochs}
        if similarity_entropy is not None:
            detail["similarity_entropy"] = similarity_entropy
        self.say(phase=phase, detail=detail)

    def _run(self) -> None:
        seen = time.monotonic()
        while not self._stop.wait(_BEAT_SECONDS):
            if self._supervisor and os.getppid() != int(self._supervisor):
                self._supervisor = None
                os.kill(os.getpid(), signal.SIGTERM)
            with self._lock:
                news, self._news = self._news, {}
            if not news and time.monotonic() - seen < self._seconds:
                continue
            try:
                self._store.workers.update(self._worker, **news)
                seen = time.monotonic()
            except SQLAlchemyError as error:
                _log.warning("the database did not answer, will retry: %s", type(error).__name__)

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
