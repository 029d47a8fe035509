"""A worker: the process of one device that takes the trials of studies, and of their confirmations."""

import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from sweetspot.config import RunConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.report.dashboard.contents import Contents
from sweetspot.report.dashboard.trials import describe_trial
from sweetspot.store import Store, StudyRecord
from sweetspot.store.outage import patience
from sweetspot.store.url import data_folder, shown
from sweetspot.study.claim import Job, Outcome, claim_lease, run_next
from sweetspot.study.confirmation import ensure_planned, is_unplanned
from sweetspot.study.estimate import Shape, disk_bytes, with_trials
from sweetspot.study.jobs import FAILED, Confirming, Search
from sweetspot.study.search import Counts, companions, get_study, load
from sweetspot.study.workplace import Workplace, registered
from sweetspot.timing import span
from sweetspot.training.device import devices, prepare
from sweetspot.training.resume import StoppedError
from sweetspot.workers.drain import Drain
from sweetspot.workers.free_space import check_free_space
from sweetspot.workers.profile import profiled
from sweetspot.workers.pulse import SUPERVISOR, Pulse

_log = logging.getLogger(__name__)
_ASKING_SECONDS = 0.05, 0.5
"""Whoever finds another worker asking tries again after as much, and later and later up to this: 64 workers that look
every 0.05 s take the processors that the one who asks needs."""
_ASKING_GROWTH = 1.5
_IDLE_SECONDS = 0.3, 5.0
"""Between looks for a trial at first, and after a long wait for other workers."""
_STUDY_SECONDS = 5.0
"""Between looks for studies that have trials left."""
_MOST_ON_SQLITE = 8
_REFUSED_SECONDS = 60.0
"""After so long a study that could not be served is tried again."""


def work(
    name: str | None,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
    forever: bool = False,
) -> None:
    """Take trials until nothing is left: of one study, or without a name of every study in the storage.

    Asked to stop, by SIGTERM or ``sweetspot workers drain``, it saves its place, gives its trial back, and returns.

    Args:
        forever: wait for further studies, or for further trials of this one, instead.

    Raises:
        UserError: if the study, the storage, the data or the device is not to be had, or the data is other data.
        RunError: if the database or the artifacts have not answered for too long.
        KeyboardInterrupt: after Ctrl-C, once the trial is given back.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failures are logged where they are caught
    chosen, *others = devices(device)
    if others and "," in device:
        raise UserError(f"--device {device}: a worker has one device; start one worker for each")
    drain = Drain()
    worker = _Worker(chosen, storage, artifacts, data, drain)
    with drain.on_signals(), profiled(chosen):
        try:
            worker.serve_forever(name) if forever else worker.serve(name)
        except StoppedError:
            pass
        except (RunError, KeyboardInterrupt) as error:
            if not drain.is_requested():
                raise
            _log.warning("stopped in the midst of it%s", f": {error}" if isinstance(error, RunError) else "")
    if drain.interrupted:
        raise KeyboardInterrupt


class _Worker:
    """Where a worker serves, on which device."""

    def __init__(
        self, device: str, storage: str | None, artifacts: str | None, data: Path | None, drain: Drain
    ) -> None:
        self._device = device
        self._storage = storage
        self._artifacts = artifacts
        self._data = data or data_folder()
        self._drain = drain
        self._has_been_open = SUPERVISOR in os.environ  # by the supervisor: it has started this worker

    def _open(self, run: RunConfig | None = None) -> Store:
        """The store; once it has been open, an outage is waited for.

        Raises:
            UserError: if it cannot be opened at first.
            RunError: if it cannot be opened again.
            StoppedError: if the worker is asked to stop meanwhile.
        """
        deadline = time.monotonic() + (run or RunConfig()).outage_seconds
        while True:
            try:
                store = Store(self._storage, self._artifacts, run)
            except (UserError, RunError, SQLAlchemyError) as error:
                if not self._has_been_open:
                    raise
                if time.monotonic() > deadline:
                    raise RunError(str(error)) from None
            else:
                self._has_been_open = True
                store.hurry_when(self._drain.is_requested)
                return store
            self._drain.wait(random.uniform(0.5, 1.0) * _STUDY_SECONDS)
            if self._drain.is_requested():
                raise StoppedError

    def serve(self, name: str | None) -> None:
        """Every study that has trials left, or the one of this name, once."""
        with self._open() as store:
            if name is not None:
                names = [get_study(store, name).name]
            else:
                names = [record.name for record in store.studies.all() if has_work(store, record)]
            if not names:
                raise UserError(f"no study in {shown(store.url)} has trials left: start one with sweetspot optimize")
        refused = None
        for each in names:
            try:
                self._work_on(each)
            except UserError as error:  # the others may still be served
                _log.warning("study %r: %s", each, error)
                refused = error
        if refused is not None:
            raise refused

    def serve_forever(self, name: str | None) -> None:
        """Whatever study has trials left, or the one of this name, until the worker is asked to stop."""
        refused: dict[str, float] = {}
        while True:
            each = self._wait_for_work(name, refused)
            try:
                if self._work_on(each) == 0:
                    refused[each] = time.monotonic()  # there was nothing that it could do
            except UserError as error:
                _log.warning("study %r: %s", each, error)
                refused[each] = time.monotonic()

    def _wait_for_work(self, name: str | None, refused: dict[str, float]) -> str:
        """The name of a study that has work, as soon as there is one."""
        with ExitStack() as stack:
            store = stack.enter_context(self._open())
            run = RunConfig()
            stack.enter_context(patience(run.outage_seconds))
            leases = stack.enter_context(registered(store, self._device, run))
            pulse = stack.enter_context(Pulse(store, leases.owner, run.heartbeat_seconds / 3, self._drain))
            pulse.say(phase="idle")
            while True:
                if self._drain.is_requested():
                    raise StoppedError
                for record in store.studies.all():
                    is_refused = time.monotonic() - refused.get(record.name, -_REFUSED_SECONDS) < _REFUSED_SECONDS
                    if name in (None, record.name) and not is_refused and has_work(store, record):
                        return record.name
                self._drain.wait(random.uniform(0.5, 1.0) * _STUDY_SECONDS)

    def _work_on(self, name: str) -> int:
        """Take the trials of one study, then those of its confirmation; how many it has taken."""
        with self._open() as store, patience(RunConfig().outage_seconds):
            config = get_study(store, name).config
        # Opened again, with the heartbeat settings of this study.
        with self._open(config.run) as store:
            record = get_study(store, name)
            prepared = prepare(self._device, config.run)
            beat = config.run.heartbeat_seconds / 3
            with (
                patience(config.run.outage_seconds),
                registered(store, self._device, config.run) as leases,
                Pulse(store, leases.owner, beat, self._drain) as pulse,
            ):
                pulse.say(study=name, phase="loading")
                with span("loading"):
                    data = load_study_data(config, self._data, prepared)
                if data.hash != record.data_hash:
                    raise UserError(
                        f"the study {name!r} was made with other images: its data has the hash "
                        f"{record.data_hash[:12]}, the copy here {data.hash[:12]}; give the right --data"
                    )
                left = config.search.trials - Counts.of(load(store, name).get_trials(deepcopy=False)).finished
                if left > 0 and SUPERVISOR not in os.environ:  # who has looked before it started this worker
                    check_free_space(store, disk_bytes(with_trials(config, left), Shape.of(data)))
                pulse.begin(name, data.train_images)
                if SUPERVISOR not in os.environ:
                    living = sum(not w.ended and not w.is_silent for w in store.workers.all())
                    if (advice := advice_on_workers(store, living)) is not None:
                        _log.warning(advice)
                workplace = Workplace(
                    name, store, leases, data, prepared, pulse.progress, pulse.trial, self._drain.is_requested,
                    partial(describe_trial, store),
                )  # fmt: skip
                contents = Contents(store, name, leases, sleep=self._drain.wait)
                search, confirming = Search(record, workplace), Confirming(record, workplace)
                try:
                    return search_and_confirm(search, confirming, workplace, self._drain.wait, contents)
                except StoppedError:
                    contents.finish(may_wait=False)  # it may be the only worker
                    raise
                except Exception:  # Optuna has many errors for a study that is gone
                    if store.studies.get(name) is not None:
                        raise
                    _log.warning("the study %r was deleted: leaving it", name)
                    return 0


def advice_on_workers(store: Store, workers: int) -> str | None:
    """What is to be said of so many workers on this database; None: nothing."""
    if store.url.get_backend_name() != "sqlite" or workers <= _MOST_ON_SQLITE:
        return None
    return (
        f"{workers} workers share an SQLite file, in which one writes at a time: for more than {_MOST_ON_SQLITE} use "
        "PostgreSQL (--storage postgresql://…)"
    )


def has_work(store: Store, record: StudyRecord) -> bool:
    """Whether a study has trials, or tasks after them, that are not finished."""
    trials = load(store, record.name).get_trials(deepcopy=False)
    if not record.ended and Counts.of(trials).finished < record.config.search.trials:
        return True
    for name in companions(store, record.name):
        counts = Counts.of(load(store, name).get_trials(deepcopy=False))
        if counts.waiting or counts.running:
            return True
    return not (record.ended or "").startswith(FAILED) and is_unplanned(store, record)


def search_and_confirm(
    search: Job,
    confirming: Job,
    workplace: Workplace,
    sleep: Callable[[float], None] = time.sleep,
    contents: Contents | None = None,
) -> int:
    """Take the trials of a search until it has ended, then those of its confirmation; how many were taken.

    Args:
        contents: what the study shows on a dashboard, to be kept current; None: nobody does.

    Raises:
        StoppedError: if the worker is asked to stop; so do :func:`~sweetspot.study.claim.run_next`'s other errors.
    """
    show = contents or _Nowhere()
    planned = told = False
    waited = 0.0
    busy = taken = 0
    show.refresh()
    while True:
        if workplace.should_stop():
            raise StoppedError
        outcome = run_next(search, workplace)
        if outcome == Outcome.RAN:
            planned = told = False  # what is found now may be another best point
            show.refresh()
        elif outcome == Outcome.DONE:
            if not planned:
                planned = _plan_confirmation(search.study.study_name, workplace, sleep)
            if not told:
                show.finish(may_wait=False)
                told = True
            outcome = run_next(confirming, workplace) if planned else Outcome.DONE
            if outcome == Outcome.RAN:
                show.refresh()
            if outcome == Outcome.DONE:
                if not planned:
                    workplace.leases.free_of_dead()
                    show.finish()
                    return taken
                planned = False  # these tasks are done: others may come next, or some of them again
                continue
        taken += outcome == Outcome.RAN
        busy = busy + 1 if outcome == Outcome.BUSY else 0
        if outcome == Outcome.BUSY:
            with span("waiting"):
                sleep(_asking_pause(busy))
        elif outcome == Outcome.WAIT:
            at_least, at_most = _IDLE_SECONDS
            pause = random.uniform(0.5, 1.0) * min(max(at_least, 0.1 * waited), at_most)
            with span("waiting"):
                sleep(pause)
            waited += pause
        else:
            waited = 0.0


class _Nowhere:
    """Shows nothing."""

    def refresh(self) -> None: ...

    def finish(self, *, may_wait: bool = True) -> None: ...


def _plan_confirmation(name: str, workplace: Workplace, sleep: Callable[[float], None]) -> bool:
    """Queue what comes next once a search is done, unless somebody else has; whether there is anything to be done.

    Raises:
        StoppedError: if the worker is asked to stop meanwhile.
    """
    busy = 0
    while True:
        if workplace.should_stop():
            raise StoppedError
        claim = workplace.leases.acquire(claim_lease(name))
        if claim is not None:
            with claim:
                record = workplace.store.studies.get(name)
                if record is None or (record.ended or "").startswith(FAILED):
                    return False
                return ensure_planned(workplace.store, record, workplace.data)
        busy += 1
        with span("waiting"):
            sleep(_asking_pause(busy))


def _asking_pause(busy: int) -> float:
    """Seconds, before the next try of a worker that has found others asking so many times in a row."""
    at_first, at_most = _ASKING_SECONDS
    return random.uniform(0.5, 1.5) * min(at_first * _ASKING_GROWTH ** min(busy - 1, 20), at_most)
