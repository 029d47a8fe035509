"""Checkpoints: where a training run goes on after a crash, of teachers and of students."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, select
from sqlalchemy.orm import Session

from sweetspot.store.artifacts import Artifacts
from sweetspot.store.schema import CheckpointRow, ExternalTeacherRow, SnapshotRow, StudentRow, now


@dataclass(frozen=True)
class Checkpoint:
    """A run at some step of some epoch; the latest replaces those before it.

    Attributes:
        run: the name of the run.
        epoch: whole epochs that are done.
        step: steps of the next epoch that are done.
        state: the blob with network, optimiser, sum of the epoch's losses and random state.
        detail: further plain values of whoever trains.
    """

    run: str
    epoch: int
    step: int
    state: str
    detail: Mapping[str, Any]

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.step


def checkpoint_of(session: Session, run: str) -> Checkpoint | None:
    """Where a run goes on; None where it has not been saved."""
    row = session.get(CheckpointRow, run)
    return None if row is None else Checkpoint(row.run, row.epoch, row.step, row.state, row.detail)


def save_checkpoint(session: Session, checkpoint: Checkpoint) -> str | None:
    """Replace the checkpoint of a run; the blob of the old one."""
    old = session.get(CheckpointRow, checkpoint.run)
    state = old.state if old is not None else None
    session.merge(
        CheckpointRow(
            run=checkpoint.run,
            epoch=checkpoint.epoch,
            step=checkpoint.step,
            state=checkpoint.state,
            detail=dict(checkpoint.detail),
            created=now(),
        )
    )
    return state


def drop_checkpoints(session: Session, runs: list[str], before: int | None = None) -> list[str]:
    """Forget the checkpoints of these runs, or those of fewer epochs than ``before``; their blobs."""
    chosen = and_(CheckpointRow.run.in_(runs), CheckpointRow.epoch < (2**31 - 1 if before is None else before))
    states = list(session.scalars(select(CheckpointRow.state).where(chosen)))
    session.execute(delete(CheckpointRow).where(chosen))
    return states


def discard_unused(session: Session, artifacts: Artifacts, names: set[str]) -> None:
    """Remove those of these blobs that no row refers to."""
    for name in names - used_blobs(session, names):
        artifacts.discard(name)


def used_blobs(session: Session, names: set[str] | None = None) -> set[str]:
    """The blobs that rows refer to; of ``names``, or all."""
    used: set[str] = set()
    given = ExternalTeacherRow.weights
    for column in (SnapshotRow.weights, SnapshotRow.optimizer, CheckpointRow.state, StudentRow.weights, given):
        query = select(column)
        if names is not None:
            query = query.where(column.in_(names))
        used |= {name for name in session.scalars(query) if name}
    return used
