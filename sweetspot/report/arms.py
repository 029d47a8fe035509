"""The arms of a confirmation as people see them: what they are called, and what is said of each."""

from dataclasses import dataclass

from sweetspot.config import StudyConfig
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, ECONOMY, LONGEST, SMOOTHED, YOURS
from sweetspot.study.conclusion import Confirmation
from sweetspot.study.confirmation import FINALIST, Plan
from sweetspot.study.inference import Interval
from sweetspot.study.space import Alone, ExternalPoint, Point, Source, config_at

ARM_NAMES = {
    BEST: "the best point",
    ALONE: "no teacher",
    SMOOTHED: "label smoothing",
    ACCURATE: "most accurate teacher",
    BEST_T: "best point, own temperature",
    ACCURATE_T: "most accurate teacher, own temperature",
    LONGEST: "longest teacher",
    ECONOMY: "as good and cheaper",
    YOURS: "your teacher",
}
"""What people call the arms; those of teachers of theirs bear the teachers' names, too, others what was chosen."""


@dataclass(frozen=True)
class ArmSummary:
    """An arm of a confirmation.

    Attributes:
        source: what its students learn from.
        place: where its teacher comes from; "" where there is none.
        accuracies: of its students on the test split; empty where it could not be trained.
        interval: of their mean.
        gain: of the best point over it, at its own best temperature where the arm is at its own; None where there is
            none to tell.
        is_best: it is what has that gain.
        same_as: the earlier arm that has the very same students.
    """

    arm: str
    source: Source
    name: str
    place: str
    accuracies: tuple[float, ...]
    interval: Interval | None
    gain: Interval | None
    is_best: bool
    same_as: str | None


def arm_summaries(config: StudyConfig, confirmed: Confirmation) -> list[ArmSummary]:
    """Every arm that was planned, in order."""
    plan = confirmed.plan
    found = []
    for arm, source in plan.arms.items():
        is_best = source == plan.arms[BEST_T if arm == ACCURATE_T and BEST_T in plan.arms else BEST]
        found.append(
            ArmSummary(
                arm=arm,
                source=source,
                name=arm_name(arm, source, config),
                place=place(source),
                accuracies=tuple(confirmed.accuracies.get(arm, ())),
                interval=confirmed.intervals.get(arm),
                gain=None if is_best else confirmed.gains.get(arm),
                is_best=is_best,
                same_as=_same_as(plan, arm),
            )
        )
    return found


def _same_as(plan: Plan, arm: str) -> str | None:
    """The first arm before it with the same students and the same gain."""
    own_gain = arm == ACCURATE_T and BEST_T in plan.arms and plan.arms[BEST_T] != plan.arms[BEST]
    for earlier, source in plan.arms.items():
        if earlier == arm:
            return None
        if source == plan.arms[arm] and (not own_gain or earlier == BEST_T):
            return earlier
    return None


def arm_name(arm: str, source: Source, config: StudyConfig) -> str:
    """What people call an arm."""
    return arm_called(
        arm,
        teacher=source.name if isinstance(source, ExternalPoint) else None,
        amount=amount(arm, source),
        temperature=temperature(arm, source, config),
    )


def arm_called(arm: str, *, teacher: str | None, amount: float | None, temperature: float | None) -> str:
    """The same from the teacher's name, the amount of label smoothing and the temperature, where the arm has them."""
    if teacher is not None:
        return f"{ARM_NAMES[YOURS]} {teacher}"
    if arm.startswith(FINALIST):
        return arm.replace("_", " ")
    chosen = amount if amount is not None else temperature
    return ARM_NAMES.get(arm, arm) + (f" ({chosen:g})" if chosen is not None else "")


def amount(arm: str, source: Source) -> float | None:
    """Of label smoothing, where it is the arm's."""
    return source.label_smoothing if arm == SMOOTHED and isinstance(source, Alone) else None


def temperature(arm: str, source: Source, config: StudyConfig) -> float | None:
    """The one that was chosen for the arm's students, where one was."""
    if arm not in (BEST_T, ACCURATE_T) or isinstance(source, Alone):
        return None
    return config_at(config, source).student.temperature


def place(source: Source) -> str:
    """Where an arm's teacher comes from; "" where there is none."""
    if isinstance(source, ExternalPoint):
        return f"{source.model}, {source.epochs:,} epoch{'s' * (source.epochs != 1)}"
    return str(source) if isinstance(source, Point) else ""
