"""Figures as pictures, drawn without a screen and without a browser."""

import html
import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from sweetspot.report.figures.scheme import LIGHT, MAP, PLACEHOLDERS, Scheme, on_map, text_on
from sweetspot.report.figures.spec import (
    Axis,
    Band,
    Bars,
    Cells,
    Figure,
    Intervals,
    Key,
    Layer,
    Line,
    Panel,
    Points,
    Region,
    Rule,
    Symbol,
)

_PIXELS = 100
"""An inch of the drawing has so many of the figure's pixels."""
_LEGEND = 190
_POINT = 72 / _PIXELS
_PNG_DPI = 180
_DASHES = (0, (4, 2))
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks
_MARKERS: dict[Symbol, str] = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^", "down": "v", "hexagon": "h", "plus": "P", "x": "X",
    "star": "*", "dot": "o",
}  # fmt: skip
_SIZES: dict[Symbol, float] = {"diamond": 0.85, "star": 1.45, "x": 1.05, "plus": 1.1, "hexagon": 1.1, "dot": 0.5}


def picture(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a PNG on white; or as an ``<svg>`` element to stand in an HTML page.

    The element has no background, and its colours are CSS variables (:func:`sweetspot.report.figures.scheme.variables`)
    with those of light pages to fall back on. Its ids begin with the figure's name.
    """
    if kind == "png":
        return _drawn(figure, LIGHT, "png")
    text = PLACEHOLDERS.in_css(_drawn(figure, PLACEHOLDERS, "svg", transparent=True).decode())
    name = re.sub(r"[^A-Za-z0-9-]", "-", figure.name)
    element = text[text.index("<svg") :]
    element = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", element)
    element = element.replace("*{stroke-", f"#{name}-svg *{{stroke-")
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', element)
    assert size is not None
    head = (
        f'<svg id="{name}-svg" role="img" aria-label="{html.escape(figure.title)}" viewBox="0 0 {size[1]} {size[2]}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return (head + element[element.index(">") + 1 :]).encode()


def svg_file(figure: Figure) -> bytes:
    """The figure as an SVG file on white, with plain colours, for programs that know no CSS variables."""
    return _drawn(figure, LIGHT, "svg")


def _drawn(figure: Figure, scheme: Scheme, kind: str, *, transparent: bool = False) -> bytes:
    file = io.BytesIO()
    with _settings(scheme):
        canvas = _canvas(figure, scheme)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {}
        canvas.savefig(file, format=kind, dpi=_PNG_DPI, transparent=transparent, metadata=metadata)
    return file.getvalue()


@contextmanager
def _settings(scheme: Scheme) -> Iterator[None]:
    settings: Any = {
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and is wider than what browsers put in its place
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "text.color": scheme.ink,
        "axes.titlecolor": scheme.ink,
        "axes.labelcolor": scheme.ink,
        "axes.edgecolor": scheme.muted,
        "xtick.color": scheme.muted,
        "ytick.color": scheme.muted,
        "xtick.labelcolor": scheme.ink,
        "ytick.labelcolor": scheme.ink,
        "axes.facecolor": "none",
        "figure.facecolor": scheme.page,
        "text.parse_math": False,  # a "$" in a name is a "$"
        "svg.fonttype": "none",
        "svg.hashsalt": "sweetspot",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of names in scripts that the font lacks
        yield


# -- layout -----------------------------------------------------------------------------------------------------------


def _canvas(figure: Figure, scheme: Scheme) -> Canvas:
    width = figure.width
    title = _wrapped(figure.title, round(0.084 * width), 2)
    subtitle = [part for line in figure.subtitle for part in _wrapped(line, round(0.146 * width), 3)]
    head = 14 + 22 * len(title) + 17 * len(subtitle) + 10
    height = figure.height + head
    canvas = Canvas(figsize=(width / _PIXELS, height / _PIXELS), dpi=_PIXELS)
    right = 1 - (_LEGEND / width if figure.legends else 0.01)
    pads = {"h_pad": 0.06, "w_pad": 0.06, "hspace": 0.06, "wspace": 0.05}
    canvas.set_layout_engine("constrained", rect=(0.006, 0.006, right - 0.006, 1 - head / height - 0.006), **pads)
    canvas.text(12 / width, 1 - 14 / height, "\n".join(title), fontsize=12.5, fontweight="bold", va="top")
    canvas.text(
        12 / width, 1 - (16 + 22 * len(title)) / height, "\n".join(subtitle), fontsize=9, color=scheme.muted, va="top",
        linespacing=1.35,
    )  # fmt: skip
    grid = canvas.add_gridspec(figure.rows, figure.columns)
    for panel, row, column in figure.places():
        axes = canvas.add_subplot(grid[row, :] if panel.is_wide else grid[row, column])
        _draw_panel(canvas, axes, panel, scheme)
    _draw_legends(canvas, figure, head, scheme)
    return canvas


def _draw_legends(canvas: Canvas, figure: Figure, head: float, scheme: Scheme) -> None:
    height = figure.height + head
    top = head + 8.0
    for legend in figure.legends:
        labels = [_wrapped(key.label, 21, 4) for key in legend.keys]
        title = _wrapped(legend.title, 25, 2)
        canvas.legend(
            handles=[_sample(key, "\n".join(label), scheme) for key, label in zip(legend.keys, labels, strict=True)],
            title="\n".join(title), alignment="left", loc="upper left",
            bbox_to_anchor=(1 - _LEGEND / figure.width, 1 - top / height),
            frameon=False, fontsize=8.5, handlelength=1.6, labelspacing=0.45, borderpad=0,
            borderaxespad=0, handletextpad=0.6, title_fontproperties={"weight": "bold", "size": 8.5},
        )  # fmt: skip
        top += 15.5 * sum(map(len, labels)) + 3.0 * len(labels) + 17 * len(title) + 18


def _sample(key: Key, label: str, scheme: Scheme) -> Line2D | Patch:
    colour = scheme.colour(key.colour)
    if key.symbol == "swatch":
        return Patch(facecolor=colour, alpha=0.3 if key.is_faint else 1.0, label=label)
    style: dict[str, Any] = {"linestyle": {"none": "none", "solid": "solid", "dashed": _DASHES}[key.line]}
    if key.symbol is not None:
        size = 8 * _POINT * _SIZES.get(key.symbol, 1.0)
        face = scheme.page if key.is_open else colour
        edge = colour if key.is_open or key.symbol in ("x", "dot") else scheme.ink
        style |= {"marker": _MARKERS[key.symbol], "markersize": size, "markerfacecolor": face}
        style |= {"markeredgecolor": edge, "markeredgewidth": 1.1 if key.is_open else 0.5}
    width = 1.0 if key.is_faint else 1.6
    return Line2D([], [], color=colour, linewidth=width, alpha=0.5 if key.is_faint else 1, label=label, **style)


def _wrapped(text: str, width: int, lines: int) -> list[str]:
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" …") or [""]


# -- panels -----------------------------------------------------------------------------------------------------------


def _draw_panel(canvas: Canvas, axes: Axes, panel: Panel, scheme: Scheme) -> None:
    if panel.title:
        axes.set_title(panel.title, loc="left", pad=7)
    norm = None
    if panel.colours is not None:
        norm = Normalize(panel.colours.low, panel.colours.high)
    for i, layer in enumerate(panel.layers):
        _draw(axes, layer, scheme, norm, 2 + 0.01 * i)
    _set_axis(axes, "x", panel.x)
    _set_axis(axes, "y", panel.y)
    if panel.has_grid:
        axes.grid(color=scheme.grid, linewidth=0.7)
        axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3, width=0.7)
    if panel.colours is not None and norm is not None:
        shades = ScalarMappable(norm, LinearSegmentedColormap.from_list("map", MAP))
        bar = canvas.colorbar(shades, ax=axes, fraction=0.035, pad=0.015, aspect=28)
        bar.set_label(panel.colours.label)
        bar.outline.set_visible(False)
        if panel.colours.is_clipped:
            ticks = panel.colours.ticks()
            bar.set_ticks(ticks, labels=[panel.colours.tick_label(tick) for tick in ticks])
        else:
            bar.ax.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))


def _set_axis(axes: Axes, which: Literal["x", "y"], axis: Axis) -> None:
    own = axes.xaxis if which == "x" else axes.yaxis
    own.set_label_text(axis.label)
    set_ends = axes.set_xlim if which == "x" else axes.set_ylim
    if axis.scale == "log":
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        own.set_minor_locator(NullLocator())
    elif not axis.ticks:
        own.set_major_locator(MaxNLocator(7, steps=_STEPS))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
    if axis.ticks:
        own.set_ticks([tick.at for tick in axis.ticks], [tick.label for tick in axis.ticks])
    if axis.scale == "category":
        set_ends(-0.5, len(axis.ticks) - 0.5)
    elif axis.low is not None or axis.high is not None:
        set_ends(axis.low, axis.high)


def _draw(axes: Axes, layer: Layer, scheme: Scheme, norm: Normalize | None, z: float) -> None:
    match layer:
        case Line():
            style = {"linestyle": _DASHES if layer.is_dashed else "solid", "alpha": 0.4 if layer.is_faint else 1.0}
            colour = scheme.colour(layer.colour)
            axes.plot(layer.x, layer.y, color=colour, linewidth=layer.width * _POINT, zorder=z, **style)  # type: ignore[arg-type]
        case Points():
            _draw_points(axes, layer, scheme, norm, z)
        case Cells():
            assert norm is not None
            _draw_cells(axes, layer, scheme, norm, z)
        case Bars():
            axes.barh(layer.y, layer.x, 0.6, color=scheme.colour(layer.colour), zorder=z)
            for x, y, text in zip(layer.x, layer.y, layer.texts, strict=False):
                axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5, zorder=z)
            axes.margins(x=0.16)
            axes.set_xlim(left=0)
        case Intervals():
            means, low, high = (np.asarray(values) for values in (layer.x, layer.low, layer.high))
            colour = scheme.colour(layer.colour)
            axes.errorbar(
                layer.x, layer.y, xerr=[means - low, high - means], fmt=_MARKERS[layer.symbol], color=colour,
                markersize=6, capsize=3, elinewidth=1.6, capthick=1.2, zorder=z,
            )  # fmt: skip
            for at, y, text in zip(layer.x, layer.y, layer.texts, strict=False):
                box = {"facecolor": scheme.page, "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
                axes.annotate(
                    text, (at, y), (0, 7), textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
                    bbox=box, zorder=z,
                )  # fmt: skip
        case Band():
            colour = scheme.colour(layer.colour)
            axes.fill_between(layer.x, layer.low, layer.high, color=colour, alpha=0.2, linewidth=0, zorder=z)
        case Region():
            span = axes.axvspan if layer.axis == "x" else axes.axhspan
            span(layer.low, layer.high, color=scheme.colour(layer.colour), alpha=0.2, linewidth=0, zorder=1)
        case Rule():
            rule = axes.axvline if layer.axis == "x" else axes.axhline
            style = {"linestyle": _DASHES if layer.is_dashed else "solid"}
            rule(layer.at, color=scheme.colour(layer.colour), linewidth=1.0, zorder=1.5, **style)  # type: ignore[arg-type]


def _draw_points(axes: Axes, layer: Points, scheme: Scheme, norm: Normalize | None, z: float) -> None:
    one = scheme.colour(layer.colour)
    colours: str | list[str] = one
    if layer.values and norm is not None:
        colours = [on_map(float(norm(value))) for value in layer.values]
    if any(low is not None for low in layer.low):
        bars = [(x, y, lo, hi) for x, y, lo, hi in zip(layer.x, layer.y, layer.low, layer.high, strict=True)
                if lo is not None and hi is not None]  # fmt: skip
        at, middle, low, high = (np.array(values) for values in zip(*bars, strict=True))
        colour = scheme.muted if layer.values else one
        axes.errorbar(
            at, middle, yerr=[middle - low, high - middle], fmt="none", ecolor=colour, elinewidth=0.9, capsize=0,
            alpha=0.6, zorder=z,
        )  # fmt: skip
    size = (layer.size * _POINT * _SIZES.get(layer.symbol, 1.0)) ** 2
    if layer.is_open:
        style: dict[str, Any] = {"facecolors": scheme.page, "edgecolors": colours, "linewidths": 1.2}
    elif layer.symbol == "x":
        style = {"facecolors": colours, "edgecolors": scheme.page, "linewidths": 0.4}
    elif layer.symbol == "dot":
        style = {"facecolors": colours, "edgecolors": "none"}
    else:
        style = {"facecolors": colours, "edgecolors": scheme.ink, "linewidths": 0.5}
    axes.scatter(layer.x, layer.y, size, marker=_MARKERS[layer.symbol], zorder=z + 0.005, clip_on=False, **style)


def _draw_cells(axes: Axes, layer: Cells, scheme: Scheme, norm: Normalize, z: float) -> None:
    colours = [on_map(float(norm(value))) for value in layer.values]
    corners: Sequence[tuple[float, float]] = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
    boxes = [[(x + dx, y + dy) for dx, dy in corners] for x, y in zip(layer.x, layer.y, strict=True)]
    axes.add_collection(PolyCollection(boxes, facecolors=colours, edgecolors=scheme.page, linewidths=1.5, zorder=z))
    for x, y, colour, text in zip(layer.x, layer.y, colours, layer.texts, strict=False):
        axes.text(
            x, y, text, color=text_on(colour), ha="center", va="center", fontsize=layer.text_size * _POINT,
            linespacing=1.25, zorder=z + 0.005,
        )  # fmt: skip
