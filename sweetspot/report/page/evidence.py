"""The evidence of a report: the arms of the confirmation, the verdict, and the classes that the teacher finds alike."""

from dataclasses import dataclass

from sweetspot.report.page.contents import Report
from sweetspot.report.page.phrases import between, gained, percent, typeset
from sweetspot.report.sentences import arm_name, counted, place, sentence
from sweetspot.study.confirmation import BEST


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
    rows = []
    for arm, point in confirmed.plan.points.items():
        name = arm_name(arm, point)
        students = confirmed.accuracies.get(arm, [])
        if not students:
            rows.append(ArmRow(arm, name, place(point), 0, "could not be trained", ""))
            continue
        interval = confirmed.intervals[arm]
        accuracy = f"{percent(interval.mean)} [{between(interval.low, interval.high)}]"
        gain = confirmed.gains.get(arm)
        said = gained(gain).replace("95\u00a0% interval ", "") if gain is not None else ""
        if arm != BEST and point == confirmed.plan.points[BEST]:
            said = "the same point"
        rows.append(ArmRow(arm, name, place(point), len(students), accuracy, said))
    return rows


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
    return [
        "The best point was chosen on the validation split, so that its validation accuracy is partly luck. Here are "
        f"{counted(confirmed.plan.seeds, 'fresh student')} for each arm, with the same seeds, initial weights and "
        "orders in every arm, on a test split that the search has never seen. Intervals are of 95\u00a0%, a two-way "
        "bootstrap over seeds and test images; differences below "
        f"{100 * result.config.confirm.margin:g} points do not matter."
    ]


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
