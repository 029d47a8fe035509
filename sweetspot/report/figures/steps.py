"""Student accuracy against the teacher's steps: does batch size matter at equal steps?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweetspot.report.figures.parts import (
    MOST_INTERVALS,
    Sizes,
    best_key,
    best_mark,
    bounds,
    contenders,
    group_of,
    hovers,
    interval_words,
    linear_axis,
    log_axis,
    percent,
    students_of,
    title,
)
from sweetspot.report.figures.spec import Figure, Key, Layer, Legend, Line, NothingToShow, Panel, Points, Rule
from sweetspot.report.points import PointSummary, student_t
from sweetspot.report.result import StudyResult

_QUESTION = "Where all batch sizes lie on one curve, the number of steps is what counts, and batch size only sets it."
_LEAST_POINTS = 12
"""From so many points on something is said of what explains them."""


def steps(result: StudyResult) -> Figure:
    """A mark for each point with students, joined along each batch size.

    Raises:
        NothingToShow: before a point has students.
    """
    there = [each for each in students_of(result.points) if each.steps > 0]
    if not there:
        raise NothingToShow(f"no point of the study {result.name!r} has students yet: wait for a trial to complete")
    explanation = _explained_words(there)
    there, left_out = contenders(there)
    sizes = Sizes.of(result)
    has_others = any(each.point.others for each in there)
    layers: list[Layer] = []
    drawn = sorted({each.point.batch_size for each in there})
    for size in drawn:
        own = sorted((each for each in there if each.point.batch_size == size), key=lambda each: each.steps)
        x, y = tuple(float(each.steps) for each in own), tuple(percent(each.mean or 0.0) for each in own)
        colour, group = sizes.colours[size], group_of(size)
        if not has_others:
            layers.append(Line(x, y, colour, 1.2, group=group))
        low, high = bounds(own) if len(there) <= MOST_INTERVALS else ((), ())
        hover = hovers(own, len(there))
        across = 8 if len(there) <= 200 else 5
        layers.append(Points(x, y, sizes.symbols[size], colour, (), low, high, across, hover=hover, group=group))
    keys: list[Key] = []
    if best := [each for each in there if each.is_best]:
        layers.append(best_mark(best[0].steps, percent(best[0].mean or 0.0)))
        keys.append(best_key(result))
    every = [each.steps for each in there]
    least = result.config.search.min_steps
    if least > 0 and least >= min(every) / 2:
        layers.insert(0, Rule("x", least))
        every.append(least)
        keys.append(Key(f"search.min_steps = {least:,}: under-trained to the left", None, "muted", line="dashed"))
    shown = [percent(each.mean or 0.0) for each in there]
    if len(there) <= MOST_INTERVALS:
        shown += [percent(value) for each in there for value in (each.low, each.high) if value is not None]
    panel = Panel(
        "",
        log_axis("teacher's steps", every),
        linear_axis("mean student accuracy (validation), %", shown, 0.1),
        tuple(layers),
    )
    return Figure(
        "steps",
        title(result, "does batch size matter at equal steps?" if len(drawn) > 1 else "students by teacher's steps"),
        (
            (_QUESTION if len(drawn) > 1 else "One batch size so far: more steps are more epochs.")
            + interval_words(there),
            *explanation,
            *left_out,
        ),
        (panel,),
        (sizes.legend(drawn, line=not has_others), *([Legend("marks", tuple(keys))] if keys else [])),
        height=520,
    )


@dataclass(frozen=True)
class Explained:
    """Shares of the variance between points.

    Attributes:
        steps: that a cubic in log steps explains.
        batch_size: that log batch size adds to it.
        is_beyond_chance: whether batch size adds more than it does in 95 of 100 cases where it does not matter.
    """

    steps: float
    batch_size: float
    is_beyond_chance: bool


def explained(step_counts: Sequence[float], sizes: Sequence[float], accuracies: Sequence[float]) -> Explained | None:
    """What explains the points' accuracies, by least squares; None where they are too few, or do not differ."""
    if len(accuracies) < _LEAST_POINTS or np.ptp(accuracies) == 0 or np.ptp(step_counts) == 0 or np.ptp(sizes) == 0:
        return None
    x, values = np.log(np.asarray(step_counts, float)), np.asarray(accuracies, float)
    x = (x - x.mean()) / x.std()
    cubic = np.stack([np.ones_like(x), x, x**2, x**3], axis=1)
    both = np.column_stack([cubic, np.log(np.asarray(sizes, float))])
    total, alone, left = (_left(values, terms) for terms in (cubic[:, :1], cubic, both))
    freedom = len(values) - both.shape[1]
    added = max(0.0, alone - left)
    return Explained(1 - alone / total, added / total, added * freedom > student_t(freedom) ** 2 * left)


def _left(values: NDArray[np.float64], terms: NDArray[np.float64]) -> float:
    """The sum of squares that a fit of these terms leaves."""
    weights = np.linalg.lstsq(terms, values, rcond=None)[0]
    return float(np.square(values - terms @ weights).sum())


def _explained_words(points: Sequence[PointSummary]) -> tuple[str, ...]:
    there = [each for each in points if not each.is_under_trained]
    found = explained(
        [each.steps for each in there],
        [each.point.batch_size for each in there],
        [each.mean or 0.0 for each in there],
    )
    if found is None:
        return ()
    judged = "more than chance in 19 of 20 cases" if found.is_beyond_chance else "no more than chance may"
    return (
        f"Between points that are not under-trained a cubic in log steps explains {100 * found.steps:.0f} % of the "
        f"variance; batch size adds {100 * found.batch_size:.0f} %, {judged}.",
    )
