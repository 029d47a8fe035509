"""The confirmation: its arms with intervals, and the best point's gains over the others."""

from collections.abc import Iterator, Mapping, Sequence

from sweetspot.report.arms import ArmSummary, arm_summaries
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
from sweetspot.report.sentences import about, looks, students_each
from sweetspot.study.arms import BEST
from sweetspot.study.inference import Interval


def confirmation(result: StudyResult) -> Figure:
    """Test accuracy of the arms' fresh students.

    Raises:
        NothingToShow: before there is a confirmation of the best point.
    """
    confirmed = result.confirmation
    if confirmed is None:
        raise NothingToShow(f"the study {result.name!r} has no confirmation to show: {result.verdict}")
    every = [each for each in arm_summaries(result.config, confirmed) if each.interval is not None]
    called = {each.arm: each.name for each in every}
    arms = [each for each in reversed(every) if each.same_as is None]
    heights = {each.arm: float(i) for i, each in enumerate(arms)}
    names = tuple(Tick(heights[each.arm], shortened(each.name)) for each in arms)
    gains = {each.arm: each.gain for each in arms if each.gain is not None}
    about_arm = {each.arm: _hover(each) for each in arms}
    margin = 100 * result.config.confirm.margin
    students = [(each.arm, i, 100 * a) for each in arms for i, a in enumerate(each.accuracies)]
    accuracies: list[Layer] = [
        Points(
            tuple(accuracy for _, _, accuracy in students),
            tuple(heights[arm] - 0.2 for arm, _, _ in students),
            "dot", "muted", size=9,
            hover=tuple(f"student {i}: {accuracy:.2f} %" for _, i, accuracy in students),
        ),
        *(
            _interval(each.interval, heights[each.arm], about_arm[each.arm], each.arm == BEST)
            for each in arms if each.interval is not None
        ),
    ]  # fmt: skip
    differences: list[Layer] = [
        Region("x", -margin, margin),
        Rule("x", 0.0, "ink", is_dashed=False),
        *(_interval(gain, heights[arm], about_arm[arm], False, "+") for arm, gain in gains.items()),
    ]
    ends = [100 * end for gain in gains.values() for end in (gain.low, gain.high)] + [-margin, margin, -0.1, 0.1]
    room = 0.08 * (max(ends) - min(ends))
    plan = confirmed.plan
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
    if result.is_stale:
        verdict = "out of date"
    return Figure(
        "confirm",
        title(result, f"the confirmation: {verdict}"),
        (
            f"Test accuracy of {students_each(plan.teachers, plan.seeds)}. {about(plan)}",
            *_same(every, called),
            looks(plan.looks, plan.look),
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


def _same(arms: Sequence[ArmSummary], called: Mapping[str, str]) -> Iterator[str]:
    """Which arms are others, and so not drawn."""
    same: dict[str, list[str]] = {}
    for each in arms:
        if each.same_as is not None:
            same.setdefault(each.same_as, []).append(called[each.arm])
    for first, others in same.items():
        said = f"{called[first]} is also the {' and the '.join(others)}"
        yield f"{said[:1].upper()}{said[1:]}{': no gain over itself' if first == BEST else ''}."


def _hover(arm: ArmSummary) -> str:
    return f"{arm.name}{f': {arm.place}' if arm.place else ''}"
