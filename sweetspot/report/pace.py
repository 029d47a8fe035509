"""How long the rest of a study will take, from how long its trials have taken."""

from collections.abc import Sequence
from datetime import datetime
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import duration
from sweetspot.study.space import Point, points

_LATEST = 20
"""So many trials tell how long one takes: those before them had other teachers to train, or other workers."""


def eta(result: StudyResult, now: datetime | None = None) -> str:
    """When the search will be over, in words; "ETA unknown" until a trial has told how long one takes.

    Once it is over: how far the tasks are that come after it.
    """
    left = trials_left(result)
    if left <= 0:
        return "confirming" if result.stage is None or result.stage.is_over else str(result.stage)
    workers = sum(not worker.ended and not worker.is_silent for worker in result.workers)
    seconds = seconds_left(result.trials, left, workers, now or datetime.now())
    return "ETA unknown" if seconds is None else f"ETA {duration(seconds)}"


def trials_left(result: StudyResult) -> int:
    """The trials that the search has to finish; a space of fewer points ends it earlier."""
    left = result.config.search.trials - result.counts.finished
    every = points(result.config)
    if every is None or left <= 0:
        return left
    finished = (TrialState.COMPLETE, TrialState.PRUNED)
    return min(left, len(every) - len({Point.of(t.params) for t in result.trials if t.state in finished}))


def seconds_left(trials: Sequence[FrozenTrial], left: int, workers: int, now: datetime) -> float | None:
    """How long so many workers need for ``left`` trials; None where there is no telling.

    Args:
        trials: finished ones tell how long one takes, running ones how far they are.
        left: trials to be finished, the running ones among them.
        now: in local time without a zone, as Optuna's times are.
    """
    finished = (TrialState.COMPLETE, TrialState.PRUNED)
    ended = sorted(
        (t.datetime_complete, t.datetime_start)
        for t in trials
        if t.state in finished and t.datetime_start and t.datetime_complete
    )
    if not ended or workers < 1:
        return None
    each = fmean(max(0.0, (end - start).total_seconds()) for end, start in ended[-_LATEST:])
    running = [t.datetime_start for t in trials if t.state == TrialState.RUNNING and t.datetime_start]
    done = sum(min(max(0.0, (now - start).total_seconds()), each) for start in running[:left])
    return max(0.0, left * each - done) / min(workers, left)
