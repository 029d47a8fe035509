"""A figure as values: what stands where. Nothing here knows how it is drawn."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sweetspot.errors import UserError

Scale = Literal["linear", "log", "category"]
Symbol = Literal["circle", "square", "diamond", "triangle", "down", "hexagon", "plus", "x", "star", "dot"]
Role = Literal["ink", "muted", "faint", "accent", "page"]
Colour = Role | float
"""A role in the page's colours; or a place from 0 to 1 on the ordered map, which says low and high in grey, too."""


class NothingToShow(UserError):  # noqa: N818 - the name says what it means
    """A figure whose data is not there (yet): one line that says what is missing."""


# -- marks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line through points by their order.

    Attributes:
        hover: one text for each point; empty: the numbers alone. Plain text, as all texts here.
        group: what the legend calls it; the marks of a group are hidden and shown together.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: Colour = "ink"
    width: float = 1.8
    is_dashed: bool = False
    is_faint: bool = False
    hover: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Points:
    """Marks, with error bars where ``low`` and ``high`` are given.

    Attributes:
        colour: of all of them, unless ``values`` colours each by the panel's :class:`ColourScale`.
        low, high: ends of the error bars along y; None at a point without one.
        size: across, in the figure's pixels.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    symbol: Symbol = "circle"
    colour: Colour = "ink"
    values: tuple[float, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    size: float = 8.0
    is_open: bool = False
    hover: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Cells:
    """Coloured cells on two axes of categories, each with a text of some short lines inside."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    values: tuple[float, ...]
    texts: tuple[str, ...] = ()
    hover: tuple[str, ...] = ()
    text_size: float = 11.0


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from 0 to ``x`` at heights ``y``, each with a text at its end."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: Colour = "muted"
    texts: tuple[str, ...] = ()
    hover: tuple[str, ...] = ()


@dataclass(frozen=True)
class Intervals:
    """Horizontal intervals at heights ``y``, each with a mark at ``x`` and a text above."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    symbol: Symbol = "circle"
    colour: Colour = "ink"
    texts: tuple[str, ...] = ()
    hover: tuple[str, ...] = ()


@dataclass(frozen=True)
class Band:
    """The area between two curves."""

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    colour: Colour = "muted"
    group: str = ""


@dataclass(frozen=True)
class Region:
    """All of a panel between two values of an axis, shaded."""

    axis: Literal["x", "y"]
    low: float
    high: float
    colour: Colour = "muted"
    group: str = ""


@dataclass(frozen=True)
class Rule:
    """A straight line across a panel at a value of an axis."""

    axis: Literal["x", "y"]
    at: float
    colour: Colour = "muted"
    is_dashed: bool = True


Layer = Line | Points | Cells | Bars | Intervals | Band | Region | Rule


# -- panels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """An axis. One of categories has its first at 0, the second at 1, and a tick for each.

    Attributes:
        low, high: its ends; None: where the marks end, with room.
        ticks: empty: round numbers.
    """

    label: str = ""
    scale: Scale = "linear"
    low: float | None = None
    high: float | None = None
    ticks: tuple[Tick, ...] = ()


@dataclass(frozen=True)
class ColourScale:
    """What a colour of the ordered map means.

    Attributes:
        low: of its dark end.
        is_clipped: the dark end stands for lower values, too.
    """

    label: str
    low: float
    high: float
    is_clipped: bool = False

    def ticks(self) -> tuple[float, ...]:
        """The low end, and round numbers above it."""
        step = round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step + 0.5)
        return (self.low, *(step * i for i in range(first, math.floor(self.high / step) + 1)))

    def tick_label(self, tick: float) -> str:
        return f"{'≤ ' if self.is_clipped and tick == self.low else ''}{tick:.4g}"


def round_step(step: float) -> float:
    """The nearest of 1, 2, 5, 10, … that is not below ``step``, which is positive."""
    decade = 10.0 ** math.floor(math.log10(step))
    return next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= step)


@dataclass(frozen=True)
class Panel:
    """Axes with marks, the later drawn over the earlier.

    Attributes:
        is_wide: it has a row of its own.
        has_grid: whether lines mark the ticks.
    """

    title: str
    x: Axis
    y: Axis
    layers: tuple[Layer, ...]
    colours: ColourScale | None = None
    is_wide: bool = False
    has_grid: bool = True


@dataclass(frozen=True)
class Key:
    """An entry of the legend: a sample of a mark, and what it means.

    Attributes:
        symbol: None: a line alone; "swatch": an area.
    """

    label: str
    symbol: Symbol | Literal["swatch"] | None = None
    colour: Colour = "ink"
    is_open: bool = False
    line: Literal["none", "solid", "dashed"] = "none"
    is_faint: bool = False
    group: str = ""


@dataclass(frozen=True)
class Legend:
    title: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Figure:
    """A figure: its head, its panels row by row, its legends.

    Attributes:
        name: short, unique in a page: letters and "-".
        subtitle: lines that say what is to be seen, in honest words.
        columns: panels in a row.
        width, height: in pixels, without the head; where it is drawn in another size, a share of it.
    """

    name: str
    title: str
    subtitle: tuple[str, ...]
    panels: tuple[Panel, ...]
    legends: tuple[Legend, ...] = ()
    columns: int = 1
    height: int = 560
    width: int = 1000

    def places(self) -> Iterator[tuple[Panel, int, int]]:
        """Each panel with its row and its column, from 0."""
        row = column = 0
        for panel in self.panels:
            if column and (panel.is_wide or column == self.columns):
                row, column = row + 1, 0
            yield panel, row, column
            column += self.columns if panel.is_wide else 1

    @property
    def rows(self) -> int:
        return max(row for _, row, _ in self.places()) + 1
