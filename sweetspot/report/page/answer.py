"""The answer of a report: how it stands, in one sentence, and what is to be known with it."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sweetspot.report.arms import arm_summaries
from sweetspot.report.page.contents import Report
from sweetspot.report.page.phrases import between, capital, gained, percent, typeset
from sweetspot.report.sentences import (
    by_state,
    counted,
    ending,
    finalists,
    finished,
    further,
    looks,
    reservations,
    teacher_name,
)
from sweetspot.study.arms import ACCURATE, ALONE, BEST

Standing = Literal["confirmed", "undecided", "decided against", "not confirmed", "no answer"]


@dataclass(frozen=True)
class Answer:
    """The answer of a study in one sentence, and what is to be known with it.

    Attributes:
        lead: how it stands, in a few words; the sentence goes on with ``rest``.
    """

    standing: Standing
    lead: str
    rest: str
    remarks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return f"{self.lead}: {self.rest}"


def answer(report: Report) -> Answer:
    """The answer as it stands: confirmed, undecided, decided against, not confirmed (yet), or none yet."""
    result = report.result
    if result.best is None:
        return Answer(
            "no answer",
            "No answer yet",
            f"no trial has finished ({finished(result)}: {by_state(result)}).",
            _to_go_on(report),
        )
    confirmed = result.confirmation
    first, *others = result.verdict_sentences
    lead, _, why = first.partition(": ")
    lead = capital(lead)
    if confirmed is None:
        told = () if why.startswith("the best point so far") else (f"{capital(why)}.",)
        return Answer("not confirmed", lead, _so_far(report), (*told, *_to_know(report)))
    interval = confirmed.intervals[BEST]
    gains = [
        f"{gained(each.gain)} against {'' if each.arm == ALONE else 'the '}{each.name}"
        for each in arm_summaries(result.config, confirmed)
        if each.arm in (ALONE, ACCURATE) and each.gain is not None
    ]
    rest = (
        f"{_students_at_best(report)} reach {percent(interval.mean)} on the test split "
        f"(95\u00a0% interval {between(interval.low, interval.high)}), {', and '.join(gains)}."
    )
    standings: dict[bool | None, Standing] = {True: "confirmed", False: "decided against", None: "undecided"}
    remarks = (
        typeset(capital(why)),
        *map(typeset, others),
        *map(typeset, finalists(result)),
        *_to_know(report),
        looks(confirmed.plan.looks, confirmed.plan.look),
    )
    return Answer("not confirmed" if result.is_stale else standings[confirmed.verdict.confirmed], lead, rest, remarks)


def _students_at_best(report: Report) -> str:
    result = report.result
    assert result.best is not None
    point = result.best.point
    return f"{result.config.student.model} students of the {teacher_name(result, point)} teacher at {point}"


def _so_far(report: Report) -> str:
    result, point = report.result, report.best
    assert result.best is not None
    mean = fmean(result.best.accuracies)
    interval = "one student, and so no interval"
    if point is not None and point.low is not None and point.high is not None:
        interval = f"95\u00a0% interval {between(point.low, point.high)}"
    elif len(result.best.accuracies) > 1:
        interval = "without an interval"
    of = counted(len(result.ranked), "point")
    return (
        f"so far {_students_at_best(report)} are the best, at {percent(mean)} on the validation split ({interval}; "
        f"chosen as the best of {of}, so partly luck)."
    )


def _to_know(report: Report) -> tuple[str, ...]:
    return (*reservations(report.result), *map(typeset, further(report.result)), *_to_go_on(report))


def _to_go_on(report: Report) -> tuple[str, ...]:
    said = ending(report.result)
    return () if said is None else (said,)
