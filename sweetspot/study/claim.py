"""Claims: one worker at a time asks a study for a trial and suggests all its parameters, then lets the next one in."""

import logging
import traceback
from collections.abc import Collection
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweetspot.errors import RunError, UserError
from sweetspot.store import Lease, LostLeaseError
from sweetspot.store.artifacts import ArtifactsError
from sweetspot.store.outage import DatabaseDownError
from sweetspot.study.lost import fail, queue_again, sweep
from sweetspot.study.search import CONFIRM, GIVEN_BACK, is_given_back
from sweetspot.study.workplace import Workplace
from sweetspot.training.resume import StoppedError

_log = logging.getLogger(__name__)


class Outcome(Enum):
    """What came of asking a study for a trial."""

    RAN = "a trial was run"
    BUSY = "another worker is asking at this moment"
    WAIT = "no trial now: other workers are still at theirs"
    DONE = "no trial any more"


class Job(Protocol):
    """A study whose trials can be claimed."""

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, always the same object: it remembers the trials that have finished."""

    @property
    def parameters(self) -> Collection[str]:
        """The names of all that a trial suggests."""

    @property
    def pruner(self) -> BasePruner: ...

    def sampler(self, trials: list[FrozenTrial]) -> BaseSampler:
        """For the trial that is asked for now, under the claim, with what is there."""

    def wants_trial(self, trials: list[FrozenTrial]) -> bool:
        """Whether a trial may be asked for, with what is there. Asked under the claim."""

    def saved(self, trial: FrozenTrial) -> str:
        """What the store has of the work of a trial with all its parameters; it changes whenever that grows."""

    def suggest(self, trial: optuna.Trial) -> Any:
        """All parameters of the trial; the claim ends with it."""

    def run(self, trial: optuna.Trial, suggested: Any) -> float:
        """The trial's value."""


def claim_lease(name: str) -> str:
    """The name of the lease under which a study's trials are claimed."""
    return f"claim/{name}"


def run_next(job: Job, workplace: Workplace) -> Outcome:
    """Claim a trial of ``job`` and run it.

    A trial that is interrupted (a drain, Ctrl-C, a lost lease, a full disk, a long outage) fails and is given back: its
    parameters are queued again.

    Raises:
        StoppedError: once the trial is given back, if the worker was asked to stop.
        KeyboardInterrupt: likewise.
        ArtifactsError, DatabaseDownError: likewise, if the store has not answered for too long.
        UserError: likewise, if this worker cannot do it: its network is not the one that made the stored weights.
    """
    claim = workplace.leases.acquire(claim_lease(job.study.study_name))
    if claim is None:
        return Outcome.BUSY
    with claim:
        study = job.study
        trials = sweep(workplace.store, study, job.parameters, job.saved)
        if not job.wants_trial(trials):
            under_way = any(t.state == TrialState.RUNNING for t in trials)
            return Outcome.WAIT if under_way else Outcome.DONE
        study.sampler, study.pruner = job.sampler(trials), job.pruner
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
        self._leases = workplace.leases
        self._on_trial = workplace.on_trial
        self._trial: optuna.Trial | None = None
        self._ending: BaseException | None = None

    def run(self) -> None:
        try:
            self._study.optimize(self._objective, n_trials=1, catch=(Exception,))
        except (ValueError, AssertionError):
            # Optuna can neither tell nor log the result of a trial that another process has failed meanwhile.
            if self._trial is None or self._frozen().state == TrialState.RUNNING:
                raise
            _log.warning("trial %d was taken away: its result is dropped", self._trial.number)
        finally:
            self._on_trial(self._study.study_name, None)
            if self._trial is None:  # interrupted while it was asked for: the claim is still held
                sweep(self._store, self._study, self._job.parameters, self._job.saved)
            else:
                frozen = self._frozen()
                if frozen.state == TrialState.RUNNING:  # interrupted between its end and telling it
                    fail(self._study, frozen, "interrupted")
                    frozen = self._frozen()
                if is_given_back(frozen):
                    self._queue_again()
        if self._ending is not None:
            raise self._ending

    def _queue_again(self) -> None:
        """At once, if nobody is asking at this moment; otherwise whoever asks next does it."""
        claim = self._leases.acquire(claim_lease(self._study.study_name))
        if claim is not None:
            with claim:
                queue_again(self._study, self._job.parameters)

    def _objective(self, trial: optuna.Trial) -> float:
        self._trial = trial
        try:
            self._leases.confirm(self._claim)  # a worker that was held up for too long may have asked for one too many
            trial.set_user_attr("worker", self._worker)
            suggested = self._job.suggest(trial)
            self._claim.release()
            self._on_trial(self._study.study_name, trial.number)
            return self._job.run(trial, suggested)
        except optuna.TrialPruned:
            raise
        except KeyboardInterrupt as interrupt:
            self._note(trial, GIVEN_BACK, "interrupted")
            self._ending = interrupt  # of a trial that was taken away, Optuna replaces it by an error of its own
            raise
        except LostLeaseError as error:
            self._note(trial, GIVEN_BACK, f"another worker took over {error}")
            raise
        except StoppedError as error:
            self._note(trial, GIVEN_BACK, "drained")
            self._ending = error
            raise
        except (ArtifactsError, DatabaseDownError, UserError) as error:  # no fault of the point's, nor of others'
            self._note(trial, GIVEN_BACK, str(error))
            self._ending = error
            raise
        except optuna.exceptions.UpdateFinishedTrialError:  # taken away: what comes of that, run() says
            raise
        except Exception as error:
            if self._store.studies.get(self._study.study_name.removesuffix(CONFIRM)) is None:
                raise  # somebody has deleted the study
            if isinstance(error, RunError):
                last_line = str(error)
                _log.warning("trial %d failed: %s", trial.number, error)
            else:
                last_line = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
                _log.exception("trial %d failed", trial.number)
            self._note(trial, "error", last_line)
            raise

    @staticmethod
    def _note(trial: optuna.Trial, key: str, value: str) -> None:
        """Set an attribute, if the trial and the database are still there: the error on its way counts more."""
        with suppress(optuna.exceptions.UpdateFinishedTrialError, DatabaseDownError):
            trial.set_user_attr(key, value)

    def _frozen(self) -> FrozenTrial:
        assert self._trial is not None
        return self._study._storage.get_trial(self._trial._trial_id)
