"""The evidence of a report: the arms of the confirmation, the verdict, and the classes that the teacher finds alike."""

from collections.abc import Mapping
from dataclasses import dataclass

from sweetspot.report.arms import ArmSummary, arm_summaries
from sweetspot.report.page.contents import Report
from sweetspot.report.page.phrases import between, gained, percent, typeset
from sweetspot.report.sentences import about, sentence, students_each
from sweetspot.study.arms import ACCURATE_T, BEST


@dataclass(frozen=True)
class ArmRow:
    """An arm of the confirmation. ``gain`` is the best point's over it; "" where there is none to tell."""

    arm: str
    name: str
    point: str
    students: int
    accuracy: str
    gain: str


def arms(report: Report) -> list[ArmRow]:
    """The rows of the confirmation's table; empty while there is none."""
    confirmed = report.result.confirmation
    if confirmed is None:
        return []
    summaries = arm_summaries(report.result.config, confirmed)
    names = {each.arm: each.name for each in summaries}
    return [
        ArmRow(each.arm, each.name, each.place, len(each.accuracies), _accuracy(each), _gain(each, names))
        for each in summaries
    ]


def _accuracy(arm: ArmSummary) -> str:
    interval = arm.interval
    if interval is None:
        return "could not be trained"
    return f"{percent(interval.mean)} [{between(interval.low, interval.high)}]"


def _gain(arm: ArmSummary, names: Mapping[str, str]) -> str:
    if arm.interval is not None and arm.same_as is not None:
        return "the same point" if arm.same_as == BEST else f"the same as {names[arm.same_as]}"
    return gained(arm.gain).replace("95\u00a0% interval ", "") if arm.gain is not None else ""


def verdict(report: Report) -> str:
    """The verdict in full; "" while there is no point that it could be about."""
    if report.result.best is None:
        return ""
    return sentence(typeset(report.result.verdict))


def confirmation(report: Report) -> list[str]:
    """What the confirmation is; nothing where there is none."""
    result = report.result
    confirmed = result.confirmation
    if confirmed is None:
        return []
    plan = confirmed.plan
    said = [
        "The best point was chosen on the validation split, so that its validation accuracy is partly luck. The arms "
        f"here have {students_each(plan.teachers, plan.seeds)}, on a test split that the search has never seen. "
        f"{about(plan)} "
        "Intervals are of 95\u00a0%, Student's t over "
        f"{'teachers' if plan.teachers else 'students'} and test images; pairing by seeds is not relied on. "
        f"Differences below {100 * result.config.confirm.margin:g} points do not matter."
    ]
    if own := [each.name for each in arm_summaries(result.config, confirmed) if each.arm == ACCURATE_T and each.gain]:
        said.append(f"The gain over the arm “{own[0]}” is that of the best point at its own best temperature.")
    if confirmed.failed:
        said.append("Why arms could not be trained, sweetspot best --json says.")
    return said


def likeness(report: Report) -> list[str]:
    """Which classes the best teacher finds alike; nothing where that was not measured."""
    if report.similarity is None or report.best is None:
        return []
    from sweetspot.report.pictures import FEW_IMAGES  # it takes long, and no other words need it

    temperature = report.result.config.teacher.probe_temperature
    pairs = [f"{pair.one} and {pair.other} ({percent(pair.response)})" for pair in report.alike(6)]
    said = []
    if pairs:
        said.append(
            f"The classes that the teacher at {report.best.point} finds most alike: {', '.join(pairs)}. In brackets is "
            f"its mean response to images of either class on the other, at temperature {temperature:g}, on training "
            "views."
        )
    few = [
        f"{name} ({images})"
        for name, images in zip(report.classes, report.similarity.images.tolist(), strict=True)
        if images < FEW_IMAGES
    ]
    if few:
        said.append(f"Classes with fewer than {FEW_IMAGES} images in this probe: {', '.join(few)}.")
    return said
