"""Checkpoints of students: what a crash costs is at most the time between two."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sweetspot.store.artifacts import ArtifactsError, DamagedBlobError
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.outage import DatabaseDownError, patience
from sweetspot.store.students import Purpose, StudentStore, student_run

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HalfTrained:
    """A student within its training.

    Attributes:
        step: steps that are done of the epoch after those in ``losses``.
        state: network, optimiser, sum of the epoch's losses and random state, as bytes.
        losses, accuracies: of the whole epochs that are done.
        seconds: so far.
    """

    step: int
    state: bytes
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    seconds: float


class StudentCheckpoints:
    """Where the students of one distillation are kept while they train.

    Args:
        distillation: the hash of their recipe.
        seconds: between two checkpoints.
        should_stop: whether to save, and to stop.
        check: called before they are saved; raises if that is not this worker's business any more.
    """

    def __init__(
        self,
        store: StudentStore,
        distillation: str,
        purpose: Purpose,
        seconds: float,
        should_stop: Callable[[], bool] = lambda: False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._distillation = distillation
        self._purpose = purpose
        self._seconds = seconds
        self.should_stop = should_stop
        self._check = check
        self._since = time.monotonic()

    def load(self, replicate: int) -> HalfTrained | None:
        """A student that was interrupted; None: it begins, or its checkpoint is damaged."""
        checkpoint = self._store.checkpoint(self._run(replicate))
        if checkpoint is None:
            return None
        try:
            state = self._store.artifacts.get(checkpoint.state)
        except DamagedBlobError as error:
            _log.warning("%s: training replicate %d of %s again", error, replicate, self._distillation[:12])
            self._store.drop_checkpoint(checkpoint.run)
            return None
        detail = checkpoint.detail
        return HalfTrained(
            checkpoint.step, state, tuple(detail["losses"]), tuple(detail["accuracies"]), detail["seconds"]
        )

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._since > self._seconds

    def save(self, students: Mapping[int, HalfTrained]) -> None:
        """Keep these replicates, in place of what was kept of them; the next checkpoint is due in a while."""
        with suppress(DatabaseDownError), patience(0):
            self._check()
        for replicate, student in students.items():
            detail = {"losses": student.losses, "accuracies": student.accuracies, "seconds": student.seconds}
            epoch = len(student.losses)
            try:
                with patience(0):
                    state = self._store.artifacts.put(student.state)
                    self._store.save_checkpoint(Checkpoint(self._run(replicate), epoch, student.step, state, detail))
            except (ArtifactsError, DatabaseDownError) as error:  # the students may still be written, later
                _log.warning("no checkpoint, training goes on: %s", error)
                break
        self._since = time.monotonic()

    def _run(self, replicate: int) -> str:
        return student_run(self._distillation, self._purpose, replicate)
