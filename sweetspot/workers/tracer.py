"""The traces of a worker's profile: an epoch of each kind, by torch's profiler."""

import gzip
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.autograd.profiler import profile, record_function

from sweetspot.timing import Name, span

_log = logging.getLogger(__name__)

TRACED_STEPS = 50
"""So many steps of training are traced at most: of a ResNet-56 some 6 MB in the file, and 90 MB unpacked."""
_TRACED: frozenset[Name] = frozenset(("teacher", "responses", "students"))
_ON_THE_HOST: frozenset[Name] = frozenset(("database", "artifacts", "dashboard", "waiting", "tracing"))


class Tracer:
    """Traces the second epoch of each kind with torch's profiler: its first steps are not like those that follow.

    Each trace is a file of its own, for at most :data:`TRACED_STEPS` steps. The teacher's begins where the first epoch
    ends, and so has what lies between two epochs: measurements, database, artifacts. On a GPU each span begins and ends
    with a synchronisation: without it the host would be done with a span long before the device is.

    Args:
        device: the worker's, such as "cuda:0".
        path: of its totals, ``profile-<number>.json``; the traces are ``trace-<number>-<name>.json.gz`` beside it.
    """

    def __init__(self, device: str, path: Path) -> None:
        self._device = torch.device(device)
        self._path = path
        self._open: list[tuple[Name, record_function | None]] = []
        self._begun: Counter[Name] = Counter()
        self._window: tuple[Name, profile] | None = None
        self._steps = 0
        self._is_at_work = False

    def entering(self, name: Name) -> None:
        if self._is_at_work:
            return
        self._synchronize(name)
        if name in _TRACED:
            self._begun[name] += 1
            if self._window is not None and self._window[0] == "teacher" != name:
                self.close()  # there was one epoch only
            if self._begun[name] == 2 and self._window is None:
                self._begin(name)
        self._open.append((name, self._marked(name)))

    def leaving(self, name: Name) -> None:
        if self._is_at_work:
            return
        self._synchronize(name)
        opened = ""
        while self._open and opened != name:  # a signal may have come between a span's beginning and its block
            opened, mark = self._open.pop()
            if mark is not None:
                mark.__exit__(None, None, None)
        if self._window is not None and self._window[0] == name:
            self.close()
        elif name == "teacher" and self._begun[name] == 1 and self._window is None:
            self._begun[name] += 1
            self._begin(name)

    def stepped(self) -> None:
        self._steps += 1
        if self._window is not None and self._steps >= TRACED_STEPS:
            self.close()

    def close(self) -> None:
        """Write the trace that is under way, if there is one."""
        if self._window is None:
            return
        (name, window), self._window = self._window, None
        path = self._path.with_name(f"{self._path.stem.replace('profile', 'trace')}-{name}.json.gz")
        with self._at_work():
            for i, (_, mark) in reversed(list(enumerate(self._open))):
                if mark is not None:
                    mark.__exit__(None, None, None)
                    self._open[i] = self._open[i][0], None
            try:
                window.__exit__(None, None, None)
                _export(window, path)
            except (OSError, RuntimeError) as error:
                _log.warning("cannot write the trace %s: %s", path.name, error)

    def _begin(self, name: Name) -> None:
        with self._at_work():
            # torch.profiler.profile is made of it, and imports torch._inductor for nothing: that takes 5 s.
            window = profile(use_kineto=True, use_device="cuda" if self._device.type == "cuda" else None)
            try:
                window.__enter__()
            except RuntimeError as error:  # another profiler is at work, or the driver has none
                _log.warning("no trace of %s: %s", name, error)
                return
        self._window, self._steps = (name, window), 0
        self._open = [(outer, self._marked(outer)) for outer, _ in self._open]

    def _marked(self, name: Name) -> record_function | None:
        if self._window is None:
            return None
        mark = record_function(f"sweetspot: {name}")
        mark.__enter__()
        return mark

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The seconds of the block are no worker's without a profile: they are counted on their own."""
        self._is_at_work = True
        try:
            with span("tracing"):
                yield
        finally:
            self._is_at_work = False

    def _synchronize(self, name: Name) -> None:
        is_queued = self._device.type == "cuda" and name not in _ON_THE_HOST
        if is_queued and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize(self._device)


def _export(window: profile, path: Path) -> None:
    """Write a trace, compressed; it is whole when it has its name."""
    part = path.with_name(f"{path.name}.part")
    plain = path.with_suffix(".part")
    try:
        window.export_chrome_trace(str(plain))
        with open(plain, "rb") as read, gzip.open(part, "wb", compresslevel=5) as written:
            shutil.copyfileobj(read, written)
        part.replace(path)
    finally:
        for leftover in (plain, part):
            leftover.unlink(missing_ok=True)
