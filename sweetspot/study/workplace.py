"""Workplace: what a process needs to work on a study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import optuna
import torch
from sqlalchemy.exc import SQLAlchemyError

from sweetspot.config import RunConfig, StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.store import Leases, Store
from sweetspot.store.outage import DatabaseDownError
from sweetspot.store.url import data_folder
from sweetspot.student.responses import ResponseCache
from sweetspot.study.findings import Findings
from sweetspot.study.space import AnyPoint
from sweetspot.training.device import devices, prepare, resolve_precision


class OnProgress(Protocol):
    """Told what is being trained; may raise to stop it."""

    def __call__(self, phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None: ...


def _silent(phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
    pass


@dataclass
class Workplace:
    """What a process works with: the store, its leases, the study's data on its device.

    Attributes:
        study: the name under which students are paid for.
        on_trial: told the Optuna study and the number of the trial that begins; None when it has ended.
        on_findings: told what a trial of a search has found, just before it ends with a value or is pruned: the last
            moment at which anything can be written to it. What it raises is logged, and harms no trial.
        should_stop: asked after each step and between trials: whether to save what is trained, and to stop.
        responses: of the teacher that taught here last.
    """

    study: str
    store: Store
    leases: Leases
    data: StudyData
    device: torch.device
    on_progress: OnProgress = _silent
    on_trial: Callable[[str, int | None], None] = lambda study, number: None
    should_stop: Callable[[], bool] = lambda: False
    on_findings: Callable[[optuna.Trial, Findings], None] = lambda trial, findings: None
    responses: ResponseCache = field(default_factory=ResponseCache)


def open_workplace(
    config: StudyConfig,
    *,
    study: str,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
) -> Workplace:
    """A workplace in this process, registered as a worker.

    Raises:
        UserError: if the storage, the data or the device is not to be had.
    """
    chosen = devices(device)[0]
    store = Store(storage, artifacts, config.run)
    prepared = prepare(chosen, config.run)
    leases = _register(store, chosen, config.run)
    return Workplace(study, store, leases, load_study_data(config, data or data_folder(), prepared), prepared)


@contextmanager
def registered(store: Store, device: str, run: RunConfig) -> Iterator[Leases]:
    """The leases of this process, which is a worker of the store for as long as the block lasts."""
    leases = _register(store, device, run)
    try:
        yield leases
    finally:
        leases.stop_renewing()
        with suppress(SQLAlchemyError, DatabaseDownError):
            store.workers.unregister(leases.owner)


def _register(store: Store, device: str, run: RunConfig) -> Leases:
    leases = Leases(store.database, store.workers.register(device), 4 * run.heartbeat_seconds, store.workers.has_ended)
    leases.keep_renewing(run.heartbeat_seconds / 3)
    return leases


def resolved(config: StudyConfig, device: str) -> StudyConfig:
    """The configuration with every "auto" settled for a device: what a new study stores."""
    teacher = config.teacher.model_copy(update={"precision": resolve_precision(config.teacher.precision, device)})
    student = config.student.model_copy(update={"precision": resolve_precision(config.student.precision, device)})
    return config.model_copy(update={"teacher": teacher, "student": student})
