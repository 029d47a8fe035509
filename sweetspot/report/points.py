"""The points that a study has visited, each with all that is known of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.study.ranking import Ranked, steps_of
from sweetspot.study.search import is_given_back
from sweetspot.study.space import Point, point_of

State = Literal["complete", "running", "waiting", "pruned", "infeasible", "failed"]
_ORDER: tuple[State, ...] = ("complete", "running", "waiting", "pruned", "infeasible", "failed")
"""What is said of a point that several trials have visited: the first of these that one of them has come to."""


@dataclass(frozen=True)
class PointSummary:
    """A point that at least one trial has visited. Accuracies are fractions, entropies nats.

    Attributes:
        steps: of its teacher.
        accuracies: on the validation split, of all the search's students.
        mean: of these; None without any.
        low, high: 95 % interval of ``mean`` over further students of this teacher, from the spread within points
            pooled over all of them; None where no point has two students. It says nothing of other teachers.
        shrunken: the mean that ranks it, drawn toward the others; None where it is not ranked.
        is_best: the best point so far.
        is_under_trained: its teacher takes fewer steps than ``search.min_steps``: it cannot be the sweet spot.
        is_settled: it has ``replicates.max`` students or more.
        reason: why it is pruned, infeasible or failed.
        teacher_accuracy: on the validation split; this and the measures, on training views, of its own teacher.
        trials: the numbers of those that visited it, those given back left out.
    """

    point: Point
    steps: int
    accuracies: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    shrunken: float | None
    is_best: bool
    is_under_trained: bool
    is_settled: bool
    state: State
    reason: str | None
    teacher_accuracy: float | None
    similarity_entropy: float | None
    similarity_information: float | None
    delivered_similarity: float | None
    trials: tuple[int, ...]

    @property
    def uncertainty(self) -> float | None:
        """Half of the 95 % interval."""
        return None if self.high is None or self.mean is None else self.high - self.mean


def summaries(
    config: StudyConfig, trials: Sequence[FrozenTrial], ranked: Sequence[Ranked], train_images: int
) -> tuple[PointSummary, ...]:
    """The points of a study in the order of their first visits.

    Args:
        trials: of the search.
        ranked: as :func:`sweetspot.study.ranking.ranking` gives them.
        train_images: 0 where they are not known: steps are 0, then, and nothing counts as under-trained.
    """
    visits: dict[Point, list[FrozenTrial]] = {}
    for trial in trials:
        if (point := point_of(trial)) is not None and not is_given_back(trial):
            visits.setdefault(point, []).append(trial)
    known = {each.point: each for each in ranked}
    spread = _spread_within([each.accuracies for each in ranked])
    best = ranked[0].point if ranked else None
    return tuple(
        _summary(config, point, there, known.get(point), spread, point == best, train_images)
        for point, there in visits.items()
    )


def _summary(
    config: StudyConfig,
    point: Point,
    visits: Sequence[FrozenTrial],
    ranked: Ranked | None,
    spread: tuple[float, int] | None,
    is_best: bool,
    train_images: int,
) -> PointSummary:
    accuracies = tuple(ranked.accuracies) if ranked is not None else ()
    mean = fmean(accuracies) if accuracies else None
    half = None
    if spread is not None and accuracies:
        half = student_t(spread[1]) * spread[0] / math.sqrt(len(accuracies))
    steps = steps_of(point, train_images) if train_images else 0
    state = min((_state(trial) for trial in visits), key=_ORDER.index)
    return PointSummary(
        point=point,
        steps=steps,
        accuracies=accuracies,
        mean=mean,
        low=None if half is None or mean is None else mean - half,
        high=None if half is None or mean is None else mean + half,
        shrunken=ranked.shrunken if ranked is not None else None,
        is_best=is_best,
        is_under_trained=train_images > 0 and steps < config.search.min_steps,
        is_settled=ranked is not None and ranked.is_settled,
        state=state,
        reason=_reason(state, [trial for trial in visits if _state(trial) == state]),
        teacher_accuracy=_attribute(visits, "teacher_accuracy"),
        similarity_entropy=_own_entropy(point, visits),
        similarity_information=_attribute(visits, "similarity_information"),
        delivered_similarity=_attribute(visits, "delivered_similarity"),
        trials=tuple(trial.number for trial in visits),
    )


def _state(trial: FrozenTrial) -> State:
    match trial.state:
        case TrialState.COMPLETE:
            return "complete"
        case TrialState.RUNNING:
            return "running"
        case TrialState.WAITING:
            return "waiting"
        case TrialState.PRUNED:
            return "infeasible" if "infeasible" in trial.user_attrs else "pruned"
        case _:
            return "failed"


def _reason(state: State, visits: Sequence[FrozenTrial]) -> str | None:
    names = {"pruned": "pruned_because", "infeasible": "infeasible", "failed": "error"}
    if state not in names:
        return None
    found = [trial.user_attrs[names[state]] for trial in visits if names[state] in trial.user_attrs]
    return str(found[-1]) if found else "no reason given"


def _attribute(visits: Sequence[FrozenTrial], name: str) -> float | None:
    found = [trial.user_attrs[name] for trial in visits if trial.user_attrs.get(name) is not None]
    return float(found[-1]) if found else None


def _own_entropy(point: Point, visits: Sequence[FrozenTrial]) -> float | None:
    """Of the point's own teacher; of a trial that was pruned there, what it has reported."""
    if (described := _attribute(visits, "similarity_entropy")) is not None:
        return described
    reported = [trial.intermediate_values.get(point.epochs, math.nan) for trial in visits]
    return next((value for value in reversed(reported) if math.isfinite(value)), None)


def _spread_within(values: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """The standard deviation of students about their point's mean, pooled, with its degrees of freedom."""
    freedom = sum(len(each) - 1 for each in values)
    if freedom < 1:
        return None
    squares = sum(len(each) * pvariance(each) for each in values if each)
    return math.sqrt(squares / freedom), freedom


def student_t(freedom: int) -> float:
    """The 97.5th percentile of Student's t."""
    from scipy.special import stdtrit  # alone in needing it, and not every command asks for an interval

    return float(stdtrit(freedom, 0.975))


def table(points: Sequence[PointSummary]) -> list[dict[str, object]]:
    """A flat row for each point, for tables; further parameters under Optuna's names."""
    return [
        {
            "batch_size": each.point.batch_size,
            "epochs": each.point.epochs,
            **dict(each.point.others),
            "steps": each.steps,
            "state": each.state,
            "students": len(each.accuracies),
            "accuracy": each.mean,
            "accuracy_low": each.low,
            "accuracy_high": each.high,
            "accuracy_shrunken": each.shrunken,
            "is_best": each.is_best,
            "under_trained": each.is_under_trained,
            "settled": each.is_settled,
            "teacher_accuracy": each.teacher_accuracy,
            "similarity_entropy": each.similarity_entropy,
            "similarity_information": each.similarity_information,
            "delivered_similarity": each.delivered_similarity,
            "reason": each.reason,
            "trials": list(each.trials),
        }
        for each in points
    ]
