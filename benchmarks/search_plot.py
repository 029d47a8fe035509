"""The picture of a comparison: regret against cost, every method with its name beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

_COLOURS = {
    "sweetspot": "#c1272d",
    "plain_optuna": "#2b6cb0",
    "random": "#8a8a8a",
    "exhaustive": "#1a1a1a",
    "shared_grid": "#2f855a",
    "default_middle": "#b7791f",
    "default_most_accurate": "#6b46c1",
    "oracle": "#d53f8c",
}
_NAMES = {
    "sweetspot": "Sweetspot",
    "plain_optuna": "plain Optuna",
    "random": "random, shared",
    "exhaustive": "exhaustive",
    "shared_grid": "shared grid, racing",
    "default_middle": "middle of the grid",
    "default_most_accurate": "most accurate teacher",
    "oracle": "oracle",
}
_WITHOUT_A_SEARCH = ("default_middle", "default_most_accurate", "oracle")
_LABEL_POINTS = 12.0
"""Least distance between the labels of two lines, in points of type."""


def draw(told: Mapping[str, Any], title: str, path: Path) -> None:
    """Regret against cost (logarithmic), median and the middle 80 % of the two that matter, as .png or .svg.

    Args:
        told: the result of :mod:`benchmarks.search`.
    """
    last = max(curve["seconds"][-1] for curve in told["curves"].values())
    level = told["oracle"]["regret_median"]
    curves = told["curves"] | {"oracle": {"seconds": [last], "median": [level]}}
    figure, axes = plt.subplots(figsize=(9.0, 5.4))
    figure.subplots_adjust(left=0.075, right=0.745, top=0.93, bottom=0.1)
    axes.set_xscale("log")
    for name in ("plain_optuna", "sweetspot"):
        axes.fill_between(
            curves[name]["seconds"], curves[name]["low"], curves[name]["high"],
            step="post", color=_COLOURS[name], alpha=0.13, linewidth=0,
        )  # fmt: skip
    for name, colour in _COLOURS.items():
        seconds, median = curves[name]["seconds"], curves[name]["median"]
        if name not in _WITHOUT_A_SEARCH:
            axes.plot(
                seconds, median, drawstyle="steps-post", color=colour, linewidth=2.2 if name == "sweetspot" else 1.4
            )
        if name == "oracle":
            axes.axhline(level, color=colour, linewidth=1.1, linestyle=(0, (1, 2)))
        else:
            axes.plot(seconds[-1], median[-1], marker="o", markersize=6, color=colour)
    axes.axhline(0.2, color="#444444", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.axhline(0.0, color="#bbbbbb", linewidth=0.7)
    axes.set_ylim(*_range(curves))
    low, high = min(c["seconds"][0] for c in curves.values()), max(c["seconds"][-1] for c in curves.values())
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.annotate("goal: 0.2", (low, 0.2), xytext=(0, 3), textcoords="offset points", color="#444444", fontsize=8.5)
    _label(axes, curves)
    axes.set_xlabel("cost, seconds of one worker (recorded)")
    axes.set_ylabel("regret, points of accuracy")
    ours = told["sweetspot"]["repetitions"]
    axes.set_title(
        f"{title}: {told['points']} points, {ours} searches; median, and the middle 80 % of Sweetspot and plain Optuna",
        loc="left", fontsize=10,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _range(curves: Mapping[str, Any]) -> tuple[float, float]:
    """Of regret: from the lowest median to well above the ends, where the first steps may leave the picture."""
    medians = [value for curve in curves.values() for value in curve["median"]]
    ends = [curve["median"][-1] for curve in curves.values()]
    bottom = min([*medians, 0.0])
    top = max(0.5, 1.25 * max(ends), float(sorted(medians)[int(0.9 * (len(medians) - 1))]))
    return bottom - 0.06 * (top - bottom), top


def _label(axes: Any, curves: Mapping[str, Any]) -> None:
    """Names to the right of all lines, level with their ends as far as they do not overlap."""
    figure = axes.figure
    figure.canvas.draw()  # lays out, so that the scale from data to points is known
    to_points = 72 / figure.dpi
    ends = {name: (curves[name]["seconds"][-1], curves[name]["median"][-1]) for name in _COLOURS}
    pixels = {name: axes.transData.transform(end) * to_points for name, end in ends.items()}
    names = sorted(pixels, key=lambda name: pixels[name][1])
    floor, ceiling = axes.bbox.y0 * to_points + 4, axes.bbox.y1 * to_points - 4
    levels = spread([min(max(pixels[name][1], floor), ceiling) for name in names], _LABEL_POINTS, floor, ceiling)
    right = axes.bbox.x1 * to_points + 16
    for name, level in zip(names, levels, strict=True):
        x, y = pixels[name]
        shown = f"{_NAMES[name]}  {ends[name][1]:.2f}".replace("-", "\u2212")
        axes.annotate(
            shown, ends[name], xytext=(right - x, level - y), textcoords="offset points",
            color=_COLOURS[name], fontsize=9, va="center", annotation_clip=False,
            fontweight="bold" if name == "sweetspot" else "normal",
            arrowprops={"arrowstyle": "-", "color": _COLOURS[name], "linewidth": 0.5, "alpha": 0.6},
        )  # fmt: skip


def spread(levels: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Ascending levels, moved as little as needed to be ``apart`` from each other and within bounds."""
    groups: list[list[float]] = []  # each group lies closely, about the mean of what its members wanted
    for level in levels:
        groups.append([level])
        while len(groups) > 1 and _bottom(groups[-1], apart, low, high) < _top(groups[-2], apart, low, high) + apart:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, apart, low, high) + index * apart for group in groups for index in range(len(group))]


def _bottom(group: Sequence[float], apart: float, low: float, high: float) -> float:
    height = (len(group) - 1) * apart
    return max(low, min(sum(group) / len(group) - height / 2, high - height))


def _top(group: Sequence[float], apart: float, low: float, high: float) -> float:
    return _bottom(group, apart, low, high) + (len(group) - 1) * apart
