"""Where wall time goes: named spans of the code, which cost next to nothing unless a recorder counts them."""

import threading
import time
from collections import defaultdict
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, Protocol

Name = Literal[
    "loading",
    "views",
    "teacher",
    "responses",
    "students",
    "measuring",
    "batchnorm",
    "database",
    "artifacts",
    "dashboard",
    "waiting",
    "tracing",
]
"""What is done: the data set is loaded; the views of an epoch are made; a teacher is trained; it responds to what
students see; students are trained, and looked at on the validation split; a teacher is measured; its BatchNorm
statistics are recomputed; the database or the artifacts are asked; what dashboards show is made; other workers are
waited for; a trace is begun or written."""


class Watcher(Protocol):
    """Told of what the recorder's thread does."""

    def entering(self, name: Name) -> None:
        """A span is about to begin; the seconds that this takes are not its own."""

    def leaving(self, name: Name) -> None:
        """A span is about to end; the seconds that this takes are its own."""

    def stepped(self) -> None:
        """A step of training has ended."""


class _Off:
    """A span that nobody counts."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_OFF = _Off()
_recorder: "Recorder | None" = None


def span(name: Name, epochs: int = 0) -> AbstractContextManager[None]:
    """Within the block, ``name`` is what is done, and not what a span around it says.

    Without a :class:`Recorder` this takes a quarter of a microsecond.

    Args:
        epochs: how many whole epochs of training are done when the block ends without an error; those of several
            networks add up.
    """
    return _OFF if _recorder is None else _Span(_recorder, name, epochs)


def step() -> None:
    """A step of training has ended: the trace of a recorder covers so many of them."""
    if _recorder is not None:
        _recorder.step()


class Recorder:
    """Counts the wall seconds of the spans of this process, while it is open. A context manager; one at a time.

    A span's seconds are its own: those of the spans in it are theirs. The spans of the thread that opens the recorder
    thus never count a moment twice, and what of its time no span has is spent on other things. Other threads
    (heartbeats, leases, the pulse) work while that one does: theirs are counted apart.

    Args:
        watcher: told of the spans and steps of the thread that opens the recorder.

    Attributes:
        seconds: by name, of the thread that opened it.
        beside: by name, of all other threads.
        epochs: by name, that were trained.
    """

    def __init__(self, watcher: Watcher | None = None) -> None:
        self.seconds: dict[Name, float] = defaultdict(float)
        self.beside: dict[Name, float] = defaultdict(float)
        self.epochs: dict[Name, int] = defaultdict(int)
        self._watcher = watcher
        self._own = threading.get_ident()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._opened = time.perf_counter()
        self._closed: float | None = None

    @property
    def wall(self) -> float:
        """Seconds since it was opened, until it was closed."""
        return (self._closed or time.perf_counter()) - self._opened

    def step(self) -> None:
        """See :func:`step`."""
        if self._watcher is not None and threading.get_ident() == self._own:
            self._watcher.stepped()

    def __enter__(self) -> "Recorder":
        global _recorder  # noqa: PLW0603 (spans are all over the code, which does not know who records)
        if _recorder is not None:
            raise RuntimeError("there is a recorder already")
        self._own = threading.get_ident()
        self._opened = time.perf_counter()
        _recorder = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _recorder  # noqa: PLW0603
        _recorder = None
        self._closed = time.perf_counter()

    # -- for the spans ------------------------------------------------------------------------------------------------

    def open_spans(self) -> list["_Span"]:
        """Of this thread, the innermost last."""
        try:
            return self._local.spans  # type: ignore[no-any-return]
        except AttributeError:
            self._local.spans = []
            return self._local.spans  # type: ignore[no-any-return]

    def watcher(self) -> Watcher | None:
        """Of this thread."""
        return self._watcher if threading.get_ident() == self._own else None

    def add(self, name: Name, seconds: float, epochs: int) -> None:
        with self._lock:
            (self.seconds if threading.get_ident() == self._own else self.beside)[name] += seconds
            if epochs:
                self.epochs[name] += epochs


class _Span:
    """A span that is counted."""

    __slots__ = ("_begun", "_epochs", "_inner", "_name", "_recorder")

    def __init__(self, recorder: Recorder, name: Name, epochs: int) -> None:
        self._recorder = recorder
        self._name: Name = name
        self._epochs = epochs
        self._inner = 0.0

    def __enter__(self) -> None:
        watcher = self._recorder.watcher()
        if watcher is not None:
            watcher.entering(self._name)
        self._recorder.open_spans().append(self)
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watcher = self._recorder.watcher()
        if watcher is not None:
            watcher.leaving(self._name)
        seconds = time.perf_counter() - self._begun
        spans = self._recorder.open_spans()
        while spans and spans.pop() is not self:  # a signal may have come between a span's beginning and its block
            pass
        if spans:
            spans[-1]._inner += seconds
        self._recorder.add(self._name, seconds - self._inner, self._epochs if error is None else 0)
