"""The confirmation: its arms with intervals, and the best point's gains over the others."""

from sweetspot.report.figures.parts import shortened, title
from sweetspot.report.figures.spec import (
    Axis,
    Figure,
    Intervals,
    Key,
    Layer,
    Legend,
    NothingToShow,
    Panel,
    Points,
    Region,
    Rule,
    Tick,
)
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import arm_name, looks, place
from sweetspot.study.confirmation import BEST
from sweetspot.study.inference import Interval


def confirmation(result: StudyResult) -> Figure:
    """Test accuracy of the arms' fresh students.

    Raises:
        NothingToShow: before there is a confirmation of the best point.
    """
    confirmed = result.confirmation
    if confirmed is None:
        raise NothingToShow(f"the study {result.name!r} has no confirmation to show: {result.verdict}")
    arms = list(confirmed.accuracies)[::-1]
    heights = {arm: float(i) for i, arm in enumerate(arms)}
    called = {arm: shortened(arm_name(arm, confirmed.plan.points[arm])) for arm in arms}
    names = tuple(Tick(heights[arm], called[arm]) for arm in arms)
    best = confirmed.plan.points[BEST]
    others = [arm for arm in arms if arm != BEST]
    compared = [arm for arm in others if confirmed.gains.get(arm) is not None and confirmed.plan.points[arm] != best]
    gains = {arm: gain for arm in compared if (gain := confirmed.gains.get(arm)) is not None}
    margin = 100 * result.config.confirm.margin
    accuracies: list[Layer] = [
        Points(
            tuple(100 * accuracy for arm in arms for accuracy in confirmed.accuracies[arm]),
            tuple(heights[arm] - 0.2 for arm in arms for _ in confirmed.accuracies[arm]),
            "dot", "muted", size=9,
            hover=tuple(f"seed {i}: {100 * a:.2f} %" for arm in arms for i, a in enumerate(confirmed.accuracies[arm])),
        ),
        *(_interval(confirmed.intervals[arm], heights[arm], _hover(result, arm), arm == BEST) for arm in arms),
    ]  # fmt: skip
    differences: list[Layer] = [
        Region("x", -margin, margin),
        Rule("x", 0.0, "ink", is_dashed=False),
        *(_interval(gain, heights[arm], _hover(result, arm), False, "+") for arm, gain in gains.items()),
    ]
    ends = [100 * end for gain in gains.values() for end in (gain.low, gain.high)] + [-margin, margin, -0.1, 0.1]
    room = 0.08 * (max(ends) - min(ends))
    same = [called[arm] for arm in others if confirmed.plan.points[arm] == best]
    seeds = confirmed.plan.seeds
    keys = (
        Key("mean, 95 % interval", "circle", line="solid"),
        Key("of the best point", "diamond", "accent", line="solid"),
        Key("a student", "dot", "muted"),
        *(
            [Key(f"within the margin of {margin:g}: does not matter", "swatch", "muted", is_faint=True)]
            if margin
            else []
        ),
    )
    verdict = {True: "confirmed", False: "decided against", None: "undecided"}[confirmed.verdict.confirmed]
    return Figure(
        "confirm",
        title(result, f"the confirmation: {verdict}"),
        (
            f"Test accuracy of {seeds} fresh students each; intervals are over seeds and test images alike, and speak "
            "of these teachers alone.",
            *([f"The best point is also the {' and the '.join(same)}: no gain over itself."] if same else []),
            looks(confirmed.plan.looks),
        ),
        (
            Panel("Test accuracy", Axis("%"), Axis(scale="category", ticks=names), tuple(accuracies)),
            Panel(
                "Gain of the best point over each",
                Axis("percentage points", low=min(ends) - room, high=max(ends) + room),
                Axis(scale="category", ticks=tuple(Tick(tick.at, "") for tick in names)), tuple(differences),
            ),
        ),
        (Legend("marks", keys),),
        columns=2,
        height=max(300, 110 + 66 * len(arms)),
    )  # fmt: skip


def _interval(interval: Interval, height: float, hover: str, is_best: bool, sign: str = "") -> Intervals:
    low, mean, high = (100 * value for value in (interval.low, interval.mean, interval.high))
    words = f"{mean:{sign}.2f} [{low:{sign}.1f}, {high:{sign}.1f}]".replace("-", "−")
    return Intervals(
        (mean,), (height,), (low,), (high,), "diamond" if is_best else "circle", "accent" if is_best else "ink",
        (words,), (f"{hover}\n{words}",),
    )  # fmt: skip


def _hover(result: StudyResult, arm: str) -> str:
    assert result.confirmation is not None
    point = result.confirmation.plan.points[arm]
    return f"{arm_name(arm, point)}{f': {place(point)}' if point is not None else ''}"
