"""Pictures of one trial, as PNG: the class-similarity matrix of its teacher, and the curves of its students."""

import io
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from sweetspot.store import ClassSimilarity, Student

FEW_IMAGES = 50
"""A class with fewer has a mean response that says little."""

_DPI = 100
_LONGEST_NAME = 18
_PAD = 3.5
"""Points between a name and the picture."""
_MOST_LABELS = 100
_MOST_COLUMN_LABELS = 60
_MOST_NAMED_STUDENTS = 6
_SHADES = colormaps["viridis"].resampled(200)
_INK = "#333333"
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def similarity_picture(similarity: ClassSimilarity, classes: Sequence[str], temperature: float) -> bytes:
    """Which other classes a teacher thinks of when it sees an image of a class.

    Rows are the true classes, columns what the response says, classes that are taken for each other side by side. A
    class's own column is left out: it would outshine the others.
    """
    order = similar_order(similarity.matrix)
    matrix = similarity.matrix[np.ix_(order, order)].astype(float)
    np.fill_diagonal(matrix, np.nan)
    names = [_label(classes[k], similarity.images[k]) for k in order]
    count = len(order)
    every = -(-count // _MOST_LABELS)
    shown = range(0, count, every)
    side = float(np.clip(0.11 * count / every, 4.2, 10.5))
    points = float(np.clip(0.62 * 72 * side / len(shown), 6.5, 10.0))
    longest = max((len(names[k]) for k in shown), default=1)
    margin = 0.25 + longest * points * 0.6 / 72
    are_columns_named = len(shown) <= _MOST_COLUMN_LABELS
    below = margin if are_columns_named else 0.2
    width, height = margin + side + 1.1, below + side + 0.95
    figure = _figure(width, height)
    axes = figure.add_axes((margin / width, below / height, side / width, side / height))
    axes.set_facecolor("#e8e8e8")
    highest = float(np.nanmax(matrix)) if np.isfinite(matrix).any() else 1.0
    norm = PowerNorm(0.5, vmin=0.0, vmax=max(highest, 1e-12))  # most entries are small, and not nothing
    image = axes.imshow(100 * matrix, cmap=_SHADES, norm=_in_percent(norm), interpolation="nearest")
    # The names are texts: the lines and texts of ticks would take as long as all the rest of the picture.
    marks = 0 if every == 1 else 2
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(list(shown) if marks else [], ["" for _ in shown] if marks else [])
    axes.tick_params(length=marks, color=_INK)
    look: dict[str, Any] = {"fontsize": points, "color": _INK, "parse_math": False}
    beside, va, ha = axes.get_yaxis_text1_transform(marks + _PAD)
    for k in shown:
        axes.text(0, k, names[k], transform=beside, va=va, ha=ha, **look)
    if are_columns_named:
        under, va, ha = axes.get_xaxis_text1_transform(marks + _PAD)
        for k in shown:
            axes.text(k, 0, names[k], transform=under, va=va, ha=ha, rotation=90, **look)
    for spine in axes.spines.values():
        spine.set_visible(False)
    few = bool((similarity.images < FEW_IMAGES).any())
    said = "Rows: images of a class. Columns: mean response, the class itself left out (grey)."
    figure.text(0.12 / width, 1 - 0.28 / height, f"Which other classes the teacher thinks of, T = {temperature:g}",
                fontsize=12, weight="bold", color=_INK)  # fmt: skip
    figure.text(0.12 / width, 1 - 0.5 / height, said, fontsize=8.5, color=_INK)
    notes = ["Columns are in the order of the rows"] * (not are_columns_named)
    notes += [f"one name in {every}"] * (every > 1) + [f"* fewer than {FEW_IMAGES} images"] * few
    if notes:
        figure.text(0.12 / width, 1 - 0.68 / height, "; ".join(notes), fontsize=8.5, color=_INK)
    bar = figure.add_axes(((margin + side + 0.15) / width, below / height, 0.16 / width, min(side, 4) / height))
    scale = figure.colorbar(image, cax=bar)
    scale.ax.tick_params(labelsize=8, color=_INK, labelcolor=_INK)
    scale.ax.set_title("%", fontsize=9, color=_INK, y=1.0)
    scale.outline.set_visible(False)
    shades = (255 * _SHADES(range(200))[:, :3]).round().astype(np.uint8)
    greys = np.repeat(np.linspace(0, 255, 16).astype(np.uint8)[:, None], 3, axis=1)
    return _png(figure, np.concatenate([shades, greys]))


def similar_order(matrix: NDArray[Any]) -> list[int]:
    """The classes in an order in which those that are taken for each other lie side by side.

    By average linkage on ``1 - s``, where s is the mean response of each class to the other's images, as a share of
    the highest; leaves ordered optimally. Classes without images come last.

    Args:
        matrix: (K, K); rows of NaN for classes without images.
    """
    there = np.flatnonzero(np.isfinite(matrix).all(axis=1))
    absent = sorted(set(range(len(matrix))) - set(there.tolist()))
    if len(there) < 3:
        return [*there.tolist(), *absent]
    shared = matrix[np.ix_(there, there)].astype(float)
    shared = (shared + shared.T) / 2
    np.fill_diagonal(shared, 0.0)
    distance = 1 - shared / max(float(shared.max()), 1e-12)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [*there[leaves_list(tree)].tolist(), *absent]


def curves_picture(students: Sequence[Student]) -> bytes:
    """Each student's validation accuracy and training loss by epoch."""
    figure = _figure(8.4, 3.1)
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.84, bottom=0.17, wspace=0.24)
    for axes, key, title in zip(panels, ("accuracy", "loss"), ("Validation accuracy, %", "Training loss"), strict=True):
        for index, student in enumerate(students):
            values = np.asarray(student.curve.get(key, ()), dtype=float) * (100 if key == "accuracy" else 1)
            many = len(students) > len(_COLORS)
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=_COLORS[index % len(_COLORS)],
                linewidth=1 if many else 1.5,
                alpha=0.5 if many else 0.9,
                marker="." if len(values) <= 30 else None,
                label=f"student {student.replicate + 1}",
            )
        axes.set_title(title, fontsize=10, loc="left", color=_INK, y=1.0)  # its height need not be found
        axes.set_xlabel("epoch", fontsize=9, color=_INK)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(labelsize=8, color=_INK, labelcolor=_INK)
        axes.grid(color="#dddddd", linewidth=0.6)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color("#999999")
    if 1 < len(students) <= _MOST_NAMED_STUDENTS:
        panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    return _png(figure)


def _label(name: str, images: int) -> str:
    """A class's name as it fits, with a mark where it had few images."""
    plain = "".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in str(name)).strip() or "?"
    cut = plain if len(plain) <= _LONGEST_NAME else plain[: _LONGEST_NAME - 1] + "…"
    return cut + ("*" if images < FEW_IMAGES else "")


def _in_percent(norm: PowerNorm) -> PowerNorm:
    return PowerNorm(norm.gamma, vmin=0.0, vmax=100 * float(norm.vmax or 1.0))


def _figure(width: float, height: float) -> Figure:
    """A white figure of so many inches, without pyplot: its state belongs to whoever runs this process."""
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure, colors: NDArray[np.uint8] | None = None) -> bytes:
    """As a palette image, a third of the size.

    Args:
        colors: (n, 3) of the palette, n up to 256; None: those that suit the picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the font lacks are boxes
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture = Image.fromarray(drawn[..., :3].copy())
    palette = None
    if colors is not None:
        palette = Image.new("P", (1, 1))
        palette.putpalette(colors.tobytes())
    reduced = picture.quantize(256, Image.Quantize.MEDIANCUT, palette=palette, dither=Image.Dither.NONE)
    out = io.BytesIO()
    reduced.save(out, "PNG", compress_level=6)
    return out.getvalue()
