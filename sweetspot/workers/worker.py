"""A worker: the process of one device that takes the trials of studies, and of their confirmations."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import optuna

from sweetspot.data.study_data import load_study_data
from sweetspot.errors import UserError
from sweetspot.store import Store, StudyRecord
from sweetspot.store.url import data_folder, shown
from sweetspot.study.claim import Job, Outcome, claim_lease, run_next
from sweetspot.study.confirmation import ensure_planned
from sweetspot.study.estimate import Shape, disk_bytes, with_trials
from sweetspot.study.jobs import FAILED, Confirming, Search
from sweetspot.study.search import Counts, companions, get_study, load
from sweetspot.study.workplace import Workplace, registered
from sweetspot.training.device import devices, prepare
from sweetspot.workers.free_space import check_free_space
from sweetspot.workers.pulse import Pulse

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.3


def work(
    name: str | None,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
) -> None:
    """Take trials until nothing is left: of one study, or without a name of every study in the storage.

    Raises:
        UserError: if the study, the storage, the data or the device is not to be had, or the data is other data.
        KeyboardInterrupt: on Ctrl-C, once the trial is given back.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failures are logged where they are caught
    chosen, *others = devices(device)
    if others and "," in device:
        raise UserError(f"--device {device}: a worker has one device; start one worker for each")
    with Store(storage, artifacts) as store:
        if name is not None:
            names = [get_study(store, name).name]
        else:
            names = [record.name for record in store.studies.all() if _has_work(store, record)]
        if not names:
            raise UserError(f"no study in {shown(store.url)} has trials left: start one with sweetspot optimize")
    refused = None
    for each in names:
        try:
            _work_on(each, chosen, storage, artifacts, data)
        except UserError as error:  # the others may still be served
            _log.warning("study %r: %s", each, error)
            refused = error
    if refused is not None:
        raise refused


def _has_work(store: Store, record: StudyRecord) -> bool:
    trials = load(store, record.name).get_trials(deepcopy=False)
    if not record.ended and Counts.of(trials).finished < record.config.search.trials:
        return True
    return any(
        Counts.of(load(store, name).get_trials(deepcopy=False)).waiting for name in companions(store, record.name)
    )


def _work_on(name: str, device: str, storage: str | None, artifacts: str | None, root: Path | None) -> None:
    """Take the trials of one study, then those of its confirmation."""
    with Store(storage, artifacts) as store:
        config = get_study(store, name).config
    # Opened again, with the heartbeat settings of this study.
    with Store(storage, artifacts, config.run) as store:
        record = get_study(store, name)
        prepared = prepare(device, config.run)
        with (
            registered(store, device, config.run) as leases,
            Pulse(store, leases.owner, config.run.heartbeat_seconds / 3) as pulse,
        ):
            pulse.say(study=name, phase="loading")
            data = load_study_data(config, root or data_folder(), prepared)
            if data.hash != record.data_hash:
                raise UserError(
                    f"the study {name!r} was made with other images: its data has the hash "
                    f"{record.data_hash[:12]}, the copy here {data.hash[:12]}; give the right --data"
                )
            left = config.search.trials - Counts.of(load(store, name).get_trials(deepcopy=False)).finished
            if left > 0:
                check_free_space(store, disk_bytes(with_trials(config, left), Shape.of(data)))
            workplace = Workplace(name, store, leases, data, prepared, pulse.progress)
            search, confirming = Search(record, workplace), Confirming(record, workplace)
            search_and_confirm(search, confirming, workplace, lambda: pulse.say(phase="idle", detail={}))


def search_and_confirm(
    search: Job, confirming: Job, workplace: Workplace, on_idle: Callable[[], None] = lambda: None
) -> None:
    """Take the trials of a search until it has ended, then those of its confirmation.

    Args:
        on_idle: called before each wait for other workers.
    """
    planned = is_last_look = False
    while True:
        outcome = run_next(search, workplace)
        if outcome == Outcome.RAN:
            planned = is_last_look = False  # what is found now may be another best point
        elif outcome == Outcome.DONE:
            planned = planned or _plan_confirmation(search.name, workplace)
            outcome = run_next(confirming, workplace) if planned else Outcome.DONE
            if outcome == Outcome.DONE:
                if not planned or is_last_look:
                    return
                planned = False  # planning once more queues the arms that failed
            is_last_look = outcome == Outcome.DONE
        if outcome == Outcome.WAIT:
            on_idle()
            time.sleep(_POLL_SECONDS)


def _plan_confirmation(name: str, workplace: Workplace) -> bool:
    """Plan the confirmation of a search that is done, unless somebody else has; whether there is one."""
    while True:
        record = workplace.store.studies.get(name)
        if record is None or (record.ended or "").startswith(FAILED):
            return False
        claim = workplace.leases.acquire(claim_lease(name))
        if claim is not None:
            with claim:
                return ensure_planned(workplace.store, record, workplace.data)
        time.sleep(_POLL_SECONDS)
