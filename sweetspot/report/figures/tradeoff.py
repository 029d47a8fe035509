"""Teacher accuracy against student accuracy, coloured by similarity entropy."""

from sweetspot.report.figures.parts import (
    MOST_INTERVALS,
    UNDER_TRAINED,
    best_key,
    best_mark,
    bounds,
    contenders,
    hovers,
    interval_words,
    linear_axis,
    percent,
    students_of,
    title,
)
from sweetspot.report.figures.spec import ColourScale, Figure, Key, Layer, Legend, NothingToShow, Panel, Points, Symbol
from sweetspot.report.points import PointSummary
from sweetspot.report.result import StudyResult


def tradeoff(result: StudyResult) -> Figure:
    """A mark for each point with students.

    Raises:
        NothingToShow: before a point has students.
    """
    there = [
        each
        for each in students_of(result.points)
        if each.teacher_accuracy is not None and each.similarity_entropy is not None
    ]
    if not there:
        raise NothingToShow(f"no point of the study {result.name!r} has students yet: wait for a trial to complete")
    there, left_out = contenders(there)
    entropies = [each.similarity_entropy or 0.0 for each in there]
    low, high = min(entropies), max(entropies)
    scale = ColourScale("similarity entropy S, nats", low, high if high > low else low + 0.01)
    kinds: tuple[tuple[Symbol, bool, str], ...] = (
        ("circle", False, "point"),
        (UNDER_TRAINED, True, f"under-trained: fewer than {result.config.search.min_steps:,} steps"),
    )
    layers: list[Layer] = []
    keys: list[Key] = []
    for symbol, is_under_trained, words in kinds:
        if chosen := [each for each in there if each.is_under_trained == is_under_trained]:
            layers.append(_marks(chosen, symbol, len(there)))
            keys.append(Key(words, symbol, "muted"))
    if best := [each for each in there if each.is_best]:
        layers.append(best_mark(percent(best[0].teacher_accuracy or 0.0), percent(best[0].mean or 0.0)))
        keys.insert(0, best_key(result))
    shown = [percent(value) for each in there for value in (each.mean, each.low, each.high) if value is not None]
    if len(there) > MOST_INTERVALS:
        shown = [percent(each.mean or 0.0) for each in there]
    panel = Panel(
        "",
        linear_axis("teacher accuracy (validation), %", [percent(each.teacher_accuracy or 0.0) for each in there], 0.1),
        linear_axis("mean student accuracy (validation), %", shown, 0.1),
        tuple(layers),
        scale,
    )
    return Figure(
        "tradeoff",
        title(result, "does the more accurate teacher have the better students?"),
        (
            "If accuracy were all, the marks would rise to the right, and the best teacher would be the last one."
            + interval_words(there),
            " ".join(("The best is chosen as the best, so that its height is partly luck.", *left_out)),
        ),
        (panel,),
        (Legend("marks", tuple(keys)),),
        height=520,
    )


def _marks(points: list[PointSummary], symbol: Symbol, total: int) -> Points:
    low, high = bounds(points) if total <= MOST_INTERVALS else ((), ())
    return Points(
        x=tuple(percent(each.teacher_accuracy or 0.0) for each in points),
        y=tuple(percent(each.mean or 0.0) for each in points),
        symbol=symbol,
        values=tuple(each.similarity_entropy or 0.0 for each in points),
        low=low,
        high=high,
        size=9 if total <= 200 else 6,
        hover=hovers(points, total),
    )
