"""The two kinds of study whose trials workers claim: a search, and its confirmation."""

from functools import cached_property

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import SimilarityEntropyRule, StudyConfig
from sweetspot.store import StudyRecord
from sweetspot.study.confirmation import Companion
from sweetspot.study.objective import Objective
from sweetspot.study.ordering import Ordering
from sweetspot.study.pruner import SimilarityEntropyPruner
from sweetspot.study.sampler import Memory, PointSampler
from sweetspot.study.search import BEFORE, CONFIRM, Counts, failures_in_a_row, load
from sweetspot.study.space import Point, distributions, suggest
from sweetspot.study.tasks import TASK_NUMBER, Task, is_task, task_of
from sweetspot.study.visit import saved_of
from sweetspot.study.workplace import Workplace

MOST_FAILURES = 10
"""So many failed or infeasible trials in a row end a search; those before it was continued do not count."""

FULL = "every point of the space has been measured"
FAILED = "failed: "


class Search:
    """The search of a study."""

    def __init__(self, record: StudyRecord, workplace: Workplace) -> None:
        self.study = load(workplace.store, record.name)
        self._before = self.study.user_attrs.get(BEFORE, 0)
        self._name = record.name
        self._config = record.config
        self._workplace = workplace
        self._objective = Objective(record.config, workplace=workplace)
        self.pruner = pruner(record.config)
        self.parameters = tuple(distributions(record.config))
        self._memory = Memory(record.config, self._before)

    def sampler(self, trials: list[FrozenTrial]) -> BaseSampler:
        """Anew for every claim, with the trajectories that other workers are extending at this moment."""
        there = self._workplace
        ordering = Ordering(self._config, there.data.hash, there.store.trajectories, there.leases)
        return PointSampler(self._config, ordering.must_wait, self._memory, trials)

    def wants_trial(self, trials: list[FrozenTrial]) -> bool:
        """A trial is asked for only while finished, running and waiting ones together are below the total."""
        record = self._workplace.store.studies.get(self._name)
        if record is None or record.ended:
            return False
        failures = failures_in_a_row(trials[self._before :])
        if len(failures) >= MOST_FAILURES:
            self._end(f"{FAILED}{len(failures)} trials in a row; the last: {why_failed(failures[0])}")
            return False
        counts = Counts.of(trials)
        if counts.finished + counts.running >= record.config.search.trials:
            return False
        if counts.waiting:
            return True
        if self._memory.taken(trials).has_all(self._config):
            if not counts.running:
                self._end(FULL)
            return False
        return True

    def _end(self, reason: str) -> None:
        self._workplace.store.studies.set_ended(self._name, reason)

    def saved(self, trial: FrozenTrial) -> str:
        there = self._workplace
        return saved_of(there.store, self._config, there.data.hash, Point.of(trial.params))

    def suggest(self, trial: optuna.Trial) -> Point:
        return suggest(trial, self._config)

    def run(self, trial: optuna.Trial, suggested: Point) -> float:
        return self._objective.run(trial, suggested)


class Confirming:
    """The companion of a study: the tasks that are queued, and no others."""

    parameters = (TASK_NUMBER,)
    pruner: BasePruner = NopPruner()

    def __init__(self, record: StudyRecord, workplace: Workplace) -> None:
        self._record = record
        self._workplace = workplace
        self._companion = Companion(record, workplace)

    @cached_property
    def study(self) -> optuna.Study:
        """Made when the first tasks are queued."""
        return load(self._workplace.store, self._record.name + CONFIRM)

    def sampler(self, trials: list[FrozenTrial]) -> BaseSampler:
        return RandomSampler()

    def wants_trial(self, trials: list[FrozenTrial]) -> bool:
        return any(t.state == TrialState.WAITING for t in trials)

    def saved(self, trial: FrozenTrial) -> str:
        there = self._workplace
        if not is_task(trial):  # of an earlier version
            return ""
        return saved_of(there.store, self._record.config, there.data.hash, task_of(trial).source)

    def suggest(self, trial: optuna.Trial) -> Task:
        return self._companion.suggest(trial)

    def run(self, trial: optuna.Trial, suggested: Task) -> float:
        return self._companion.run(trial, suggested)


def pruner(config: StudyConfig) -> BasePruner:
    """The pruner that a configuration describes."""
    if isinstance(config.pruner, SimilarityEntropyRule):
        return SimilarityEntropyPruner(**config.pruner.model_dump(exclude={"name"}), seed=config.seed)
    return NopPruner()


def why_failed(trial: FrozenTrial) -> str:
    """In one line, why a trial failed or was infeasible."""
    return str(trial.user_attrs.get("infeasible") or trial.user_attrs.get("error") or "its worker ended")
