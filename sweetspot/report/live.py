"""Progress while a study runs: a live view on a terminal, a line per event elsewhere."""

import time
from statistics import fmean
from types import TracebackType
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweetspot.report.result import StudyResult
from sweetspot.report.text import duration, percent, worker_line
from sweetspot.study.search import is_given_back
from sweetspot.study.space import Point

_SILENCE_SECONDS = 30.0


class Progress(Protocol):
    """Shows a study while it runs. A context manager."""

    def show(self, result: StudyResult) -> None:
        """The study as it stands now."""

    def log(self, line: str) -> None:
        """A line from a worker."""

    def __enter__(self) -> "Progress": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Silent:
    """Shows nothing; what workers log still goes to stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, result: StudyResult) -> None:
        pass

    def log(self, line: str) -> None:
        self._console.print(Text(line))

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Pace:
    """How long the rest will take, from the trials that finished since it began to look."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._at_start: int | None = None

    def eta(self, result: StudyResult) -> str:
        done = result.counts.finished
        if self._at_start is None:
            self._at_start = done
        fresh = done - self._at_start
        left = result.config.search.trials - done
        if left <= 0:
            return "confirming"
        if fresh < 1:
            return "ETA …"
        return f"ETA {duration(left * (time.monotonic() - self._began) / fresh)}"


class Lines(Silent):
    """One line per finished trial, and where none finishes for a while one per worker: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._pace = _Pace()
        self._spoke = time.monotonic()
        self._seen: set[int] | None = None
        self._confirming = False

    def show(self, result: StudyResult) -> None:
        eta = self._pace.eta(result)
        finished = [t for t in result.trials if t.state.is_finished() and not is_given_back(t)]
        if self._seen is None:  # what earlier runs have done is not told again
            self._seen = {t.number for t in finished}
        for trial in finished:
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                self._say(f"{_done(result)}  {_what_became(trial)}  |  {_best(result)}  |  {_under_way(result)}, {eta}")
        if time.monotonic() - self._spoke > _SILENCE_SECONDS:
            for worker in result.workers:
                self._say(f"{_done(result)}  {worker_line(worker)}")
        if eta == "confirming" and not self._confirming and any(w.phase == "student" for w in result.workers):
            self._confirming = True
            self._say("The search is done: confirming with fresh students on the test split.")

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(Text(line), soft_wrap=True)


class LiveView(Silent):
    """A view that is redrawn in place: for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._pace = _Pace()
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def show(self, result: StudyResult) -> None:
        self._live.update(self._view(result))

    def _view(self, result: StudyResult) -> RenderableType:
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(
            ProgressBar(total=max(result.config.search.trials, 1), completed=result.counts.finished, width=30),
            Text(f"{_done(result)} trials, {_under_way(result)}"),
            Text(self._pace.eta(result)),
        )
        return Group(head, Text(_best(result)), *(Text(f"  {worker_line(worker)}") for worker in result.workers))

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def progress(console: Console, *, quiet: bool) -> Progress:
    """The progress that fits where ``console`` writes."""
    if quiet:
        return Silent(console)
    return LiveView(console) if console.is_terminal else Lines(console)


def _done(result: StudyResult) -> str:
    return f"{result.counts.finished}/{result.config.search.trials}"


def _under_way(result: StudyResult) -> str:
    return f"{result.counts.pruned} pruned, {result.counts.running} running"


def _best(result: StudyResult) -> str:
    best = result.best
    if best is None:
        return "no student yet"
    return f"best so far: {best.point}: {percent(fmean(best.accuracies))}"


def _what_became(trial: FrozenTrial) -> str:
    point = str(Point.of(trial.params)) if {"batch_size", "epochs"} <= trial.params.keys() else f"trial {trial.number}"
    attrs = trial.user_attrs
    entropy = f", S {attrs['similarity_entropy']:.3f}" if "similarity_entropy" in attrs else ""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return f"{point}: student {percent(trial.value)}{entropy}"
    why = attrs.get("pruned_because") or attrs.get("infeasible") or attrs.get("error") or "no reason given"
    return f"{point}: {trial.state.name.lower()}: {why}"
