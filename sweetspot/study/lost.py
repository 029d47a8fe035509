"""Lost trials: those whose worker died or was stopped are failed, and their parameters queued again."""

from collections.abc import Callable, Collection, Mapping

import optuna
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import FrozenTrial, TrialState

from sweetspot.store import Store
from sweetspot.study.search import GIVEN_BACK, REPLACED, TASK, is_given_back
from sweetspot.study.space import params_of

MOST_DEATHS = 3
"""So many workers may die at a point, one after the other, without having saved anything new of it."""

_SAVED = "saved_at_death"
"""The user attribute of a trial whose worker died: what was in the store of its work."""


Saved = Callable[[FrozenTrial], str]
"""Says of a trial what the store has of its work; it changes whenever that grows."""


def sweep(
    store: Store, study: optuna.Study, parameters: Collection[str] = (), saved: Saved = lambda trial: ""
) -> list[FrozenTrial]:
    """Fail the running trials whose worker has ended, and queue again whatever was given back. Only under the claim.

    Under the claim nobody else is between asking for a trial and saying who works on it: a running trial without a
    worker has lost it there, before Optuna's heartbeat began, and would otherwise run for ever.

    Args:
        parameters: the names of all that a trial of this study suggests; one that has not got so far is not repeated.
        saved: told trials that have them all.

    Returns:
        All trials of the study: as they were found, where there was nothing to do.
    """
    trials = study.get_trials(deepcopy=False)
    running = [t for t in trials if t.state == TrialState.RUNNING]
    has_buried = False
    if running:
        workers = {t.user_attrs["worker"] for t in running if "worker" in t.user_attrs}
        ended = store.workers.ended(workers)
        drained = store.workers.drained(ended)
        silent = set(store.database.storage.silent_trial_ids(study._study_id))
        for trial in running:
            worker = trial.user_attrs.get("worker")
            if worker is None or worker in ended:
                reason = "drained" if worker in drained else "its worker ended"
            elif trial._trial_id in silent:
                reason = "its worker fell silent"
            else:
                continue
            is_death = worker not in drained and _is_whole(trial, parameters)
            _bury(study, trial, reason, saved(trial) if is_death else None)
            store.free_leases({worker} if worker is not None else set())
            has_buried = True
    if has_buried:
        trials = study.get_trials(deepcopy=False)
    return study.get_trials(deepcopy=False) if _queue_copies(study, trials, parameters) else trials


def queue_again(study: optuna.Study, parameters: Collection[str] = ()) -> None:
    """Queue the parameters of every trial that was given back and has no copy yet. Only under the claim."""
    _queue_copies(study, study.get_trials(deepcopy=False), parameters)


def _is_whole(trial: FrozenTrial, parameters: Collection[str]) -> bool:
    """Whether a trial has all its parameters: half a point is none."""
    there = params_of(trial)
    return bool(there) and there.keys() >= set(parameters)


def _queue_copies(study: optuna.Study, trials: list[FrozenTrial], parameters: Collection[str]) -> bool:
    """Whether anything was changed."""
    has_changed = False
    copied: set[int] = set()
    for trial in trials:
        history = trial.system_attrs.get("retry_history", [])
        if trial.state == TrialState.WAITING and history and history[-1] in copied:
            withdraw(study, trial)  # a second copy: an outage has hidden that the first was made
            has_changed = True
        copied |= set(history)
    for trial in trials:
        is_lost = is_given_back(trial) and trial.user_attrs[GIVEN_BACK] != REPLACED
        if is_lost and trial.number not in copied and _is_whole(trial, parameters):
            _queue(study, trial)
            has_changed = True
    return has_changed


def withdraw(study: optuna.Study, trial: FrozenTrial) -> None:
    """Take a trial out of the queue: another takes its place."""
    study._storage.set_trial_user_attr(trial._trial_id, GIVEN_BACK, REPLACED)
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def fail(study: optuna.Study, trial: FrozenTrial, reason: str) -> None:
    """Fail a running trial that is to be queued again, unless it has finished meanwhile."""
    _end(study, trial, {GIVEN_BACK: reason}, TrialState.FAIL)


def _queue(study: optuna.Study, trial: FrozenTrial) -> None:
    history = [*trial.system_attrs.get("retry_history", []), trial.number]
    system = {"failed_trial": history[0], "retry_history": history}
    if "fixed_params" in trial.system_attrs:
        system["fixed_params"] = trial.system_attrs["fixed_params"]
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={key: trial.user_attrs[key] for key in (TASK,) if key in trial.user_attrs},
            system_attrs=system,
        )
    )


def _bury(study: optuna.Study, trial: FrozenTrial, reason: str, saved: str | None) -> None:
    """Fail a trial whose worker is gone; at a point where workers die again and again, for good.

    Args:
        saved: what the store has of its work; None: it was no death at this point.
    """
    if saved is None:
        _end(study, trial, {GIVEN_BACK: reason}, TrialState.FAIL)
    elif _deaths(study, trial, saved) < MOST_DEATHS:
        _end(study, trial, {_SAVED: saved, GIVEN_BACK: reason}, TrialState.FAIL)
    else:
        why = f"{MOST_DEATHS} workers died one after the other, and nothing new was saved in between"
        if TASK in trial.user_attrs:  # there is no other point to go to
            _end(study, trial, {"error": why}, TrialState.FAIL)
        else:
            study._storage.set_trial_system_attr(trial._trial_id, f"{_CONSTRAINTS_KEY}:infeasible", 1.0)
            _end(study, trial, {"infeasible": why}, TrialState.PRUNED)


def _deaths(study: optuna.Study, trial: FrozenTrial, now: str) -> int:
    """How many workers have died at this trial and at those it repeats, this one included, since more was saved."""
    by_number = {t.number: t for t in study.get_trials(deepcopy=False)}
    deaths = 1
    for number in reversed(trial.system_attrs.get("retry_history", [])):
        there = by_number[number].user_attrs.get(_SAVED)
        if there is not None and there != now:
            break
        deaths += there is not None  # a drain is no death
    return deaths


def _end(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, str], state: TrialState) -> None:
    try:
        for key, value in attributes.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        study._storage.set_trial_state_values(trial._trial_id, state=state)
    except optuna.exceptions.UpdateFinishedTrialError:  # it finished meanwhile
        pass
