"""Pulse: the thread that says that a worker lives, and what it does."""

import logging
import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from sweetspot.store import Store
from sweetspot.store.outage import DatabaseDownError
from sweetspot.study.space import AnyPoint, Point
from sweetspot.workers.drain import Drain

_log = logging.getLogger(__name__)
_BEAT_SECONDS = 0.5
_LONGEST_BEAT = 5.0
"""Whoever is asked to stop hears of it within so many seconds."""

SUPERVISOR = "SWEETSPOT_SUPERVISOR"
"""The environment variable with the process id of the supervisor; its worker ends when it is gone."""


class Pulse:
    """Keeps the worker's row while the main thread trains. A context manager.

    Args:
        worker: the worker's id.
        seconds: between signs of life where there is no news; 5 at most.
        drain: told when the worker is asked to stop, or its supervisor is gone.
    """

    def __init__(self, store: Store, worker: str, seconds: float, drain: Drain | None = None) -> None:
        self._store = store
        self._worker = worker
        self._seconds = min(seconds, _LONGEST_BEAT)
        self._drain = drain or Drain()
        self._has_said_drain = False
        self._news: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._supervisor = os.environ.get(SUPERVISOR)
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._images = 0
        self._last = ("", time.monotonic())

    def say(self, **columns: Any) -> None:
        """Set columns of the worker's row at the next beat; the latest value counts."""
        with self._lock:
            self._news |= columns

    def begin(self, study: str, images: int) -> None:
        """The worker joins a study whose networks see so many images an epoch."""
        self._images = images
        self.say(study=study, trial=None, phase="idle", detail={})

    def trial(self, study: str, number: int | None) -> None:
        """The worker begins a trial; None: it has ended."""
        self.say(study=study, trial=number, phase="idle" if number is None else "starting", detail={})

    def progress(self, phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
        """An :class:`~sweetspot.study.workplace.OnProgress` that says it, and how fast it goes."""
        detail: dict[str, Any] = {"epoch": epoch}
        if isinstance(point, Point):
            detail |= {"batch_size": point.batch_size, "epochs": point.epochs}
        elif point is not None:
            detail |= {"teacher": point.name, "epochs": point.epochs}
        if similarity_entropy is not None:
            detail["similarity_entropy"] = similarity_entropy
        before, since = self._last
        self._last = phase, time.monotonic()
        if phase == before and phase != "waiting" and self._last[1] > since:
            detail["images_per_second"] = self._images / (self._last[1] - since)
        self.say(phase=phase, detail=detail)

    def _run(self) -> None:
        seen, is_down = time.monotonic(), False
        while not self._stop.wait(_BEAT_SECONDS):
            if self._supervisor and os.getppid() != int(self._supervisor):
                self._supervisor = None
                self._drain.request()
            if self._drain.is_requested() and not self._has_said_drain:
                self._has_said_drain = True
                self.say(drain=True)  # whatever becomes of it now is no death
            with self._lock:
                news, self._news = self._news, {}
            if not news and time.monotonic() - seen < self._seconds:
                continue
            try:
                if self._store.workers.update(self._worker, **news):
                    self._drain.request()
            except (SQLAlchemyError, DatabaseDownError) as error:
                if not is_down:
                    _log.warning("%s; training goes on", error)
                is_down = True
                with self._lock:
                    self._news = news | self._news
                self._stop.wait(self._seconds)
            else:
                if is_down:
                    _log.warning("the database answers again after %.0f s", time.monotonic() - seen)
                seen, is_down = time.monotonic(), False

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(SQLAlchemyError, DatabaseDownError):  # it may have been asked since the last beat
            if self._store.workers.update(self._worker):
                self._drain.request()
