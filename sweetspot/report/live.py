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

from sweetspot.report.pace import eta
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import percent
from sweetspot.report.text import worker_line
from sweetspot.study.search import is_given_back
from sweetspot.study.space import point_of

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


class Lines(Silent):
    """One line per finished trial, and where none finishes for a while one per worker: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._spoke = time.monotonic()
        self._seen: set[int] | None = None
        self._stage: str | None = None

    def show(self, result: StudyResult) -> None:
        rest = eta(result)
        finished = [t for t in result.trials if t.state.is_finished() and not is_given_back(t)]
        if self._seen is None:  # what earlier runs have done is not told again
            self._seen = {t.number for t in finished}
        for trial in finished:
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                self._say(
                    f"{done(result)}  {what_became(trial)}  |  {best_so_far(result)}  |  {under_way(result)}, {rest}"
                )
        if time.monotonic() - self._spoke > _SILENCE_SECONDS:
            for worker in result.workers:
                self._say(f"{done(result)}  {worker_line(worker)}")
        stage = result.stage
        if stage is not None and not stage.is_over and stage.name != self._stage:
            self._stage = stage.name
            self._say(f"The search is done: {stage}.")

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(Text(line), soft_wrap=True)


class LiveView(Silent):
    """A view that is redrawn in place: for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def show(self, result: StudyResult) -> None:
        self._live.update(self._view(result))

    def _view(self, result: StudyResult) -> RenderableType:
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(
            ProgressBar(total=max(result.config.search.trials, 1), completed=result.counts.finished, width=30),
            Text(f"{done(result)} trials, {under_way(result)}"),
            Text(eta(result)),
        )
        return Group(head, Text(best_so_far(result)), *(Text(f"  {worker_line(worker)}") for worker in result.workers))

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


def done(result: StudyResult) -> str:
    """How many trials have finished, of how many."""
    return f"{result.counts.finished}/{result.config.search.trials}"


def under_way(result: StudyResult) -> str:
    """How many trials were pruned, and how many are running."""
    return f"{result.counts.pruned} pruned, {result.counts.running} running"


def best_so_far(result: StudyResult) -> str:
    """The best point so far, with the mean accuracy of its students."""
    best = result.best
    if best is None:
        return "no student yet"
    return f"best so far: {best.point}: {percent(fmean(best.accuracies))}"


def what_became(trial: FrozenTrial) -> str:
    """What became of a finished trial."""
    point = str(point_of(trial) or f"trial {trial.number}")
    attrs = trial.user_attrs
    entropy = f", S {attrs['similarity_entropy']:.3f}" if "similarity_entropy" in attrs else ""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return f"{point}: student {percent(trial.value)}{entropy}"
    why = attrs.get("pruned_because") or attrs.get("infeasible") or attrs.get("error") or "no reason given"
    return f"{point}: {trial.state.name.lower()}: {why}"
