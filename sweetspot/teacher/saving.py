"""Saving: what a training has reached, on its way into the store."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sweetspot.store.artifacts import ArtifactsError
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.lease import Lease, LostLeaseError
from sweetspot.store.outage import DatabaseDownError, patience
from sweetspot.store.trajectories import Measurement, Snapshot, TrajectoryStore
from sweetspot.store.undelivered import Undelivered, leave, left
from sweetspot.teacher.training import TeacherTraining
from sweetspot.training.resume import StoppedError

_log = logging.getLogger(__name__)


@dataclass
class _Kept:
    """A snapshot that is to be written, with the measurements made since the one before; its own comes first."""

    epoch: int
    weights: bytes
    optimizer: bytes | None
    is_branch_point: bool
    build: str
    own: Measurement
    measured: list[Measurement] = field(default_factory=list)


class Saving:
    """Writes what a training reaches: snapshots, and a checkpoint now and then.

    While the database or the artifacts do not answer it holds what there is to write, and the training goes on.

    Args:
        run: a branch of a recipe, whose lease is held.
        seconds: a checkpoint is due when the last one, or the last snapshot, is older than this.
        on_saved: called when a snapshot or a checkpoint has landed.
        on_snapshot: what :meth:`tell` calls with the measurement of each snapshot; may raise to stop.
        should_stop: asked after each step.
    """

    def __init__(
        self,
        store: TrajectoryStore,
        recipe: str,
        branch: int,
        lease: Lease,
        training: TeacherTraining,
        seconds: float,
        on_saved: Callable[[], None],
        on_snapshot: Callable[[Measurement], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._store = store
        self._recipe = recipe
        self._branch = branch
        self._lease = lease
        self._training = training
        self._seconds = seconds
        self._on_saved = on_saved
        self._on_snapshot = on_snapshot
        self._should_stop = should_stop
        there = store.checkpoint(lease.name)
        # One that is further on belongs to a longer run that was interrupted: it stays.
        self._ahead = there.position if there is not None else (0, 0)
        self._held: list[_Kept] = []
        self._landed: list[Measurement] = []
        self._checkpoint: Checkpoint | None = None
        """One that could not be delivered."""
        self._measured: list[Measurement] = []
        """Since the last snapshot or checkpoint that was made."""
        self._since = time.monotonic()

    def measured(self, measurements: list[Measurement]) -> None:
        """Record these with the next snapshot or checkpoint."""
        self._measured += measurements

    def keep(
        self,
        epoch: int,
        weights: bytes,
        optimizer: bytes | None,
        own: Measurement,
        *,
        is_branch_point: bool,
        build: str,
    ) -> None:
        """A snapshot of the epoch that was just measured; it is written now, or as soon as the store answers."""
        self._held.append(_Kept(epoch, weights, optimizer, is_branch_point, build, own, self._measured))
        self._measured, self._checkpoint = [], None
        self._try(self.deliver)
        self._since = time.monotonic()

    def deliver(self) -> None:
        """Write the snapshots that are held.

        Raises:
            LostLeaseError: if the lease was taken over; nothing is written then.
            DatabaseDownError, ArtifactsError: if the store does not answer.
        """
        while self._held:
            self._store.add(self._stored(self._held[0]), self._held[0].measured, self._lease)
            self._landed.append(self._held.pop(0).own)
            self._on_saved()

    def tell(self) -> None:
        """Tell of the snapshots that have landed since the last call, ascending."""
        while self._landed:
            self._on_snapshot(self._landed.pop(0))

    def on_step(self, step: int, loss: Tensor) -> None:
        """An :data:`~sweetspot.training.engine.OnStep`.

        Saves when it is time, but for the epoch's last step, after which it is measured first.

        Raises:
            LostLeaseError: if another worker trains on in this one's place.
            StoppedError: if it is to stop; its place is saved.
        """
        if self._lease.is_lost:
            raise LostLeaseError(self._lease.name)
        if step < self._training.steps:
            self._save_when_due(step, loss)

    def on_epoch(self) -> None:
        """As :meth:`on_step`, after an epoch that was measured, kept or not."""
        self._save_when_due(0, torch.zeros(()))

    def leave_behind(self) -> None:
        """Leave what could not be delivered where the next owner of the lease finds it, if anything can be written."""
        if not self._held and self._checkpoint is None:
            return
        try:
            with patience(0):
                work = Undelivered(
                    [(self._stored(kept), kept.measured) for kept in self._held], self._checkpoint, self._measured
                )
                leave(self._store.artifacts, self._lease.name, work)
        except ArtifactsError as error:
            _log.warning("what was trained since the last checkpoint is lost: %s", error)

    def _save_when_due(self, step: int, loss: Tensor) -> None:
        stop = self._should_stop()
        if stop or time.monotonic() - self._since > self._seconds:
            self._save(step, loss)
            self._since = time.monotonic()
        if stop:
            raise StoppedError

    def _save(self, step: int, loss: Tensor) -> None:
        self._try(self.deliver)
        training = self._training
        if (training.epoch, step) <= self._ahead:
            return
        try:
            with patience(0):
                state = self._store.artifacts.put(training.state(loss))
        except ArtifactsError as error:  # the snapshot may still be written, once there is room again
            _log.warning("no checkpoint: %s", error)
            return
        detail = {"seconds": training.seconds}
        self._checkpoint = Checkpoint(self._lease.name, training.epoch, step, state, detail)
        if not self._held:
            self._try(self._deliver_checkpoint)

    def _deliver_checkpoint(self) -> None:
        assert self._checkpoint is not None
        self._store.save_checkpoint(self._checkpoint, self._recipe, self._branch, self._measured, self._lease)
        self._on_saved()
        self._checkpoint, self._measured = None, []

    def _try(self, deliver: Callable[[], None]) -> None:
        """Deliver, if the store answers at once; otherwise what there is to deliver is held."""
        if self._store.outages.is_down:
            return
        try:
            with patience(0):
                deliver()
        except (DatabaseDownError, ArtifactsError) as error:
            _log.warning("held until it can be delivered, training goes on: %s", error)

    def _stored(self, kept: _Kept) -> Snapshot:
        put = self._store.artifacts.put
        optimizer = None if kept.optimizer is None else put(kept.optimizer)
        return Snapshot(
            self._recipe, self._branch, kept.epoch, put(kept.weights), optimizer, kept.is_branch_point, kept.build
        )


def deliver_left(store: TrajectoryStore, recipe: str, branch: int, lease: Lease) -> None:
    """Deliver what an owner before this one could not, as far as it is not there by now. Only under the lease.

    Raises:
        LostLeaseError: if the lease was taken over.
    """
    for note, work in left(store.artifacts, lease.name):
        there = {snapshot.epoch for snapshot in store.snapshots(recipe, branch)}
        for snapshot, measured in work.snapshots:
            if snapshot.epoch not in there:
                store.add(snapshot, measured, lease)
        reached = store.checkpoint(lease.name)
        if work.checkpoint and (reached is None or reached.position < work.checkpoint.position):
            store.save_checkpoint(work.checkpoint, recipe, branch, work.measurements, lease)
        store.artifacts.remove_note(note)
