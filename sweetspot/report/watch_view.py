"""How a watched study is shown: a view that is redrawn on a terminal, a line per event elsewhere."""

import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweetspot.report.heat_map import heat_map
from sweetspot.report.live import best_so_far, done, under_way
from sweetspot.report.sentences import duration, headline
from sweetspot.report.text import worker_line
from sweetspot.report.watch import Event, Look
from sweetspot.store import WorkerRecord

_EVENTS = 3
_MOST_WORKERS = 6
_LEAST_MAP = 5
"""Lines of the map that workers and events leave to it."""


class WatchView(Protocol):
    """Shows a study that is watched. A context manager."""

    def show(self, events: Sequence[Event], look: Look | None) -> None:
        """What is new, and how the study stands; None where that is not known at the moment."""

    def __enter__(self) -> "WatchView": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """One line per event with its time, each written at once: for logs and pipes."""

    def show(self, events: Sequence[Event], look: Look | None) -> None:
        for event in events:
            print(self._line(event), flush=True)

    def _line(self, event: Event) -> str:
        return f"{event.time}  {event.text}"

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class JsonLines(Lines):
    """One JSON object per event and line: for programs."""

    def _line(self, event: Event) -> str:
        return json.dumps(event.to_dict(), ensure_ascii=False)


class Screen:
    """The study as it stands, redrawn in place, never larger than the terminal; the last one stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._look: Look | None = None
        self._events: list[Event] = []
        self._outage: Event | None = None

    def show(self, events: Sequence[Event], look: Look | None) -> None:
        self._look = look or self._look
        self._outage = None if look is not None else next((e for e in events if e.kind == "outage"), self._outage)
        self._events = [*self._events, *(e for e in events if e.kind not in ("study", "done"))][-_EVENTS:]
        if self._look is not None:
            self._live.update(self.frame(self._look), refresh=True)

    def frame(self, look: Look) -> RenderableType:
        """The study in at most as many lines as the terminal has; only a verdict may take more."""
        width, height = self._console.size
        result = look.result
        best = best_so_far(result)
        head = [_line(headline(result), "bold"), _bar(look, width), _line(best[:1].upper() + best[1:], "bold")]
        if self._outage is not None:
            head.append(_line(f"{self._outage.time[11:]}  {self._outage.text}", "bold red"))
        room = height - len(head) - 3  # two empty lines, and the one that the cursor is in
        if look.is_done:
            verdict = Text.assemble(("Verdict: ", "bold"), result.verdict)
            needed = len(verdict.wrap(self._console, width))
            return Group(*head, Text(), *heat_map(result, width, max(_LEAST_MAP, room - needed)), Text(), verdict)
        workers = _workers(look.workers, min(_MOST_WORKERS, max(1, room - _LEAST_MAP)))
        left = max(0, min(_EVENTS, room - _LEAST_MAP - len(workers)))
        latest = self._events[max(0, len(self._events) - left) :]
        tail = [*workers, *(_line(f"{event.time[11:]}  {event.text}", "dim") for event in latest)]
        map_ = heat_map(result, width, max(_LEAST_MAP, room - len(tail)))
        return Group(*[*head, Text(), *map_, Text(), *tail][: height - 1])

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def watch_view(console: Console, *, as_json: bool) -> WatchView:
    """The view that fits where ``console``, which is standard output, writes."""
    if as_json:
        return JsonLines()
    # Not console.is_terminal: FORCE_COLOR makes a terminal of any pipe.
    return Screen(console) if sys.stdout.isatty() and not console.is_dumb_terminal else Lines()


def _line(text: str, style: str = "") -> Text:
    """A line that is cut where the terminal ends."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _bar(look: Look, width: int) -> RenderableType:
    result = look.result
    head = Table.grid(padding=(0, 2, 0, 0))
    head.add_column()
    head.add_column(no_wrap=True, overflow="ellipsis")
    total = max(result.config.search.trials, 1)
    head.add_row(
        ProgressBar(total=total, completed=result.counts.finished, width=max(5, min(30, width - 55))),
        f"{done(result)} trials, {under_way(result)}, {look.eta}",
    )
    return head


def _workers(workers: Sequence[WorkerRecord], most: int) -> list[RenderableType]:
    """What each living worker does, in so many lines."""
    there = [worker for worker in workers if not worker.ended]
    if not there:
        return [_line("No worker is at it: sweetspot worker joins")]
    shown = there if len(there) <= most else there[: most - 1]
    lines: list[RenderableType] = [_line(f"{worker.host[:16]}: {_doing(worker)}") for worker in shown]
    return lines + ([_line(f"and {len(there) - len(shown)} workers more")] if len(shown) < len(there) else [])


def _doing(worker: WorkerRecord) -> str:
    if worker.is_silent:
        return f"{worker.device} (pid {worker.pid}): silent for {duration(worker.silent_seconds)}"
    return f"{worker_line(worker)}{', draining' if worker.drain else ''}"
