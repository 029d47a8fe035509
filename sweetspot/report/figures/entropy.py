"""Similarity entropy and delivered similarity along the epochs, and what the pruner has learned."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import SimilarityEntropyRule
from sweetspot.report.curves import CurvePoint, TeacherCurve
from sweetspot.report.figures.parts import Sizes, group_of, linear_axis, rung_axis, title
from sweetspot.report.figures.spec import (
    Axis,
    Band,
    Figure,
    Key,
    Layer,
    Legend,
    Line,
    NothingToShow,
    Panel,
    Points,
    Region,
    Rule,
)
from sweetspot.report.result import StudyResult
from sweetspot.study.pruner import SIMILARITY_ENTROPY, LearnedRule, lessons_of, measurements_of
from sweetspot.study.space import Point, point_of

_MOST_ON_A_LINE = 120
_MOST_ON_LINES = 3000
_MOST_JOINED = 12
_MOST_HOVERS = 300
_GRID = 80
_LEAST_FITTED = 6
"""Lessons before a curve is drawn: fewer leave it anywhere."""
_MEASURES: dict[str, tuple[str, Callable[[CurvePoint], float]]] = {
    "Similarity entropy, S": ("S, nats", lambda point: point.similarity_entropy),
    "Delivered similarity, M": ("M, nats", lambda point: point.delivered_similarity),
}


def entropy(result: StudyResult) -> Figure:
    """Along the epochs for each batch size; and completed trials' S against their students.

    Raises:
        NothingToShow: before a teacher of the study was measured.
    """
    curves = result.curves or _from_points(result)
    if not any(curve.teachers or curve.trunk for curve in curves):
        raise NothingToShow(f"no teacher of the study {result.name!r} has been measured yet: wait for its first trial")
    sizes = Sizes.of(result)
    along = [_along(result, curves, sizes, name) for name in _MEASURES]
    learned, keys, words = _learned(result)
    legends = [sizes.legend((curve.batch_size for curve in curves), line=True)]
    if any(curve.trunk for curve in curves):
        trunk = Key(
            "every epoch, BatchNorm as in training; some leave the panel", None, "muted", line="solid", is_faint=True
        )
        legends.append(Legend("faint lines", (trunk,)))
    if learned is not None:
        legends.append(Legend("panel below", tuple(keys)))
    return Figure(
        "entropy",
        title(result, "what the teachers' responses say of similar classes"),
        (
            f"On training views at temperature {result.config.teacher.probe_temperature:g}. Marks: teachers as they "
            "would teach. S reads as softness; no measure tells similarity from noise.",
            *words,
        ),
        (*along, *([learned] if learned is not None else [])),
        tuple(legends),
        columns=2,
        height=700 if learned is not None else 380,
    )


# -- along the epochs -------------------------------------------------------------------------------------------------


def _from_points(result: StudyResult) -> tuple[TeacherCurve, ...]:
    """What the trials themselves say, where the store was not asked."""
    found: dict[int, dict[int, CurvePoint]] = {}
    for each in result.points:
        measures = (each.similarity_entropy, each.similarity_information, each.delivered_similarity)
        if None in measures or each.teacher_accuracy is None:
            continue
        point = CurvePoint(each.point.epochs, each.steps, *measures, each.teacher_accuracy)  # type: ignore[arg-type]
        found.setdefault(each.point.batch_size, {})[each.point.epochs] = point
    return tuple(
        TeacherCurve(size, (), (), tuple(point for _, point in sorted(points.items())))
        for size, points in sorted(found.items())
    )


def _along(result: StudyResult, curves: Sequence[TeacherCurve], sizes: Sizes, name: str) -> Panel:
    label, value = _MEASURES[name]
    layers: list[Layer] = []
    room = min(_MOST_ON_A_LINE, max(10, _MOST_ON_LINES // max(1, len(curves))))
    for curve in curves:
        thin = curve.trunk[:: -(-len(curve.trunk) // room) or 1]
        x, y = tuple(point.epochs for point in thin), tuple(value(point) for point in thin)
        colour, group = sizes.colours[curve.batch_size], group_of(curve.batch_size)
        layers.append(Line(x, y, colour, 1.0, is_faint=True, group=group))
    is_joined = len(curves) <= _MOST_JOINED
    is_short = sum(len(curve.teachers) for curve in curves) > _MOST_HOVERS
    for curve in curves:
        x, y = tuple(p.epochs for p in curve.teachers), tuple(value(p) for p in curve.teachers)
        colour, group = sizes.colours[curve.batch_size], group_of(curve.batch_size)
        if is_joined:
            layers.append(Line(x, y, colour, group=group))
        hover = () if is_short else tuple(_hover(curve, point, label, value(point)) for point in curve.teachers)
        layers.append(Points(x, y, sizes.symbols[curve.batch_size], colour, size=7, hover=hover, group=group))
    marked = [value(p) for curve in curves for p in curve.teachers]
    every = marked or [value(p) for curve in curves for p in curve.trunk]
    epochs = sorted({*result.config.search.ladder, *(p.epochs for curve in curves for p in curve.teachers)})
    return Panel(name, rung_axis("epochs", epochs), linear_axis(label, every, 0.001), tuple(layers))


def _hover(curve: TeacherCurve, point: CurvePoint, label: str, value: float) -> str:
    name, unit = label.split(", ")
    return (
        f"{Point(curve.batch_size, point.epochs, curve.others)} ({point.steps:,} steps)\n"
        f"{name} = {value:.3f} {unit}, teacher {100 * point.teacher_accuracy:.2f} %"
    )


# -- what the pruner has learned --------------------------------------------------------------------------------------


def _learned(result: StudyResult) -> tuple[Panel | None, list[Key], tuple[str, ...]]:
    """The panel, what stands in the legend, and a line about it; no panel before a trial is complete."""
    trials = [t for t in result.trials if t.state == TrialState.COMPLETE and SIMILARITY_ENTROPY in measurements_of(t)]
    if not trials:
        return None, [], ()
    entropies = [measurements_of(t)[SIMILARITY_ENTROPY] for t in trials]
    layers: list[Layer] = []
    curve: list[Layer] = []
    keys: list[Key] = []
    rule = result.config.pruner
    is_ours = isinstance(rule, SimilarityEntropyRule)
    pruned = [s for t in result.trials if (s := _pruned_at(t)) is not None]
    shown = [t.value or 0.0 for t in trials]
    words = ""
    lessons = lessons_of(trials)
    if len(lessons) >= _LEAST_FITTED and len(set(entropies)) > 3:
        margin = rule.margin if isinstance(rule, SimilarityEntropyRule) else 0.0
        learned = [lesson.measurements[SIMILARITY_ENTROPY] for lesson in lessons]
        # Without its ends: there stand points, of which more is known than of others with their S.
        grid = np.linspace(min(learned), max(learned), _GRID + 2)[1:-1]
        verdict = LearnedRule.of(lessons, (SIMILARITY_ENTROPY,)).judge(grid[:, None], margin)
        half = 1.96 * verdict.deviation
        low, high = 100 * (verdict.expected - half), 100 * (verdict.expected + half)
        shown += [*verdict.expected]
        layers.append(Band(_floats(grid), _floats(low), _floats(high)))
        curve.append(Line(_floats(grid), _floats(100 * verdict.expected), "accent", 2.2))
        keys += [
            Key("mean accuracy expected from S alone", None, "accent", line="solid"),
            Key("95 % of points' mean accuracies", "swatch", "muted", is_faint=True),
        ]
        if isinstance(rule, SimilarityEntropyRule) and rule.learn and len(lessons) >= rule.n_startup_trials:
            regions = _regions(grid, [chance < rule.p for chance in verdict.chance])
            layers += [Region("x", *ends, "accent") for ends in regions]
            wanted = f"to come within {100 * rule.margin:g} points of the best" if rule.margin else "to be the best"
            words = f"the pruner prunes where the chance {wanted} is below {100 * rule.p:g} %; shaded by S alone."
            if regions:
                keys.append(Key("would be pruned", "swatch", "accent", is_faint=True))
    if isinstance(rule, SimilarityEntropyRule) and rule.learn and len(lessons) < rule.n_startup_trials:
        words = f"the pruner learns from {rule.n_startup_trials} completed trials on; {len(lessons)} so far."
    if not is_ours:
        words = "this study prunes nothing."
    if isinstance(rule, SimilarityEntropyRule):
        for bound in (rule.low, rule.high):
            if bound is not None:
                layers.append(Rule("x", bound, "accent"))
        if rule.low is not None or rule.high is not None:
            keys.append(Key("pruner's low and high", None, "accent", line="dashed"))
    let_run = [t for t in trials if "would_prune" in t.user_attrs]
    normal = [t for t in trials if "would_prune" not in t.user_attrs]
    layers.append(_marks(normal, is_open=False))
    keys.append(Key("completed trial", "circle", "muted"))
    if let_run:
        layers.append(_marks(let_run, is_open=True))
        keys.append(Key("let run although it would be pruned", "circle", "muted", is_open=True))
    axis = linear_axis("student accuracy, %", [100 * value for value in shown], 0.05)
    if pruned:
        assert axis.low is not None
        assert axis.high is not None
        foot = axis.low
        axis = Axis(axis.label, "linear", foot - 0.06 * (axis.high - foot), axis.high)
        hover = () if len(pruned) > _MOST_HOVERS else tuple(reason for _, reason in pruned)
        layers.append(Points(tuple(s for s, _ in pruned), (foot,) * len(pruned), "x", "ink", size=7, hover=hover))
        keys.append(Key("pruned: no student", "x"))
    panel = Panel(
        "What S says of the students: completed trials",
        linear_axis(
            "similarity entropy S of the trial's own teacher, nats", [*entropies, *(s for s, _ in pruned)], 0.001
        ),
        axis,
        (*layers, *curve),
        is_wide=True,
    )
    return panel, keys, (f"Below: {words}",) if words else ()


def _marks(trials: Sequence[FrozenTrial], *, is_open: bool) -> Points:
    hover: tuple[str, ...] = ()
    if len(trials) <= _MOST_HOVERS:
        hover = tuple(f"trial {t.number}: {Point.of(t.params)}\nstudent {100 * (t.value or 0.0):.2f} %" for t in trials)
    size = 7 if len(trials) <= _MOST_HOVERS else 5
    x = tuple(measurements_of(t)[SIMILARITY_ENTROPY] for t in trials)
    y = tuple(100 * (t.value or 0.0) for t in trials)
    return Points(x, y, "circle", "muted", size=size, is_open=is_open, hover=hover)


def _pruned_at(trial: FrozenTrial) -> tuple[float, str] | None:
    """The S at which a trial was pruned, and why; None if it was not."""
    epoch = trial.user_attrs.get("pruned_at")
    entropy = trial.intermediate_values.get(epoch, math.nan) if epoch is not None else math.nan
    point = point_of(trial)
    if trial.state != TrialState.PRUNED or not math.isfinite(entropy) or point is None:
        return None
    reason = trial.user_attrs.get("pruned_because", "no reason given")
    return entropy, f"trial {trial.number}: {point}\npruned: {reason}"


def _regions(grid: NDArray[np.float64], is_in: Sequence[bool]) -> list[tuple[float, float]]:
    """The stretches of the grid that are in."""
    found: list[tuple[float, float]] = []
    for here, after, inside in zip(grid, [*grid[1:], grid[-1]], is_in, strict=True):
        if not inside:
            continue
        if found and found[-1][1] == here:
            found[-1] = found[-1][0], float(after)
        else:
            found.append((float(here), float(after)))
    return found


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))
