"""Time that is measured: of this process, and of whatever else the machine does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


class Watch:
    """Wall and CPU seconds of this process, from now on."""

    def __init__(self) -> None:
        self._from = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall seconds, CPU seconds)."""
        (wall, cpu), (wall_from, cpu_from) = self._now(), self._from
        return wall - wall_from, cpu - cpu_from

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still in the block."""
        before = self.read()
        try:
            yield
        finally:
            (wall, cpu), (wall_before, cpu_before) = self._now(), before
            self._from = wall - wall_before, cpu - cpu_before


class Beside:
    """How busy the machine is, from now on, with other processes than this one."""

    def __init__(self) -> None:
        self._watch = Watch()
        self._from = self._busy_seconds()

    @staticmethod
    def _busy_seconds() -> float:
        """CPU seconds of all processes since the machine's start."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted as user's, too
        return float(sum(times) - idle - guest)

    def cores(self) -> float:
        """The average number of cores that others kept busy."""
        wall, own = self._watch.read()
        return round(max(0.0, self._busy_seconds() - self._from - own) / wall, 2)
