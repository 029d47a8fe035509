"""The accuracy map of a study in text: batch sizes down, epochs across."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from rich.color import Color
from rich.style import Style
from rich.text import Text

from sweetspot.report.points import PointSummary, State
from sweetspot.report.result import StudyResult

_MARKS: dict[State, str] = {"running": "~", "waiting": "w", "pruned": "p", "infeasible": "x", "failed": "!"}
_NOT_VISITED = "."
_SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""From the lowest accuracy to the highest: as bright as they are high, so that no hue need be told from another."""

T = TypeVar("T")
Cell = tuple[PointSummary | None, str]
"""The point that a cell shows, and its mark where it has no accuracy."""


def heat_map(result: StudyResult, width: int, height: int) -> list[Text]:
    """The map in at most so many columns and rows, its legend included; coloured, and to be read without colour.

    Cells hold the mean validation accuracy of a point's students in per cent; where that has no room, 0 for the lowest
    to 9 for the highest. Where several points fall into one cell, it shows the best.
    """
    search = result.config.search
    rows = _grouped(search.batch_size, max(1, height - 3))
    label = max(len(_label(row)) for row in rows)
    form, cell_width = next(
        (
            (form, wide)
            for form, wide in (("2", 6), ("1", 5), ("rank", 2))
            if label + wide * len(search.ladder) <= width
        ),
        ("rank", 2),
    )
    columns = _grouped(search.ladder, max(1, (width - label) // cell_width))
    by_place: dict[tuple[int, int], list[PointSummary]] = {}
    for summary in result.points:
        by_place.setdefault((summary.point.batch_size, summary.point.epochs), []).append(summary)
    cells = [[_cell(by_place, row, column) for column in columns] for row in rows]
    means = [summary.mean for row in cells for summary, _ in row if summary is not None and summary.mean is not None]
    low, high = min(means, default=0.0), max(means, default=0.0)
    unit = "0 lowest to 9 highest" if form == "rank" else "%"
    lines = [
        Text(f"Student accuracy ({unit}), batch size down, epochs across:"),
        Text(" " * label + _header([_label(column) for column in columns], cell_width), "dim"),
    ]
    for row, there in zip(rows, cells, strict=True):
        line = Text(f"{_label(row):>{label}}")
        for cell in there:
            line.append(*_drawn(cell, form, cell_width, low, high))
        lines.append(line)
    lines.append(Text(_legend(cells), "dim"))
    for line in lines:
        line.truncate(width)
    return lines


def _grouped(values: Sequence[T], at_most: int) -> list[Sequence[T]]:
    """The values in so few groups of neighbours."""
    size = -(-len(values) // at_most)
    return [values[first : first + size] for first in range(0, len(values), size)]


def _label(group: Sequence[int]) -> str:
    return str(group[0]) if len(group) == 1 else f"{group[0]}.."


def _cell(by_place: Mapping[tuple[int, int], list[PointSummary]], row: Sequence[int], column: Sequence[int]) -> Cell:
    there = [s for batch_size in row for epochs in column for s in by_place.get((batch_size, epochs), ())]
    measured = [(s.is_best, s.mean, s) for s in there if s.mean is not None]
    if measured:
        return max(measured, key=lambda each: each[:2])[2], ""
    marks = [mark for state, mark in _MARKS.items() if any(s.state == state for s in there)]
    return None, marks[0] if marks else _NOT_VISITED


def _drawn(cell: Cell, form: str, width: int, low: float, high: float) -> tuple[str, Style | str]:
    summary, mark = cell
    if summary is None or summary.mean is None:
        return f"{mark:>{width}}", "dim"
    at = (summary.mean - low) / (high - low) if high > low else 1.0
    best = "*" if summary.is_best else ""
    percent = f"{100 * summary.mean:.{form}f}"[: width - 1].rstrip(".") if form != "rank" else ""
    text = f"{best}{percent}" or str(min(9, int(10 * at)))
    return f"{text:>{width}}", _style(at)


def _style(at: float) -> Style:
    """The colour of an accuracy that is so far up between the lowest and the highest."""
    place = at * (len(_SCALE) - 1)
    below = min(int(place), len(_SCALE) - 2)
    part = place - below
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(_SCALE[below], _SCALE[below + 1], strict=True))
    is_bright = 0.299 * red + 0.587 * green + 0.114 * blue > 120
    return Style(color="black" if is_bright else "white", bgcolor=Color.from_rgb(red, green, blue))


def _header(labels: Sequence[str], width: int) -> str:
    """The labels at the right ends of their columns, as many as have room."""
    line = ""
    for i, label in enumerate(labels):
        end = (i + 1) * width
        if i == 0 or end - len(label) > len(line):
            line = line.ljust(end - len(label)) + label
    return line


def _legend(cells: Sequence[Sequence[Cell]]) -> str:
    there = {mark for row in cells for _, mark in row}
    words = [f"{mark} {state}" for state, mark in _MARKS.items() if mark in there]
    best = ["* best so far"] if any(s is not None and s.is_best for row in cells for s, _ in row) else []
    return ", ".join(best + words + ([f"{_NOT_VISITED} not visited"] if _NOT_VISITED in there else []))
