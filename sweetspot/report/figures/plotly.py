"""Figures for browsers and notebooks, drawn by plotly."""

import html
import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sweetspot.report.figures.scheme import DARK, LIGHT, MAP, Scheme, on_map, text_on
from sweetspot.report.figures.spec import (
    Axis,
    Band,
    Bars,
    Cells,
    ColourScale,
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

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_SYMBOLS: dict[Symbol, str] = {
    "circle": "circle", "square": "square", "diamond": "diamond", "triangle": "triangle-up", "down": "triangle-down",
    "hexagon": "hexagon", "plus": "cross", "x": "x", "star": "star", "dot": "circle",
}  # fmt: skip
_SIZES: dict[Symbol, float] = {"star": 1.3, "triangle": 1.15, "down": 1.15, "dot": 0.5}
_DIGITS = 5
_FONT = "system-ui, sans-serif"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: {width}px; padding: 16px 24px; font-family: system-ui, sans-serif;
  color: {light.ink}; background: {light.page}; }}
h1 {{ font-size: 20px; margin: 0 0 4px; overflow-wrap: anywhere; }}
p {{ font-size: 14px; margin: 0 0 4px; color: {light.muted}; }}
@media screen and (prefers-color-scheme: dark) {{
  body {{ color: {dark.ink}; background: {dark.page}; }}
  p {{ color: {dark.muted}; }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
<div id="figure"></div>
<script>{plotly}</script>
<script>
const figures = {figures};
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw(name) {{
  const {{ data, layout }} = figures[name];
  Plotly.react("figure", data, layout, {{ displayModeBar: false, responsive: true }});
}}
const fit = () => draw(dark.matches ? "dark" : "light");
dark.addEventListener("change", fit);
addEventListener("beforeprint", () => draw("light"));
addEventListener("afterprint", fit);
fit();
</script>
</body>
</html>
"""


def plotly_figure(figure: Figure, scheme: Scheme = LIGHT) -> "PlotlyFigure":
    """The figure as plotly's own."""
    # Imported here because it takes long, and a worker needs none of it.
    from plotly.graph_objects import Figure as PlotlyFigure

    return PlotlyFigure(plotly_values(figure, scheme))


def plotly_values(figure: Figure, scheme: Scheme = LIGHT, *, with_head: bool = True) -> dict[str, Any]:
    """Data and layout of the figure, for plotly's JSON: numbers of five digits, so that it is small anywhere.

    Values, and not plotly's objects: those take 0.05 s a figure, and workers write figures while they train.

    Args:
        with_head: whether title and subtitle are part of it.
    """
    places = list(figure.places())
    labels = [tick.label for panel, _, column in places for tick in panel.y.ticks if column > 0]
    between = 0.17 / figure.columns + 0.0075 * max(map(len, labels), default=0)
    columns = _ends(figure.columns, between if figure.columns > 1 else 0.0)
    rows = _ends(figure.rows, 0.17 / (figure.rows - 1) if figure.rows > 1 else 0.0)[::-1]  # from the top
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"shapes": [], "annotations": []}
    for i, (panel, row, column) in enumerate(places):
        axis = "" if i == 0 else str(i + 1)
        width = [columns[0][0], columns[-1][1]] if panel.is_wide else columns[column]
        layout[f"xaxis{axis}"] = {"anchor": f"y{axis}", "domain": width}
        layout[f"yaxis{axis}"] = {"anchor": f"x{axis}", "domain": rows[row]}
        traces += _draw_panel(layout, panel, axis, scheme)
    traces += [{**trace, "xaxis": "x", "yaxis": "y"} for trace in _legend(figure, scheme)]
    has_scale = any(panel.colours is not None for panel in figure.panels)
    head = _head(figure, scheme) if with_head else {"margin": {"l": 60, "r": 10, "t": 34, "b": 50}}
    layout |= {
        "template": {"data": {"scatter": [{"type": "scatter"}]}},  # none of plotly's
        "font": {"family": _FONT, "size": 13, "color": scheme.ink},
        "paper_bgcolor": scheme.page,
        "plot_bgcolor": scheme.page,
        "height": figure.height + head["margin"]["t"],
        "hoverlabel": {"align": "left", "font": {"family": _FONT, "size": 12}},
        "legend": {"x": 1.13 if has_scale else 1.02, "y": 1, "tracegroupgap": 3, "itemdoubleclick": False,
                   "font": {"size": 12}, "grouptitlefont": {"size": 12}},
        "barmode": "overlay",
        **head,
    }  # fmt: skip
    return {"data": traces, "layout": {key: value for key, value in layout.items() if value != []}}


def plotly_json(values: dict[str, Any]) -> str:
    """What :func:`plotly_values` gives as JSON that may stand in any page."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("/", "\\u002f")


def _ends(count: int, between: float) -> list[list[float]]:
    """Beginning and end of so many panels beside each other, as shares of the whole."""
    size = (1 - between * (count - 1)) / count
    return [[i * (size + between), min(1.0, i * (size + between) + size)] for i in range(count)]


def page(figure: Figure) -> str:
    """An HTML page with everything in it, for light and dark screens: it asks nothing of the network."""
    from plotly.offline import get_plotlyjs

    both = {name: plotly_values(figure, scheme, with_head=False) for name, scheme in (("light", LIGHT), ("dark", DARK))}
    return _PAGE.format(
        title=html.escape(figure.title),
        subtitle="<br>".join(map(html.escape, figure.subtitle)),
        plotly=get_plotlyjs(),
        figures=plotly_json(both),
        width=round(1.3 * figure.width),
        light=LIGHT,
        dark=DARK,
    )


def _head(figure: Figure, scheme: Scheme) -> dict[str, Any]:
    """Title, subtitle, and the margin that they need."""
    title = textwrap.wrap(figure.title, 95, max_lines=2, placeholder=" …") or [""]
    subtitle = [part for line in figure.subtitle for part in textwrap.wrap(line, 140)]
    said = f"<b>{_text(chr(10).join(title))}</b>" + "".join(
        f'<br><span style="font-size:13px;color:{scheme.muted}">{_text(line)}</span>' for line in subtitle
    )
    top = 24 * len(title) + 20 * len(subtitle) + 46
    heading = {"text": said, "font": {"size": 17}, "x": 0, "xref": "container", "xanchor": "left", "y": 1,
               "yref": "container", "yanchor": "top", "pad": {"l": 14, "t": 14}}  # fmt: skip
    return {"title": heading, "margin": {"l": 60, "r": 10, "t": top, "b": 50}}


def _text(text: str) -> str:
    """Plain text as plotly takes it: it knows some tags."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _texts(texts: Sequence[str]) -> list[str]:
    return [_text(text) for text in texts]


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Numbers in a few digits; None where there is none."""
    return [None if value is None or not math.isfinite(value) else _rounded(value) for value in values]


def _rounded(value: float) -> float:
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


# -- panels -----------------------------------------------------------------------------------------------------------


def _draw_panel(layout: dict[str, Any], panel: Panel, axis: str, scheme: Scheme) -> list[dict[str, Any]]:
    """The traces of a panel; its axes, shapes and title become part of the layout."""
    at = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    traces = []
    for layer in panel.layers:
        match layer:
            case Region() | Rule():
                layout["shapes"].append(_shape(layer, axis, scheme))
            case _:
                traces.append({**_trace(layer, panel.colours, scheme), **at})
    if not traces:
        traces.append({"type": "scatter", "x": [None], "y": [None], "showlegend": False, **at})
    if panel.title:
        layout["annotations"].append(
            {"text": f"<b>{_text(panel.title)}</b>", "xref": f"x{axis} domain", "yref": f"y{axis} domain", "x": 0,
             "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 6, "showarrow": False, "font": {"size": 13}}
        )  # fmt: skip
    look = {
        "gridcolor": scheme.grid, "linecolor": scheme.muted, "tickcolor": scheme.muted, "ticks": "outside",
        "ticklen": 4, "showline": True, "zeroline": False, "showgrid": panel.has_grid,
    }  # fmt: skip
    layout[f"xaxis{axis}"] |= _axis(panel.x) | look
    layout[f"yaxis{axis}"] |= _axis(panel.y) | look | {"automargin": True}
    return traces


def _axis(axis: Axis) -> dict[str, Any]:
    values: dict[str, Any] = {"title": {"text": _text(axis.label), "standoff": 8, "font": {"size": 13}}}
    low, high = axis.low, axis.high
    if axis.scale == "log":
        values["type"] = "log"
        low, high = (None if end is None else math.log10(end) for end in (low, high))
    if axis.scale == "category":
        low, high = -0.5, len(axis.ticks) - 0.5
    if low is not None and high is not None:
        values["range"] = _short([low, high])
    if axis.ticks:
        values |= {
            "tickmode": "array",
            "tickvals": _short([tick.at for tick in axis.ticks]),
            "ticktext": _texts([tick.label for tick in axis.ticks]),
        }
    elif axis.scale == "linear":
        values |= {"nticks": 8, "tickformat": ",~g"}
    return values


def _shape(layer: Region | Rule, axis: str, scheme: Scheme) -> dict[str, Any]:
    colour = scheme.colour(layer.colour)
    along, across = (f"x{axis}", f"y{axis} domain") if layer.axis == "x" else (f"x{axis} domain", f"y{axis}")
    ends = (layer.low, layer.high) if isinstance(layer, Region) else (layer.at, layer.at)
    first, second = _short(ends)
    place = {"x0": first, "x1": second, "y0": 0, "y1": 1} if layer.axis == "x" else {
        "x0": 0, "x1": 1, "y0": first, "y1": second}  # fmt: skip
    if isinstance(layer, Region):
        look: dict[str, Any] = {"type": "rect", "fillcolor": colour, "opacity": 0.2, "line": {"width": 0}}
    else:
        line = {"color": colour, "width": 1.2, "dash": "dash" if layer.is_dashed else "solid"}
        look = {"type": "line", "line": line}
    return {"xref": along, "yref": across, "layer": "below", **place, **look}


def _trace(layer: Layer, colours: ColourScale | None, scheme: Scheme) -> dict[str, Any]:
    match layer:
        case Line():
            trace: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": _short(layer.x), "y": _short(layer.y)}
            dash = "dash" if layer.is_dashed else "solid"
            trace |= {"line": {"color": scheme.colour(layer.colour), "width": layer.width, "dash": dash}}
            trace |= {"opacity": 0.4 if layer.is_faint else 1, "legendgroup": layer.group, "showlegend": False}
            return trace | (_hover(layer.hover) if layer.hover else {"hoverinfo": "skip"})
        case Points():
            return _points(layer, colours, scheme)
        case Cells():
            assert colours is not None
            return _cells(layer, colours, scheme)
        case Bars():
            return {
                "type": "bar", "orientation": "h", "x": _short(layer.x), "y": _short(layer.y), "width": 0.6,
                "marker": {"color": scheme.colour(layer.colour)}, "text": _texts(layer.texts),
                "textposition": "outside", "textangle": 0, "cliponaxis": False, "showlegend": False,
                **_hover(layer.hover),
            }  # fmt: skip
        case Intervals():
            colour = scheme.colour(layer.colour)
            up = [high - x for high, x in zip(layer.high, layer.x, strict=True)]
            down = [x - low for low, x in zip(layer.low, layer.x, strict=True)]
            return {
                "type": "scatter", "mode": "markers+text" if layer.texts else "markers",
                "x": _short(layer.x), "y": _short(layer.y), "text": _texts(layer.texts), "textposition": "top center",
                "marker": {"color": colour, "size": 9, "symbol": _SYMBOLS[layer.symbol]},
                "error_x": {"type": "data", "symmetric": False, "array": _short(up), "arrayminus": _short(down),
                            "color": colour, "thickness": 2, "width": 4},
                "showlegend": False, **_hover(layer.hover),
            }  # fmt: skip
        case Band():
            return {
                "type": "scatter", "mode": "lines", "x": _short([*layer.x, *reversed(layer.x)]),
                "y": _short([*layer.low, *reversed(layer.high)]), "fill": "toself", "line": {"width": 0},
                "fillcolor": _faded(scheme.colour(layer.colour), 0.2), "hoverinfo": "skip", "showlegend": False,
                "legendgroup": layer.group,
            }  # fmt: skip
        case _:
            raise TypeError(f"{type(layer).__name__} is no trace")


def _points(layer: Points, colours: ColourScale | None, scheme: Scheme) -> dict[str, Any]:
    one = scheme.colour(layer.colour)
    marker: dict[str, Any] = {
        "symbol": _SYMBOLS[layer.symbol], "size": layer.size * _SIZES.get(layer.symbol, 1.0), "opacity": 1,
        "color": one, "line": {"color": scheme.ink, "width": 0.8},
    }  # fmt: skip
    if layer.values and colours is not None:
        marker |= {"color": _short(layer.values), **_scale(colours, scheme)}
    elif layer.is_open:
        marker |= {"color": scheme.page, "line": {"color": one, "width": 1.6}}
    elif layer.symbol in ("dot", "x"):
        marker["line"] = {"width": 0}
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "x": _short(layer.x), "y": _short(layer.y), "marker": marker,
        "legendgroup": layer.group, "showlegend": False, "cliponaxis": False,
    }  # fmt: skip
    if any(low is not None for low in layer.low):
        ends = list(zip(layer.y, layer.low, layer.high, strict=True))
        trace["error_y"] = {
            "type": "data", "symmetric": False, "width": 0, "thickness": 1.2,
            "array": _short([0.0 if high is None else high - y for y, _, high in ends]),
            "arrayminus": _short([0.0 if low is None else y - low for y, low, _ in ends]),
            "color": _faded(scheme.muted if layer.values else one, 0.6),
        }  # fmt: skip
    return trace | (_hover(layer.hover) if layer.hover else {"hovertemplate": "%{x}, %{y}<extra></extra>"})


def _cells(layer: Cells, colours: ColourScale, scheme: Scheme) -> dict[str, Any]:
    columns, rows = range(int(max(layer.x)) + 1), range(int(max(layer.y)) + 1)

    def grid(values: Sequence[Any], missing: Any) -> list[list[Any]]:
        there = dict(zip(zip(layer.x, layer.y, strict=True), values, strict=True))
        return [[there.get((x, y), missing) for x in columns] for y in rows]

    trace: dict[str, Any] = {
        "type": "heatmap", "x0": 0, "y0": 0, "z": grid(_short(layer.values), None), "xgap": 2, "ygap": 2,
        "hoverongaps": False, **_scale(colours, scheme, "z"),
    }  # fmt: skip
    if layer.texts:
        span = max(colours.high - colours.low, 1e-12)
        inks = [text_on(on_map((value - colours.low) / span)) for value in layer.values]
        texts = [f'<span style="color:{ink}">{_text(text)}</span>' for ink, text in zip(inks, layer.texts, strict=True)]
        trace |= {"text": grid(texts, ""), "texttemplate": "%{text}", "textfont": {"size": layer.text_size}}
    return trace | {"hovertext": grid(_texts(layer.hover), ""), "hoverinfo": "text"}


def _scale(colours: ColourScale, scheme: Scheme, letter: str = "c") -> dict[str, Any]:
    bar: dict[str, Any] = {
        "title": {"text": _text(colours.label), "side": "right", "font": {"size": 13, "color": scheme.ink}},
        "tickfont": {"size": 12, "color": scheme.ink}, "thickness": 14, "outlinewidth": 0, "x": 1.01, "xpad": 4,
        "nticks": 7, "tickformat": ",~g",
    }  # fmt: skip
    if colours.is_clipped:
        ticks = colours.ticks()
        bar |= {"tickmode": "array", "tickvals": _short(ticks), "ticktext": [colours.tick_label(t) for t in ticks]}
    places = [[i / (len(MAP) - 1), colour] for i, colour in enumerate(MAP)]
    low, high = _short([colours.low, colours.high])
    ends = {f"{letter}min": low, f"{letter}max": high}
    return {"colorscale": places, **ends, "showscale": True, "colorbar": bar}


def _hover(texts: Sequence[str]) -> dict[str, Any]:
    return {"hovertext": _texts(texts), "hoverinfo": "text"} if texts else {"hoverinfo": "skip"}


def _faded(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


# -- legend -----------------------------------------------------------------------------------------------------------


def _legend(figure: Figure, scheme: Scheme) -> Iterator[dict[str, Any]]:
    """Traces without points that stand in the legend."""
    for i, legend in enumerate(figure.legends):
        for j, key in enumerate(legend.keys):
            label = "<br>".join(_texts(textwrap.wrap(key.label, 26)))
            trace = {
                "type": "scatter", "x": [None], "y": [None], "name": label,
                "legendgroup": key.group or f"key {i} {j}", **_sample(key, scheme),
            }  # fmt: skip
            if j == 0:
                trace["legendgrouptitle"] = {"text": f"<b>{_text(legend.title)}</b>"}
            yield trace


def _sample(key: Key, scheme: Scheme) -> dict[str, Any]:
    colour = scheme.colour(key.colour)
    if key.symbol == "swatch":
        fill = _faded(colour, 0.3) if key.is_faint else colour
        return {"mode": "markers", "marker": {"symbol": "square", "size": 13, "color": fill, "line": {"width": 0}}}
    parts = []
    sample: dict[str, Any] = {"opacity": 0.5 if key.is_faint else 1}
    if key.line != "none":
        parts.append("lines")
        sample["line"] = {"color": colour, "width": 2, "dash": "dash" if key.line == "dashed" else "solid"}
    if key.symbol is not None:
        parts.append("markers")
        edge = {"color": colour, "width": 1.6} if key.is_open else {"color": scheme.ink, "width": 0.8}
        size = 9 * _SIZES.get(key.symbol, 1.0)
        face = scheme.page if key.is_open else colour
        sample["marker"] = {"symbol": _SYMBOLS[key.symbol], "size": size, "color": face, "line": edge}
    return sample | {"mode": "+".join(parts)}
