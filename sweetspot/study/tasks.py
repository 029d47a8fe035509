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
from sweetspot.study.search import CONFIRM, METRIC, TASK, is_given_back, load, open_study
from sweetspot.study.space import Source, source_of
from sweetspot.study.visit import distillation_at

TASK_NUMBER = "arm_index"
"""The parameter of a companion's trial: how many tasks were queued before it."""
MOST_TASKS = 100_000
_TRIES = 3


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
    """Those of the unfinished tasks that have not failed for good."""
    missing = unfinished(store, record, tasks)
    tries = _tries(store, record.name) if missing else {}
    return [task for task in missing if _failures(tries.get(task.to_json(), [])) < _TRIES]


def untried(store: Store, record: StudyRecord, tasks: Iterable[Task]) -> list[Task]:
    """Those of the open tasks that are neither queued nor under way."""
    missing = open_tasks(store, record, tasks)
    tries = _tries(store, record.name) if missing else {}
    return [task for task in missing if not _is_under_way(tries.get(task.to_json(), []))]


def _failures(tries: Iterable[FrozenTrial]) -> int:
    return sum(t.state == TrialState.FAIL and not is_given_back(t) for t in tries)


def _is_under_way(tries: Iterable[FrozenTrial]) -> bool:
    return any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in tries)


def queue(store: Store, record: StudyRecord, tasks: Sequence[Task]) -> bool:
    """Queue those of ``tasks`` that are untried, and withdraw what waits of others. Only under the study's claim.

    Returns:
        Whether any of them is queued or under way now.
    """
    study = open_study(store, record.name + CONFIRM, METRIC)
    new = untried(store, record, tasks)
    wanted = {task.to_json() for task in tasks}
    trials = study.get_trials(deepcopy=False)
    is_open = bool(new)
    for trial in trials:
        if trial.state in (TrialState.WAITING, TrialState.RUNNING) and trial.user_attrs.get(TASK) in wanted:
            is_open = True
        elif trial.state == TrialState.WAITING:
            withdraw(study, trial)
    for number, task in enumerate(new, len(trials)):
        study.enqueue_trial({TASK_NUMBER: number % MOST_TASKS}, user_attrs={TASK: task.to_json()})
    return is_open


def why_failed(store: Store, name: str, tasks: Iterable[Task]) -> dict[str, str]:
    """Of the arms whose tasks have failed for good: why."""
    tries = _tries(store, name)
    failed = {}
    for task in tasks:
        own = tries.get(task.to_json(), [])
        if _failures(own) >= _TRIES:
            failed[task.arm] = str(own[-1].user_attrs.get("error", "its worker ended"))
    return failed


def _tries(store: Store, name: str) -> dict[str, list[FrozenTrial]]:
    """The trials of each task of a study that was queued, in their order."""
    tries: dict[str, list[FrozenTrial]] = {}
    if store.database.has_study(name + CONFIRM):
        for trial in load(store, name + CONFIRM).get_trials(deepcopy=False):
            if is_task(trial):
                tries.setdefault(trial.user_attrs[TASK], []).append(trial)
    return tries
