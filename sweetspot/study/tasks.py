"""Tasks: students that are trained beside a search, each task a trial of the study's companion ``<name>/confirm``."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import canonical_json
from sweetspot.store import Store, StudyRecord
from sweetspot.store.students import Purpose
from sweetspot.study.lost import withdraw
from sweetspot.study.search import BEFORE, CONFIRM, GIVEN_BACK, METRIC, REPLACED, TASK, is_given_back, load, open_study
from sweetspot.study.space import Source, source_of
from sweetspot.study.visit import distillation_at

TASK_NUMBER = "arm_index"
"""The parameter of a companion's trial: how many tasks were queued before it."""
MOST_TASKS = 100_000
HOPELESS = "hopeless"
"""The user attribute of a task's trial that failed in a way that would repeat itself."""
TRIES = 3
"""Failures after which a task, or a point of a table, counts as one that cannot be done."""


@dataclass(frozen=True)
class Task:
    """Students of one source.

    Attributes:
        arm: what they are for: an arm of the confirmation, or a choice that is made before it.
        purpose: "search": judged on the validation split alone; "confirm": fresh seeds, looked at on the test split.
        first, count: their replicates.
        test_hash: of the test split's content; "" where it is left alone.
    """

    arm: str
    source: Source
    purpose: Purpose
    first: int
    count: int
    test_hash: str = ""

    @property
    def replicates(self) -> range:
        return range(self.first, self.first + self.count)

    def to_json(self) -> str:
        return canonical_json(
            {
                "arm": self.arm,
                "source": self.source.params,
                "purpose": self.purpose,
                "first": self.first,
                "count": self.count,
                "test": self.test_hash,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Task":
        values: dict[str, Any] = json.loads(text)
        return cls(
            values["arm"], source_of(values["source"]), values["purpose"], values["first"], values["count"],
            values["test"],
        )  # fmt: skip


def task_of(trial: FrozenTrial) -> Task:
    """What a trial of a companion, queued or later, does."""
    return Task.from_json(trial.user_attrs[TASK])


def is_task(trial: FrozenTrial) -> bool:
    """Whether a trial is one of a companion's, as they are written now."""
    return TASK in trial.user_attrs


def unfinished(store: Store, record: StudyRecord, tasks: Iterable[Task]) -> list[Task]:
    """Those of ``tasks`` whose students are not all there, in order; of equal students the first task alone."""
    found: dict[tuple[str, Purpose, int], Task] = {}
    by_split: dict[tuple[Purpose, str], list[tuple[str, Task]]] = {}
    for task in tasks:
        key = distillation_at(record.config, record.data_hash, task.source).hash
        by_split.setdefault((task.purpose, task.test_hash), []).append((key, task))
    for (purpose, test_hash), pairs in by_split.items():
        there = store.students.of(sorted({key for key, _ in pairs}), purpose, test_hash)
        for key, task in pairs:
            if not set(task.replicates) <= {s.replicate for s in there.get(key, [])}:
                found.setdefault((key, purpose, task.first), task)
    return list(found.values())


def open_tasks(store: Store, record: StudyRecord, tasks: Iterable[Task]) -> list[Task]:
    """Those of the unfinished tasks that have not failed for good since the study was last continued."""
    missing = unfinished(store, record, tasks)
    tries = _tries(store, record.name) if missing else _NONE
    return [task for task in missing if not tries.have_failed(task)]


def untried(store: Store, record: StudyRecord, tasks: Iterable[Task]) -> list[Task]:
    """Those of the open tasks that are neither queued, nor under way, nor about to be queued again."""
    missing = open_tasks(store, record, tasks)
    tries = _tries(store, record.name) if missing else _NONE
    return [task for task in missing if not tries.are_under_way(task)]


def are_preparing(store: Store, name: str) -> bool:
    """Whether a task runs that looks at the validation split alone: what a confirmation compares may follow from it."""
    if not store.database.has_study(name + CONFIRM):
        return False
    running = load(store, name + CONFIRM).get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(is_task(trial) and task_of(trial).purpose == "search" for trial in running)


def queue(store: Store, record: StudyRecord, tasks: Sequence[Task]) -> bool:
    """Queue those of ``tasks`` that are untried, and withdraw what waits of others. Only under the study's claim.

    Returns:
        Whether any of them is open.
    """
    study = open_study(store, record.name + CONFIRM, METRIC)
    new = untried(store, record, tasks)
    wanted = {task.to_json() for task in tasks}
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.WAITING and trial.user_attrs.get(TASK) not in wanted:
            withdraw(study, trial)
    for number, task in enumerate(new, len(trials)):
        study.enqueue_trial({TASK_NUMBER: number % MOST_TASKS}, user_attrs={TASK: task.to_json()})
    return bool(open_tasks(store, record, tasks))


def failures(store: Store, name: str, tasks: Iterable[Task]) -> dict[str, str]:
    """Of the arms whose tasks have failed for good: why."""
    tries = _tries(store, name)
    return {
        task.arm: str(tries.of(task)[-1].user_attrs.get("error", "its worker ended"))
        for task in tasks
        if tries.have_failed(task)
    }


class _Tries:
    """The trials of the tasks of a study that were queued.

    Args:
        before: trials that there were when the study was last continued: what failed then is tried again.
    """

    def __init__(self, trials: Iterable[FrozenTrial], before: int) -> None:
        self._before = before
        self._of: dict[str, list[FrozenTrial]] = {}
        for trial in trials:
            if is_task(trial):
                self._of.setdefault(trial.user_attrs[TASK], []).append(trial)

    def of(self, task: Task) -> list[FrozenTrial]:
        """In their order."""
        return self._of.get(task.to_json(), [])

    def have_failed(self, task: Task) -> bool:
        """For good: too often, or in a way that would repeat itself."""
        own = [t for t in self.of(task) if t.number >= self._before]
        failed = [t for t in own if t.state == TrialState.FAIL and not is_given_back(t)]
        return len(failed) >= TRIES or any(t.user_attrs.get(HOPELESS) for t in failed)

    def are_under_way(self, task: Task) -> bool:
        own = self.of(task)
        if any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in own):
            return True
        return bool(own) and is_given_back(own[-1]) and own[-1].user_attrs[GIVEN_BACK] != REPLACED


_NONE = _Tries((), 0)


def _tries(store: Store, name: str) -> _Tries:
    if not store.database.has_study(name + CONFIRM):
        return _NONE
    study = load(store, name + CONFIRM)
    return _Tries(study.get_trials(deepcopy=False), study.user_attrs.get(BEFORE, 0))
