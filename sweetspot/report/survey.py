"""The curves of a survey as a file: a page, a picture, or numbers."""

import html
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweetspot.errors import RunError, UserError
from sweetspot.report.text import MEANING
from sweetspot.store import Probe
from sweetspot.study.survey import Survey, SurveyPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".html", ".png", ".json")
_FRACTION = "fraction"
_PANELS = {
    "accuracy": ("Teacher's accuracy", _FRACTION),
    "non_target_mass": ("Softness: non-target mass, 1 − p_y", _FRACTION),
    "similarity_entropy": ("Similarity entropy, S", "nats"),
    "class_information": ("Class information, C", "nats"),
    "image_information": ("Image information, I", "nats"),
    "delivered_similarity": ("Delivered similarity, M", "nats"),
}
_PROBES: dict[Probe, str] = {"train": "training views", "validation": "validation"}
_ROWS, _COLUMNS = 2, 3
_FAINT = 0.3
_LABEL = 0.07  # the width of a label of four digits, of the width of a panel
_DASHES = (0, (4, 2))
_GREY = "#555555"
_GRID = "#e6e6e6"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1700px; padding: 16px 24px; color: #222; background: #fff;
  font-family: system-ui, sans-serif; }}
h1 {{ font-size: 20px; margin: 0 0 4px; }}
p {{ font-size: 14px; margin: 0 0 4px; color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
{figure}
</body>
</html>
"""


@dataclass(frozen=True)
class _Line:
    """What one batch size and probe draw in every panel: a mark for each teacher, joined; and faintly the trunk."""

    batch_size: int
    probe: Probe
    colour: str
    teachers: list[SurveyPoint]
    trunk: list[SurveyPoint]

    @property
    def is_dashed(self) -> bool:
        return self.probe == "validation"

    @property
    def face(self) -> str:
        """The colour inside a mark: those of validation are open."""
        return "white" if self.is_dashed else self.colour


def check_output(path: Path) -> None:
    """Refuse a file that :func:`write` could not write.

    Raises:
        UserError: if its suffix is another, or its folder is not there or cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output {path}: the suffix says what is written: {', '.join(SUFFIXES)}")
    try:
        if not path.parent.is_dir():
            raise UserError(f"--output {path}: there is no folder {path.parent}")
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(path.stat().st_mode):
                raise UserError(f"--output {path} is a folder: name a file in it")
        os.close(os.open(_part(path), os.O_WRONLY | os.O_CREAT, 0o666))
        _part(path).unlink()
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}") from None


def write(survey: Survey, path: Path) -> None:
    """Write the curves as the suffix says; the file is there whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    match path.suffix.lower():
        case ".html":
            content = page(survey).encode()
        case ".png":
            content = picture(survey)
        case _:
            content = (json.dumps(survey.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    try:
        try:
            _part(path).write_bytes(content)
            _part(path).replace(path)
        finally:
            _part(path).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the same command elsewhere trains nothing") from None


def _part(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}.part")


def page(survey: Survey) -> str:
    """An HTML page with everything in it: it asks nothing of the network."""
    # Imported here, as in picture(), because it takes long and a table needs none of it.
    from plotly.subplots import make_subplots

    titles = [title.replace("p_y", "p<sub>y</sub>") for title, _ in _PANELS.values()]
    figure = make_subplots(_ROWS, _COLUMNS, subplot_titles=titles, horizontal_spacing=0.065, vertical_spacing=0.14)
    for i, (name, (_, unit)) in enumerate(_PANELS.items()):
        at = {"row": i // _COLUMNS + 1, "col": i % _COLUMNS + 1}
        for line in _lines(survey):
            figure.add_trace(_trunk_trace(line, name), **at)
            figure.add_trace(_teachers_trace(line, name, unit), **at)
        low, high = map(math.log10, _span(survey))
        ticks = _ticks(survey)
        figure.update_xaxes(
            title_text="epochs", type="log", range=[low, high], tickvals=ticks, ticktext=list(map(str, ticks)), **at
        )
        figure.update_yaxes(title_text=unit, tickformat="~g", range=_range(survey, name), **at)
    figure.add_traces(_legend_traces(survey), rows=1, cols=1)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(
            gridcolor=_GRID, linecolor=_GREY, ticks="outside", zeroline=False, title={"standoff": 6, "font_size": 13}
        )
    figure.update_annotations(font_size=15)
    figure.update_layout(
        template="none",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        height=820,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        legend={"tracegroupgap": 6, "itemdoubleclick": False},
    )
    inner = figure.to_html(
        full_html=False, include_plotlyjs=True, config={"displayModeBar": False, "responsive": True}, div_id="survey"
    )
    said = "<br>".join(map(html.escape, _subtitle(survey)))
    return _PAGE.format(title=html.escape(_title(survey)), subtitle=said, figure=inner)


def _trunk_trace(line: _Line, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [point.epochs for point in line.trunk],
        "y": [_finite(point.values[name]) for point in line.trunk],
        "mode": "lines",
        "line": {"color": line.colour, "width": 1, "dash": "dash" if line.is_dashed else "solid"},
        "opacity": _FAINT,
        "legendgroup": str(line.batch_size),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _teachers_trace(line: _Line, name: str, unit: str) -> dict[str, Any]:
    hover = (
        f"batch {line.batch_size:,}, %{{x}} epochs (%{{customdata:,}} steps)<br>"
        f"%{{y:.4f}}{'' if unit == _FRACTION else f' {unit}'} on {_PROBES[line.probe]}<extra></extra>"
    )
    return {
        "type": "scatter",
        "x": [point.epochs for point in line.teachers],
        "y": [_finite(point.values[name]) for point in line.teachers],
        "customdata": [point.steps for point in line.teachers],
        **_marked(line),
        "legendgroup": str(line.batch_size),
        "showlegend": False,
        "hovertemplate": hover,
    }


def _marked(line: _Line) -> dict[str, Any]:
    return {
        "mode": "lines+markers",
        "line": {"color": line.colour, "width": 1.8, "dash": "dash" if line.is_dashed else "solid"},
        "marker": {"color": line.face, "size": 7, "line": {"color": line.colour, "width": 1.6}, "opacity": 1},
    }


def _legend_traces(survey: Survey) -> list[dict[str, Any]]:
    """Traces without points that stand in the legend: the probes, then the batch sizes."""
    empty: dict[str, Any] = {"type": "scatter", "x": [None], "y": [None]}
    sizes = [
        empty | {"name": f"{size:,}", "mode": "lines", "line": {"color": colour, "width": 5}, "legendgroup": str(size)}
        for size, colour in _colours(survey).items()
    ]
    sizes[0]["legendgrouptitle"] = {"text": "batch size"}
    probes = [
        empty
        | {
            "name": label,
            **_marked(_Line(0, probe, _GREY, [], [])),
            "legendgroup": "probes",
            "legendgrouptitle": {"text": "measured on"},
        }
        for probe, label in _PROBES.items()
    ]
    return probes + sizes


def picture(survey: Survey) -> bytes:
    """The same as a PNG."""
    from matplotlib.figure import Figure  # draws without pyplot, and so without any screen
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(15, 8.6), dpi=120, facecolor="white")
    figure.set_layout_engine("constrained", rect=(0.005, 0.005, 0.865, 0.855), h_pad=0.1, w_pad=0.1)
    panels = figure.subplots(_ROWS, _COLUMNS)
    for axes, (name, (title, unit)) in zip(panels.flat, _PANELS.items(), strict=True):
        axes.set_title(title.replace("p_y", "$p_y$"), fontsize=12)
        axes.set_xlabel("epochs")
        axes.set_ylabel(unit)
        _draw(axes, survey, name)
    probes = [Line2D([], [], **_style(_Line(0, probe, _GREY, [], [])), label=label) for probe, label in _PROBES.items()]
    sizes = [Line2D([], [], color=colour, linewidth=4, label=f"{size:,}") for size, colour in _colours(survey).items()]
    for handles, title, top in ((probes, "measured on", 0.845), (sizes, "batch size", 0.745)):
        figure.legend(
            handles=handles, title=title, alignment="left", loc="upper left", bbox_to_anchor=(0.883, top),
            frameon=False, fontsize=11, title_fontsize=11,
        )  # fmt: skip
    left = 0.012
    figure.text(left, 0.965, _title(survey), fontsize=15, fontweight="bold", va="center")
    figure.text(left, 0.945, "\n".join(_subtitle(survey)), fontsize=11, color=_GREY, va="top", linespacing=1.4)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw(axes: "Axes", survey: Survey, name: str) -> None:
    """One panel."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    for line in _lines(survey):
        for points, style in ((line.trunk, _faint(line)), (line.teachers, _style(line))):
            axes.plot([p.epochs for p in points], [p.values[name] for p in points], **style)
    axes.set_xscale("log")
    axes.set_xlim(*_span(survey))
    axes.set_ylim(*_range(survey, name))
    axes.set_xticks(_ticks(survey), list(map(str, _ticks(survey))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _style(line: _Line) -> dict[str, Any]:
    return {
        "color": line.colour,
        "linewidth": 1.6,
        "linestyle": _DASHES if line.is_dashed else "solid",
        "marker": "o",
        "markersize": 5,
        "markerfacecolor": line.face,
        "markeredgewidth": 1.4,
    }


def _faint(line: _Line) -> dict[str, Any]:
    style = {"color": line.colour, "linewidth": 0.9, "alpha": _FAINT}
    return style | {"linestyle": _DASHES if line.is_dashed else "solid"}


def _lines(survey: Survey) -> Iterator[_Line]:
    colours = _colours(survey)
    for curve in survey.curves:
        for probe in _PROBES:
            colour = colours[curve.batch_size]
            yield _Line(curve.batch_size, probe, colour, curve.of("teacher", probe), curve.of("trunk", probe))


def _colours(survey: Survey) -> dict[int, str]:
    """A colour for each batch size, dark for the smallest; the light end of the map is too pale on white."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    last = max(1, len(survey.curves) - 1)
    return {curve.batch_size: to_hex(mpl.colormaps["viridis"](0.9 * i / last)) for i, curve in enumerate(survey.curves)}


def _span(survey: Survey) -> tuple[float, float]:
    """The ends of the axis of epochs: the rungs', with room."""
    ladder = survey.config.search.ladder
    return ladder[0] / 1.15, ladder[-1] * 1.15


def _range(survey: Survey, name: str) -> tuple[float, float]:
    """The ends of a measure's axis: the teachers', with room. The trunk between them may lie far outside."""
    values = [point.values[name] for curve in survey.curves for point in curve.teachers]
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.02 * high, 0.001)
    return low - room, high + room


def _ticks(survey: Survey) -> list[int]:
    """The rungs, from the longest down those whose labels do not touch."""
    low, high = map(math.log, _span(survey))
    ticks: list[int] = []
    for epochs in reversed(survey.config.search.ladder):
        if not ticks or math.log(ticks[0] / epochs) > _LABEL * (high - low):
            ticks.insert(0, epochs)
    return ticks


def _title(survey: Survey) -> str:
    kind, colon, path = survey.config.data.dataset.partition(":")
    return f"{kind}{colon}{Path(path).name}: the responses of {survey.config.teacher.model} along its training"


def _subtitle(survey: Survey) -> list[str]:
    """The lines under the title: what was measured, what is drawn, and what is missing."""
    name = survey.config.teacher.schedule.name
    if survey.epochs_mean == "truncated":
        drawn = "faint lines: every epoch of the run, with BatchNorm as it was in training; some leave the panel"
    elif any(curve.trunk for curve in survey.curves):
        drawn = "faint lines: the trunk from which their decays branch off, with BatchNorm as it was in training"
    else:
        drawn = "each is a run of its own"
    diverged = [f"{curve.batch_size:,}" for curve in survey.curves if curve.diverged]
    return [
        f"Responses at temperature {survey.temperature:g}. Schedule “{name}”: epochs are {survey.epochs_mean} "
        f"({MEANING[survey.epochs_mean]}).",
        f"Marks: teachers at the rungs, which a trial would distill from; {drawn}.",
        *([f"Teachers that diverged are missing at batch size {', '.join(diverged)}."] if diverged else []),
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
