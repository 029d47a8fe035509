"""The supervisor: a worker process per device, restarted when it crashes, ended when the run ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from sweetspot.errors import RunError
from sweetspot.store import Store
from sweetspot.store.url import full
from sweetspot.store.workers import worker_name
from sweetspot.workers.profile import environment
from sweetspot.workers.pulse import SUPERVISOR

_POLL_SECONDS = 0.25
_DRAIN_SECONDS = 30
_AT_ONCE_SECONDS = 5
_MOST_CRASHES = 10
"""So many crashes in a row of the worker of one place, without a trial that finished in between, end the run."""
_LONGEST_PAUSE = 60.0
_TAIL_LINES = 50


@dataclass
class _Child:
    """A worker's process, with the end of what it wrote to stderr."""

    device: str
    process: "subprocess.Popen[str]"
    tail: list[str] = field(default_factory=list)
    crashes: int = 0
    """In a row, of this one and those that it replaces, without a trial that finished in between."""
    finished: int = -1
    """Trials that had finished at the last crash."""
    again_at: float | None = None
    """When it is to be started again; None: it lives, or has ended well."""
    reader: threading.Thread | None = None


class Supervisor:
    """Runs workers as processes of their own until they have nothing left to do.

    Args:
        study: the study's name.
        store: its addresses are handed to the workers through the environment, never the argument list.
        devices: one per worker.
        data: the folder of the data sets, or None.
        on_log: told the lines that workers log.
        finished: how many trials have finished.
        profile: the folder where each worker writes where its time went; None: none does.
    """

    def __init__(
        self,
        study: str,
        store: Store,
        devices: list[str],
        data: str | None,
        on_log: Callable[[str], None],
        finished: Callable[[], int],
        profile: Path | None = None,
    ) -> None:
        self._study = study
        self._environment = os.environ | {
            "SWEETSPOT_STORAGE": full(store.url),
            "SWEETSPOT_ARTIFACTS": store.artifacts_url,
            SUPERVISOR: str(os.getpid()),
            # One intra-op thread per worker: more oversubscribe the machine by 5 to 10 times.
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        self._environment.pop("SWEETSPOT_STORAGE_FILE", None)  # another database, perhaps
        if data is not None:
            self._environment["SWEETSPOT_DATA"] = data
        self._on_log = on_log
        self._finished = finished
        self._outages = store.database.outages
        self._profile = profile
        self._started = 0
        self._children = [self._start(device) for device in devices]

    def _start(self, device: str) -> _Child:
        command = [sys.executable, "-m", "sweetspot", "worker", "--name", self._study, "--device", device]
        self._started += 1
        profiling = environment(self._profile, self._started) if self._profile is not None else {}
        # A session of its own: Ctrl-C reaches the supervisor alone, which ends the workers once.
        process = subprocess.Popen(
            command,
            env=self._environment | profiling,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        child = _Child(device, process)
        assert process.stderr is not None
        child.reader = threading.Thread(target=self._pass_on, args=(child, process.stderr), daemon=True)
        child.reader.start()
        return child

    def _pass_on(self, child: _Child, stream: IO[str]) -> None:
        for line in stream:
            child.tail = [*child.tail[-_TAIL_LINES:], line.rstrip()]
            self._on_log(f"{_name(child)}: {line.rstrip()}")

    def wait(self, on_poll: Callable[[], None]) -> None:
        """Until every worker has ended of itself; ``on_poll`` is called a few times a second.

        Raises:
            RunError: if a worker crashes again and again, or refuses to start.
        """
        with _remembered_interrupts() as interrupted:
            while not self._have_ended(on_poll):
                if interrupted.is_set():
                    raise KeyboardInterrupt
                time.sleep(_POLL_SECONDS)

    def _have_ended(self, on_poll: Callable[[], None]) -> bool:
        on_poll()
        for i, child in enumerate(self._children):
            if child.again_at is not None:
                if time.monotonic() >= child.again_at:
                    again = self._children[i] = self._start(child.device)
                    again.crashes, again.finished = child.crashes, child.finished
            elif child.process.poll() not in (None, 0):
                self._after_crash(child)
        return all(child.again_at is None and child.process.poll() == 0 for child in self._children)

    def _after_crash(self, child: _Child) -> None:
        if child.reader is not None:
            child.reader.join(1.0)  # what it said last comes before what is said of it
        code = child.process.returncode
        finished = self._finished()
        child.crashes = child.crashes + 1 if finished == child.finished else 1
        child.finished = finished
        what = f"{_name(child)} on {child.device} ended with {_what(code)}: {_last(child)}"
        if code == 2 and not self._outages.is_down:  # it refuses to start
            raise RunError(what)
        if child.crashes >= _MOST_CRASHES:
            raise RunError(
                f"{child.crashes} workers crashed in a row, and no trial finished in between; the last: {what}"
            )
        pause = min(2.0 ** (child.crashes - 1), _LONGEST_PAUSE)
        child.again_at = time.monotonic() + pause
        self._on_log(f"{what}; starting another in {pause:.0f} s")

    def stop(self) -> None:
        """End the workers: they save their place and give their trials back. Those that do not are killed.

        Interrupted meanwhile, it does not wait for their places to be saved.
        """
        living = [child for child in self._children if child.process.poll() is None]
        if not living:
            return
        try:
            self._signal(living, _DRAIN_SECONDS)
        except KeyboardInterrupt:
            self._signal(living, _AT_ONCE_SECONDS)
        for child in living:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()
            if child.reader is not None:
                child.reader.join(1.0)

    def _signal(self, children: list[_Child], seconds: float) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.1, deadline - time.monotonic()))


@contextmanager
def _remembered_interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set beside raising KeyboardInterrupt.

    Where an interrupt comes while a library runs a callback, the exception may be swallowed there; the event stays.
    """
    interrupted = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may have handlers
        yield interrupted
        return
    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, remember) for number in heeded}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _name(child: _Child) -> str:
    return worker_name(socket.gethostname(), child.process.pid)


def _what(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"


def _last(child: _Child) -> str:
    lines = [line for line in child.tail if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
