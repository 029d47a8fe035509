"""The map: student accuracy over batch size and epochs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from sweetspot.report.figures.parts import UNDER_TRAINED, best_key, hover, percent, students_of, title
from sweetspot.report.figures.spec import (
    Axis,
    Cells,
    Colour,
    ColourScale,
    Figure,
    Key,
    Layer,
    Legend,
    NothingToShow,
    Panel,
    Points,
    Symbol,
    Tick,
)
from sweetspot.report.points import PointSummary, State
from sweetspot.report.result import StudyResult

_MARKS: Mapping[State, tuple[Symbol, Colour, bool, str]] = {
    "complete": ("hexagon", "muted", True, "complete, its students gone"),
    "running": ("circle", "ink", True, "running"),
    "waiting": ("dot", "ink", False, "waiting"),
    "pruned": ("x", "ink", False, "pruned"),
    "infeasible": ("triangle", "ink", True, "infeasible"),
    "failed": ("plus", "accent", False, "failed"),
}
"""What stands for a point without students: symbol, colour, whether it is open, and its words in the legend."""

_ROW, _DENSE_ROW = 56, 34
_WIDTH = 690
_TWO_LINES, _ONE_LINE = 52, 38  # the narrowest cells, in pixels
_WIDEST_LABELS = 16


def accuracy_map(result: StudyResult) -> Figure:
    """Each visited point as a cell; of several points in a cell, the best.

    Raises:
        NothingToShow: before the first trial.
    """
    if not result.points:
        raise NothingToShow(f"the study {result.name!r} has no trial yet: the map is empty until one has begun")
    there: dict[tuple[int, int], list[PointSummary]] = {}
    for each in result.points:
        there.setdefault((each.point.epochs, each.point.batch_size), []).append(each)
    epochs = sorted({*result.config.search.ladder, *(at[0] for at in there)})
    sizes = sorted({*result.config.search.batch_size, *(at[1] for at in there)})
    cells = [
        _Cell(float(epochs.index(at[0])), float(sizes.index(at[1])), points) for at, points in sorted(there.items())
    ]
    measured = [cell for cell in cells if cell.best is not None]
    layers: list[Layer] = []
    keys: list[Key] = []
    scale = None
    if measured:
        scale = _scale([cell.value for cell in measured])
        lines = _lines(_WIDTH / len(epochs), len(sizes))
        layers.append(_cells(measured, lines))
    for state, (symbol, colour, is_open, words) in _MARKS.items():
        if marked := [cell for cell in cells if cell.best is None and cell.points[0].state == state]:
            layers.append(_marks(marked, symbol, colour, is_open))
            keys.append(Key(words, symbol, colour, is_open))
    if under := [cell for cell in measured if cell.best is not None and cell.best.is_under_trained]:
        layers.append(_corner(under, UNDER_TRAINED, "page", -0.37, 0.34, 7))
        keys.append(Key(f"under-trained: fewer than {result.config.search.min_steps:,} steps", UNDER_TRAINED, "page"))
    if chosen := [cell for cell in measured if cell.best is not None and cell.best.is_best]:
        layers.append(_corner(chosen, "star", "accent", 0.385, 0.4, 10))
        keys.insert(0, best_key(result))
    panel = Panel(
        "", _axis("teacher's epochs", epochs, _WIDEST_LABELS), _axis("teacher's batch size", sizes, 40), tuple(layers),
        scale, has_grid=False,
    )  # fmt: skip
    height = 96 + max(3, len(sizes)) * (_ROW if len(sizes) <= 10 else _DENSE_ROW if len(sizes) <= 20 else 22)
    return Figure(
        "map",
        title(result, "student accuracy by the teacher's batch size and epochs"),
        _words(result, cells),
        (panel,),
        (Legend("marks", tuple(keys)),) if keys else (),
        height=max(height, 200 + 40 * len(keys)),
    )


class _Cell:
    """The points of one batch size and so many epochs, the best first."""

    def __init__(self, x: float, y: float, points: Sequence[PointSummary]) -> None:
        self.x, self.y = x, y
        self.points = sorted(points, key=lambda p: (not p.is_best, p.is_under_trained, -(p.shrunken or -1.0)))
        self.best = self.points[0] if self.points[0].mean is not None else None

    @property
    def value(self) -> float:
        """In per cent."""
        assert self.best is not None
        assert self.best.mean is not None
        return percent(self.best.mean)

    def text(self, lines: int) -> str:
        assert self.best is not None
        words = [f"{self.value:.2f}"]
        if self.best.uncertainty is not None:
            words.append(f"± {100 * self.best.uncertainty:.2f}")
        words.append(f"of {len(self.points)}" if len(self.points) > 1 else f"n = {len(self.best.accuracies)}")
        return "\n".join(words[:lines]) if lines > 1 else f"{self.value:.1f}" * lines

    @property
    def hover(self) -> str:
        others = Counter(each.state for each in self.points[1:])
        beside = ", ".join(f"{count} {state}" for state, count in others.items())
        more = f"\nthe best of {len(self.points)} points here (the others: {beside})" if beside else ""
        return hover(self.points[0]) + more


def _cells(cells: Sequence[_Cell], lines: int) -> Cells:
    return Cells(
        x=tuple(cell.x for cell in cells),
        y=tuple(cell.y for cell in cells),
        values=tuple(cell.value for cell in cells),
        texts=tuple(cell.text(lines) for cell in cells) if lines else (),
        hover=tuple(cell.hover for cell in cells),
    )


def _lines(width: float, rows: int) -> int:
    """How many lines of text a cell has room for."""
    if width < _ONE_LINE or rows > 20:
        return 0
    return 1 if width < _TWO_LINES or rows > 10 else 3


def _scale(values: Sequence[float]) -> ColourScale:
    """Of all values; a few that are far below the others do not take the colours from them."""
    low, high = min(values), max(values)
    reach = median(values) - 3 * max(high - median(values), 0.1)
    is_clipped = low < reach
    return ColourScale("student accuracy, %", reach if is_clipped else min(low, high - 0.1), high, is_clipped)


def _marks(cells: Sequence[_Cell], symbol: Symbol, colour: Colour, is_open: bool) -> Points:
    return Points(
        tuple(cell.x for cell in cells), tuple(cell.y for cell in cells), symbol, colour, size=10, is_open=is_open,
        hover=tuple(cell.hover for cell in cells),
    )  # fmt: skip


def _corner(cells: Sequence[_Cell], symbol: Symbol, colour: Colour, dx: float, dy: float, size: float) -> Points:
    at = [(cell.x + dx, cell.y + dy) for cell in cells]
    return Points(
        tuple(x for x, _ in at), tuple(y for _, y in at), symbol, colour, size=size,
        hover=tuple(cell.hover for cell in cells),
    )  # fmt: skip


def _axis(label: str, values: Sequence[int], most: int) -> Axis:
    step = -(-len(values) // most)
    ticks = [Tick(float(i), f"{value:,}" if i % step == 0 else "") for i, value in enumerate(values)]
    return Axis(label, "category", ticks=tuple(ticks))


def _words(result: StudyResult, cells: Sequence[_Cell]) -> tuple[str, ...]:
    there = students_of(result.points)
    if not there:
        return ("No point has students yet.",)
    numbers = {len(each.accuracies) for each in there}
    count = f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
    plural = "s" * (numbers != {1})
    known = any(each.uncertainty is not None for each in there)
    spread = ", ± the 95 % interval over further students of the same teacher" if known else ""
    lines = [
        f"Mean validation accuracy of each point's {count} student{plural}, in per cent{spread}.",
        "The best is chosen as the best, so that its figure is partly luck; empty cells were not visited.",
    ]
    if any(len(cell.points) > 1 for cell in cells):
        others = ", ".join(sorted({name for each in result.points for name, _ in each.point.others}))
        lines.append(
            f"Further parameters are searched ({others}): a cell shows the best of its points, and of how many."
        )
    return tuple(lines)
