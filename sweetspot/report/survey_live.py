"""Progress of a survey: a bar on a terminal, a line per teacher elsewhere."""

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from sweetspot.config import StudyConfig
from sweetspot.store import Measurement
from sweetspot.study.space import AnyPoint, Point
from sweetspot.study.survey import surveyed

_SILENCE_SECONDS = 30.0


class SurveyProgress(Protocol):
    """Shows a survey while it runs. A context manager."""

    def teacher(self, point: Point, outcome: Measurement | str, trained: bool) -> None:
        """A teacher that is there, ``trained`` just now or found; or in words why it will not be."""

    def progress(self, phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
        """What is being trained, or waited for."""

    def __enter__(self) -> "SurveyProgress": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Silent:
    """Shows nothing."""

    def teacher(self, point: Point, outcome: Measurement | str, trained: bool) -> None:
        pass

    def progress(self, phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
        pass

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Silent):
    """One line per teacher that is trained, and where none is for a while one of the epoch: for logs and pipes."""

    def __init__(self, config: StudyConfig, console: Console) -> None:
        self._console = console
        self._total = len(surveyed(config))
        self._done = 0
        self._spoke = time.monotonic()

    def teacher(self, point: Point, outcome: Measurement | str, trained: bool) -> None:
        self._done += 1
        if trained:  # what is found is counted, not told
            self._say(_outcome(point, outcome))

    def progress(self, phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
        if time.monotonic() - self._spoke > _SILENCE_SECONDS:
            self._say(_under_way(phase, point, epoch, similarity_entropy))

    def _say(self, what: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(Text(f"{self._done}/{self._total}  {what}"), soft_wrap=True)


class Bar(Silent):
    """A bar of the epochs to be trained that is redrawn in place, and what diverged: for terminals."""

    def __init__(self, config: StudyConfig, console: Console) -> None:
        self._own = surveyed(config)
        self._left = dict(self._own)
        self._console = console
        self._bar = Progress(
            BarColumn(30),
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=sum(self._own.values()))

    def teacher(self, point: Point, outcome: Measurement | str, trained: bool) -> None:
        self._left.pop(point, None)
        if isinstance(outcome, str):
            self._console.print(Text(_outcome(point, outcome)), soft_wrap=True)
        self._bar.update(self._task, completed=self._before())

    def progress(self, phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
        of_this = max(0, epoch - (point.epochs - self._own[point])) if point in self._left else 0
        description = _under_way(phase, point, epoch, similarity_entropy)
        self._bar.update(self._task, completed=self._before() + of_this, description=description)

    def _before(self) -> int:
        """Epochs of the teachers that are done."""
        return sum(self._own.values()) - sum(self._left.values())

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def survey_progress(config: StudyConfig, console: Console, *, quiet: bool) -> SurveyProgress:
    """The progress that fits where ``console`` writes."""
    if quiet:
        return Silent()
    return Bar(config, console) if console.is_terminal else Lines(config, console)


def _outcome(point: Point, outcome: Measurement | str) -> str:
    if isinstance(outcome, str):
        return f"{point}: no teacher: {outcome}"
    values = outcome.values
    return f"{point}: 1 - p_y {values['non_target_mass']:.3f}, S {values['similarity_entropy']:.3f}"


def _under_way(phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> str:
    doing = "waiting for another worker's teacher, " if phase == "waiting" else ""
    entropy = f", S {similarity_entropy:.3f}" if similarity_entropy is not None else ""
    return f"{point}: {doing}epoch {epoch}{entropy}"
