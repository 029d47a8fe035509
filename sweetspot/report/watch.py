"""A study that is watched: what is seen of it at one moment, and what is new since the moment before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial

from sweetspot.errors import one_line
from sweetspot.report.arms import arm_name
from sweetspot.report.companion import Stage
from sweetspot.report.live import best_so_far, done, under_way, what_became
from sweetspot.report.pace import eta, seconds_left, trials_left
from sweetspot.report.result import StudyResult, read_result
from sweetspot.report.sentences import counted, duration, percent, students_each
from sweetspot.report.workers import state
from sweetspot.store import Store, WorkerRecord
from sweetspot.study.confirmation import Plan, outcomes
from sweetspot.study.search import is_given_back


@dataclass(frozen=True)
class Look:
    """A study at one moment.

    Attributes:
        at: the moment, in UTC.
        workers: all that are known to be at the study, dead ones included.
        confirmed: the mean test accuracy of each arm of the plan that is done, a fraction.
        is_done: nothing is left to be done, and nobody is at it.
    """

    at: datetime
    result: StudyResult
    workers: tuple[WorkerRecord, ...]
    confirmed: Mapping[str, float]
    is_done: bool

    @property
    def plan(self) -> Plan | None:
        """Of the confirmation; None before there is one."""
        return self.result.plan

    @property
    def stage(self) -> Stage | None:
        """Of the tasks that are trained beside the search."""
        return self.result.stage

    @property
    def is_searching(self) -> bool:
        """Whether the search asks for further trials."""
        return not self.result.record.ended and self.result.counts.finished < self.result.config.search.trials

    @property
    def living(self) -> list[WorkerRecord]:
        return [worker for worker in self.workers if not worker.ended and not worker.is_silent]

    @property
    def eta(self) -> str:
        """When what is being done will be over, in words."""
        now = self.at.astimezone().replace(tzinfo=None)  # as Optuna's times are
        if self.is_done:
            return "done"
        if self.is_searching and trials_left(self.result) > 0:
            return f"search: {eta(self.result, now)}"
        stage = self.stage
        if stage is None:
            return "search: the last trials" if self.is_searching else "search done"
        if stage.is_over:
            return f"{stage.doing}: done"
        seconds = seconds_left(stage.trials, stage.total - stage.done, len(self.living), now)
        return f"{stage.doing}: ETA {duration(seconds)}" if seconds is not None else f"{stage.doing}: ETA unknown"


def look_at(store: Store, name: str, at: datetime, *, has_work: bool) -> Look:
    """What is seen of a study.

    Args:
        has_work: whether anything was left to be done, asked before.

    Raises:
        UserError: if there is no such study.
    """
    workers = tuple(store.workers.of_study(name))
    is_done = not has_work and all(worker.ended or worker.is_silent for worker in workers)
    result = read_result(store, name, with_confirmation=is_done)
    known = outcomes(store, result.record, result.plan) if result.plan is not None else {}
    return Look(at, result, workers, {arm: float(o.correct.mean()) for arm, o in known.items()}, is_done)


@dataclass(frozen=True)
class Event:
    """Something new.

    Attributes:
        at: when it was seen, in UTC.
        kind: the word by which programs know it.
        text: one line.
        values: the same for programs; accuracies are fractions, entropies nats.
    """

    at: datetime
    kind: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def time(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%M:%SZ}"

    def to_dict(self) -> dict[str, Any]:
        return {"time": self.time, "event": self.kind, **self.values}


def news(before: Look | None, after: Look) -> list[Event]:
    """What is new; at first, how the study stands."""
    found = [_standing(after)] if before is None else list(_changes(before, after))
    if after.is_done:
        found.append(_end(after))
    return [Event(event.at, event.kind, one_line(event.text), event.values) for event in found]


def outage(at: datetime, why: str) -> Event:
    return Event(at, "outage", f"{one_line(why)}: waiting for it", {"reason": one_line(why)})


def answers_again(at: datetime, since: datetime) -> Event:
    seconds = (at - since).total_seconds()
    return Event(at, "answers", f"the database answers again after {duration(seconds)}", {"seconds": seconds})


def _standing(look: Look) -> Event:
    result = look.result
    parts = [
        f"{result.name}: {done(result)} trials, {under_way(result)}",
        best_so_far(result),
        *([str(look.stage)] if look.stage is not None else []),
        counted(len(look.living), "worker"),
        look.eta,
    ]
    return Event(look.at, "study", "  |  ".join(parts), result.status_dict())


def _changes(before: Look, after: Look) -> Iterator[Event]:
    yield from _workers(before, after)
    yield from _trials(before, after)
    yield from _best(before, after)
    yield from _search(before, after)
    yield from _tasks(before, after)
    yield from _confirmation(before, after)


def _workers(before: Look, after: Look) -> Iterator[Event]:
    known = {worker.id: worker for worker in before.workers}
    for worker in after.workers:
        was = _presence(known.pop(worker.id)) if worker.id in known else None
        now = _presence(worker)
        if was == now or (was is None and now == "died"):
            continue
        said = {"there": "heard of again" if was is not None else "joined", "silent": "silent", "died": "died"}[now]
        seen = f" for {duration(worker.silent_seconds)}" if now == "silent" else ""
        yield _of_worker(after.at, worker, said, f"{said}{seen}")
    for worker in known.values():
        if not worker.ended:
            yield _of_worker(after.at, worker, "left", "left")


def _presence(worker: WorkerRecord) -> str:
    return word if (word := state(worker)) in ("died", "silent") else "there"


def _of_worker(at: datetime, worker: WorkerRecord, what: str, text: str) -> Event:
    values = {"worker": worker.name, "device": worker.device, "what": what}
    return Event(at, "worker", f"worker {worker.name} on {worker.device}: {text}", values)


def _trials(before: Look, after: Look) -> Iterator[Event]:
    told = {t.number for t in _finished(before.result.trials)}
    fresh = [t for t in _finished(after.result.trials) if t.number not in told]
    entries = {entry["number"]: entry for entry in after.result.trials_list()} if fresh else {}
    for trial in sorted(fresh, key=lambda t: t.datetime_complete or datetime.max):
        text = f"{done(after.result)}  trial {trial.number}: {what_became(trial)}"
        rest = f"{under_way(after.result)}, {after.eta}"
        yield Event(after.at, "trial", f"{text}  |  {rest}", {**entries[trial.number], **_progress(after)})


def _finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state.is_finished() and not is_given_back(t)]


def _progress(look: Look) -> dict[str, Any]:
    return {"trials": {**look.result.trials_dict(), "total": look.result.config.search.trials}}


def _best(before: Look, after: Look) -> Iterator[Event]:
    now, was = after.result.best, before.result.best
    if now is None or (was is not None and was.point == now.point):
        return
    accuracy, students = fmean(now.accuracies), len(now.accuracies)
    text = f"new best: {now.point}: {percent(accuracy)} ({counted(students, 'student')})"
    yield Event(after.at, "best", text, {**now.point.params, "accuracy": accuracy, "students": students})


def _search(before: Look, after: Look) -> Iterator[Event]:
    result = after.result
    if before.is_searching and not after.is_searching:
        why = result.record.ended
        text = f"the search has ended: {why}" if why else f"the search is done: {done(result)} trials"
        yield Event(after.at, "search", text, {"ended": why, **_progress(after)})
    elif after.is_searching and not before.is_searching:
        yield Event(
            after.at, "search", f"the search goes on: {done(result)} trials", {"ended": None, **_progress(after)}
        )


def _tasks(before: Look, after: Look) -> Iterator[Event]:
    """A stage that has begun, or has come further."""
    now, was = after.stage, before.stage
    if now is None or (was is not None and (was.name, was.done, was.total) == (now.name, now.done, now.total)):
        return
    text = f"{now}  |  {after.eta}"
    yield Event(after.at, "tasks", text, {"stage": now.name, "done": now.done, "total": now.total})


def _confirmation(before: Look, after: Look) -> Iterator[Event]:
    plan = after.plan
    if plan is None:
        return
    is_same = before.plan is not None and before.plan.to_json() == plan.to_json()
    if not is_same:
        each = students_each(plan.teachers, plan.seeds)
        values = {"arms": list(plan.arms), "teachers": plan.teachers, "seeds": plan.seeds}
        yield Event(after.at, "confirmation", f"confirming {plan.best}: {each}, in {len(plan.arms)} arms", values)
    told = before.confirmed if is_same else {}
    for arm, accuracy in after.confirmed.items():
        if arm not in told:
            name = arm_name(arm, plan.arms[arm], after.result.config)
            yield Event(
                after.at,
                "arm",
                f"{name}: test accuracy {percent(accuracy)}  |  {after.eta}",
                {"arm": arm, "test_accuracy": accuracy},
            )


def _end(look: Look) -> Event:
    result = look.result
    text = "done: no trial was completed" if result.best is None else f"done: {best_so_far(result)}; {result.verdict}"
    values = {"verdict": result.verdict, "confirmed": result.confirmed, "ended": result.record.ended}
    return Event(look.at, "done", text, values)
