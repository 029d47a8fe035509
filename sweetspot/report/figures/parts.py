"""What several figures share: their titles, the colours of batch sizes, the words of a point."""

import math
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from statistics import median

from sweetspot.report.figures.spec import Axis, Key, Legend, Points, Symbol, Tick, round_step
from sweetspot.report.points import PointSummary
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import teachers

UNDER_TRAINED: Symbol = "down"
MOST_INTERVALS = 60
"""Error bars of more points than these hide one another."""

_MOST_HOVERS = 300
"""Of so many marks each has all its words; of more, the shortest ones."""
_MOST_KEYS = 10
_LONGEST_NAME = 44
_SYMBOLS: tuple[Symbol, ...] = ("circle", "square", "diamond", "triangle", "hexagon", "plus")


def title(result: StudyResult, what: str) -> str:
    """A long name gives way."""
    name, pair = result.name, f"{teachers(result.config)} → {result.config.student.model}"
    return f"{shortened(name)} ({shortened(pair)}): {what}"


def shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1].rstrip()}…"


def percent(fraction: float) -> float:
    return 100 * fraction


def best_words(result: StudyResult) -> str:
    """What the marked point is."""
    if result.confirmation is None:
        return "best point so far, not confirmed"
    if result.is_stale:
        return "best point; its confirmation is out of date"
    return {
        True: "best point, confirmed with fresh students",
        False: "best point of the search; the confirmation decided against it",
        None: "best point of the search; the confirmation is undecided",
    }[result.confirmation.verdict.confirmed]


# -- batch sizes ------------------------------------------------------------------------------------------------------


class Sizes:
    """Each batch size with its colour and symbol, dark for the smallest."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.all = sorted(set(sizes))
        self.colours = {size: i / max(1, len(self.all) - 1) for i, size in enumerate(self.all)}
        self.symbols = dict(zip(self.all, islice(cycle(_SYMBOLS), len(self.all)), strict=True))

    @classmethod
    def of(cls, result: StudyResult) -> "Sizes":
        """Of those that a study searches, whether or not it has visited them."""
        return cls([*result.config.search.batch_size, *(p.point.batch_size for p in result.points)])

    def legend(self, sizes: Iterable[int], *, line: bool = False) -> Legend:
        """Of those that are drawn; of many, some."""
        drawn = sorted(set(sizes))
        step = -(-len(drawn) // _MOST_KEYS)
        return Legend(
            "teacher's batch size",
            tuple(
                Key(f"{size:,}", self.symbols[size], self.colours[size], line="solid" if line else "none",
                    group=group_of(size))
                for size in reversed(drawn[::step])
            ),
        )  # fmt: skip


def group_of(size: int) -> str:
    return f"batch {size}"


# -- axes -------------------------------------------------------------------------------------------------------------


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """From the least to the greatest of ``values``, which are positive, with room; ticks at 1, 2, 5, 10, …."""
    low, high = _ends(values)
    low, high = low / 1.15, high * 1.15
    for factors in ((1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        at = [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]
        if len(at) <= 8:
            break
    return Axis(label, "log", low, high, tuple(Tick(value, f"{value:,.10g}") for value in at))


def rung_axis(label: str, ladder: Sequence[int]) -> Axis:
    """Logarithmic, with ticks at the rungs as far as their labels do not touch."""
    low, high = ladder[0] / 1.15, ladder[-1] * 1.15
    ticks: list[Tick] = []
    for epochs in reversed(ladder):
        if not ticks or math.log(ticks[0].at / epochs) > 0.03 * (1 + len(str(epochs))) * math.log(high / low):
            ticks.insert(0, Tick(epochs, str(epochs)))
    return Axis(label, "log", low, high, tuple(ticks))


def count_axis(label: str, count: int) -> Axis:
    """From 0 to ``count``, with ticks at whole numbers."""
    step = max(1, round(round_step(max(count, 1) / 8)))
    ticks = tuple(Tick(at, f"{at:,}") for at in range(0, count + 1, step))
    return Axis(label, "linear", 0, max(count, 1) * 1.02, ticks)


def linear_axis(label: str, values: Iterable[float], least: float = 1e-6) -> Axis:
    """With room about ``values``."""
    low, high = _ends(values)
    room = max(0.06 * (high - low), least)
    return Axis(label, "linear", low - room, high + room)


def _ends(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    return min(found), max(found)


# -- points -----------------------------------------------------------------------------------------------------------


def students_of(points: Iterable[PointSummary]) -> list[PointSummary]:
    """Those that have students."""
    return [each for each in points if each.mean is not None]


def contenders(points: Sequence[PointSummary]) -> tuple[list[PointSummary], tuple[str, ...]]:
    """Those whose students are not far below the others', and a line about the rest, which would take all the room."""
    means = [each.mean or 0.0 for each in points]
    reach = median(means) - max(4 * (max(means) - median(means)), 0.01)
    shown = [each for each in points if (each.mean or 0.0) >= reach]
    if len(shown) == len(points):
        return shown, ()
    one = len(points) - len(shown) == 1
    rest = "1 point lies" if one else f"{len(points) - len(shown):,} points lie"
    return shown, (f"{rest} below the panel, down to {100 * min(means):.1f} %.",)


def accuracy_words(each: PointSummary) -> str:
    """The mean of a point's students with its uncertainty, in per cent."""
    assert each.mean is not None
    spread = f" ± {100 * each.uncertainty:.2f}" if each.uncertainty is not None else ""
    count = len(each.accuracies)
    return f"{100 * each.mean:.2f}{spread} % ({count} student{'s' * (count != 1)})"


def hovers(points: Sequence[PointSummary], total: int) -> tuple[str, ...]:
    """A text for each point; a short one where the figure has many, ``total``. Lines end in "\\n"."""
    is_short = total > _MOST_HOVERS
    return tuple(_short_hover(each) if is_short else hover(each) for each in points)


def _short_hover(each: PointSummary) -> str:
    return f"{each.point.batch_size} x {each.point.epochs}"


def hover(each: PointSummary) -> str:
    steps = f" ({each.steps:,} steps)" if each.steps else ""
    lines = [f"{each.point}{steps}"]
    if each.mean is not None:
        lines.append(f"student {accuracy_words(each)}")
    elif each.state != "complete":
        lines.append(f"{each.state}: {each.reason}" if each.reason else each.state)
    if each.teacher_accuracy is not None:
        lines.append(f"teacher {100 * each.teacher_accuracy:.2f} %")
    if each.similarity_entropy is not None:
        lines.append(f"similarity entropy {each.similarity_entropy:.3f} nats")
    if each.is_best:
        lines.append("best point so far")
    if each.is_under_trained:
        lines.append("under-trained: too few steps for the sweet spot")
    elif each.mean is not None and not each.is_settled:
        lines.append("too few students to be called best")
    return "\n".join(lines)


def bounds(points: Sequence[PointSummary]) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """The ends of the points' 95 % intervals in per cent; none where there are too many points."""
    if len(points) > MOST_INTERVALS:
        return (), ()
    return (
        tuple(None if each.low is None else percent(each.low) for each in points),
        tuple(None if each.high is None else percent(each.high) for each in points),
    )


def interval_words(points: Sequence[PointSummary]) -> str:
    """What error bars are, where there are any."""
    if len(points) > MOST_INTERVALS or all(each.low is None for each in points):
        return ""
    return " Bars: 95 % intervals over further students of the same teachers."


def best_mark(x: float, y: float) -> Points:
    return Points((x,), (y,), "star", "accent", size=13, hover=("best point so far",))


def best_key(result: StudyResult) -> Key:
    return Key(best_words(result), "star", "accent")
