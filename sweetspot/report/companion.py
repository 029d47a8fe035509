"""How far the tasks are that are trained beside a search, from the trials of its companion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.study.arms import ALONE
from sweetspot.study.confirmation import LEADER, Plan
from sweetspot.study.search import TASK, is_given_back
from sweetspot.study.tasks import Task, is_task, task_of

StageName = Literal["baselines", "leaders", "choices", "confirmation"]

_WORDS: dict[StageName, str] = {
    "baselines": "students without a teacher",
    "leaders": "giving the leaders all their students",
    "choices": "choosing on validation",
    "confirmation": "confirming",
}


@dataclass(frozen=True)
class Stage:
    """What the companion is at, or was at last.

    Attributes:
        done: how many of its tasks are.
        total: how many were queued.
        trials: of these tasks, tries that were given back included.
    """

    name: StageName
    done: int
    total: int
    trials: tuple[FrozenTrial, ...]

    @property
    def is_over(self) -> bool:
        return not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in self.trials)

    @property
    def doing(self) -> str:
        return _WORDS[self.name]

    @property
    def count(self) -> str:
        return f"{self.done:,} of {self.total:,} task{'s' * (self.total != 1)}"

    def __str__(self) -> str:
        return f"{self.doing}: {self.count}"


def stage_of(config: StudyConfig, plan: Plan | None, trials: Sequence[FrozenTrial]) -> Stage | None:
    """The stage of a companion's latest trial; None before anything was queued.

    Args:
        plan: of the confirmation; None before there is one.
        trials: of the companion.
    """
    queued = sorted((t for t in trials if is_task(t)), key=lambda t: -t.number)
    if not queued:
        return None
    name = _stage(task_of(queued[0]))
    there = list(takewhile(lambda t: _stage(task_of(t)) == name, queued))
    if name == "confirmation" and plan is not None:
        planned = {task.to_json() for task in plan.all_tasks(config.teacher.seed)}
        there = [t for t in there if t.user_attrs[TASK] in planned]
    counted = [t for t in there if not is_given_back(t)]
    return Stage(
        name, len(_tasks(t for t in there if t.state == TrialState.COMPLETE)), len(_tasks(counted)), tuple(there)
    )


def _stage(task: Task) -> StageName:
    if task.purpose == "confirm":
        return "confirmation"
    return "leaders" if task.arm == LEADER else "baselines" if task.arm == ALONE else "choices"


def _tasks(trials: Iterable[FrozenTrial]) -> set[str]:
    return {trial.user_attrs[TASK] for trial in trials}
