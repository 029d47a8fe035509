"""Claims: one worker at a time asks a study for a trial and suggests all its parameters, then lets the next one in."""

import logging
import traceback
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweetspot.store import Lease, LostLeaseError
from sweetspot.store.artifacts import ArtifactsError
from sweetspot.study.search import GIVEN_BACK, fail_and_give_back, give_back, sweep
from sweetspot.study.workplace import Workplace

_log = logging.getLogger(__name__)


class Outcome(Enum):
    """What came of asking a study for a trial."""

    RAN = "a trial was run"
    WAIT = "no trial now: other workers are still at theirs, or are asking"
    DONE = "no trial any more"


class Job(Protocol):
    """A study whose trials can be claimed."""

    @property
    def name(self) -> str:
        """Of the Optuna study."""

    @property
    def pruner(self) -> BasePruner: ...

    def sampler(self) -> BaseSampler: ...

    def wants_trial(self, trials: list[FrozenTrial]) -> bool:
        """Whether a trial may be asked for, with what is there. Asked under the claim."""

    def suggest(self, trial: optuna.Trial) -> Any:
        """All parameters of the trial; the claim ends with it."""

    def run(self, trial: optuna.Trial, suggested: Any) -> float:
        """The trial's value."""


def claim_lease(name: str) -> str:
    """The name of the lease under which a study's trials are claimed."""
    return f"claim/{name}"


def run_next(job: Job, workplace: Workplace) -> Outcome:
    """Claim a trial of ``job`` and run it.

    A trial that is interrupted (Ctrl-C, a lost lease, a full disk) fails and is given back: its parameters are queued
    again.

    Raises:
        KeyboardInterrupt: once the trial is given back.
        ArtifactsError: likewise, if the artifacts can be read or written no more.
    """
    claim = workplace.leases.acquire(claim_lease(job.name))
    if claim is None:
        return Outcome.WAIT
    with claim:
        study = optuna.load_study(
            study_name=job.name,
            storage=workplace.store.database.storage,
            sampler=job.sampler(),
            pruner=job.pruner,
        )
        sweep(workplace.store, study)
        trials = study.get_trials(deepcopy=False)
        if not job.wants_trial(trials):
            under_way = any(t.state == TrialState.RUNNING for t in trials)
            return Outcome.WAIT if under_way else Outcome.DONE
        _Run(job, study, claim, workplace).run()
    return Outcome.RAN


class _Run:
    """One trial, from asking for it to what becomes of it."""

    def __init__(self, job: Job, study: optuna.Study, claim: Lease, workplace: Workplace) -> None:
        self._job = job
        self._study = study
        self._claim = claim
        self._worker = workplace.leases.owner
        self._store = workplace.store
        self._trial: optuna.Trial | None = None
        self._ending: ArtifactsError | None = None

    def run(self) -> None:
        try:
            self._study.optimize(self._objective, n_trials=1, catch=(Exception,))
        except (ValueError, AssertionError):
            # Optuna can neither tell nor log the result of a trial that another process has failed meanwhile.
            if self._trial is None or self._frozen().state == TrialState.RUNNING:
                raise
            _log.warning("trial %d was taken away: its result is dropped", self._trial.number)
        finally:
            if self._trial is None:  # interrupted while it was asked for: the claim is still held
                sweep(self._store, self._study)
            else:
                frozen = self._frozen()
                if frozen.state == TrialState.RUNNING:  # interrupted between its end and telling it
                    fail_and_give_back(self._study, frozen, "interrupted")
                elif frozen.state == TrialState.FAIL and frozen.user_attrs.get("worker") == self._worker:
                    self._after_failure(frozen)
        if self._ending is not None:
            raise self._ending

    def _after_failure(self, frozen: FrozenTrial) -> None:
        given_back = any(
            frozen.number in t.system_attrs.get("retry_history", []) for t in self._study.get_trials(deepcopy=False)
        )
        knows_its_point = bool(frozen.params or "fixed_params" in frozen.system_attrs)
        if GIVEN_BACK in frozen.user_attrs and knows_its_point and not given_back:
            give_back(self._study, frozen)

    def _objective(self, trial: optuna.Trial) -> float:
        self._trial = trial
        try:
            with self._store.database.session.begin() as session:
                self._claim.check(session)  # a worker that was held up for too long may have asked for one too many
            trial.set_user_attr("worker", self._worker)
            suggested = self._job.suggest(trial)
            self._claim.release()
            return self._job.run(trial, suggested)
        except optuna.TrialPruned:
            raise
        except KeyboardInterrupt:
            self._note(trial, GIVEN_BACK, "interrupted")
            raise
        except LostLeaseError as error:
            self._note(trial, GIVEN_BACK, f"another worker took over {error}")
            raise
        except ArtifactsError as error:  # no fault of the point's, and no other would fare better
            self._note(trial, GIVEN_BACK, str(error))
            self._ending = error
            raise
        except optuna.exceptions.UpdateFinishedTrialError:  # taken away: what comes of that, run() says
            raise
        except Exception as error:
            last_line = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
            _log.exception("trial %d failed", trial.number)
            self._note(trial, "error", last_line)
            raise

    @staticmethod
    def _note(trial: optuna.Trial, key: str, value: str) -> None:
        """Set an attribute, if the trial and the database are still there: the error on its way counts more."""
        with suppress(optuna.exceptions.UpdateFinishedTrialError, optuna.exceptions.StorageInternalError):
            trial.set_user_attr(key, value)

    def _frozen(self) -> FrozenTrial:
        assert self._trial is not None
        return self._study._storage.get_trial(self._trial._trial_id)
