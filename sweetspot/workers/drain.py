"""Drain: how a worker is asked to stop, and by when it does."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_STEP_SECONDS = 15.0
"""After so long without a step at whose end it could stop, a worker is interrupted where it is."""
_LAST_SECONDS = 8.0
"""After so much longer the process ends, whatever it is doing."""


class Drain:
    """Whether this process was asked to stop: by SIGTERM, by Ctrl-C, or by ``sweetspot workers drain``.

    It stops at the next step, saves its place and gives its trial back; a second signal interrupts it at once, and a
    third ends the process.

    Attributes:
        interrupted: whether it was Ctrl-C.
    """

    def __init__(self) -> None:
        # Plain values: a signal's handler must not take a lock that the code it interrupts may hold.
        self.interrupted = False
        self._requested = False
        self._signals = 0

    def is_requested(self) -> bool:
        return self._requested

    def request(self) -> None:
        """Ask; from any thread."""
        self._requested = True

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until it is asked to stop."""
        deadline = time.monotonic() + seconds
        while not self._requested and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_POLL_SECONDS, left))

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block, SIGTERM and SIGINT ask this to stop, and a process that does not is ended."""
        done = threading.Event()
        threading.Thread(target=self._insist, args=(done,), name="drain", daemon=True).start()
        heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._handle) for number in heeded}
        try:
            yield
        finally:
            done.set()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.interrupted |= number == signal.SIGINT
        self._requested = True
        self._signals += 1
        if self._signals > 1:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt

    def _insist(self, done: threading.Event) -> None:
        while not self._requested:
            if done.wait(_POLL_SECONDS):
                return
        _log.warning("asked to stop: the next step is the last (a second signal stops at once)")
        if done.wait(_STEP_SECONDS):
            return
        _log.warning("no step has ended in %.0f s: interrupting", _STEP_SECONDS)
        self._signals = max(self._signals, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        if done.wait(_LAST_SECONDS):
            return
        _log.warning("ending in the midst of it: whoever asks for a trial next gives this one back")
        os._exit(0)
