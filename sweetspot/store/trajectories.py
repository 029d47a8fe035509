"""The rows of trajectories: recipes, snapshots, and what was measured at their epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sweetspot.store.artifacts import Artifacts
from sweetspot.store.database import Database
from sweetspot.store.lease import Lease
from sweetspot.store.schema import EpochRow, RecipeRow, SnapshotRow

Probe = Literal["train", "validation"]
TRUNK = 0
"""The branch that longer runs share; a decay branch is named by the epoch at which it ends."""

_COLUMNS = tuple(c.name for c in EpochRow.__table__.columns)
MEASURES = _COLUMNS[_COLUMNS.index("response_entropy") :]
"""The columns of :class:`EpochRow` that :meth:`ResponseMeasures.scalars` fills."""


@dataclass(frozen=True)
class Snapshot:
    """A teacher at one epoch of a branch: the blobs of its weights and, where it continues, its optimiser."""

    recipe: str
    branch: int
    epoch: int
    weights: str
    optimizer: str | None
    resume_only: bool = False


@dataclass(frozen=True)
class Measurement:
    """One row of measurements; ``values`` has the columns :data:`MEASURES` (nats, fractions)."""

    epoch: int
    temperature: float
    probe: Probe
    recomputed: bool
    values: Mapping[str, float]
    train_loss: float | None = None
    seconds: float | None = None


class TrajectoryStore:
    """The truth about what has been trained. A row is written after the blobs it names."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._session = database.session
        self.artifacts = artifacts

    def add_recipe(self, recipe_hash: str, recipe_json: str) -> None:
        """Make the recipe known; harmless when it is."""
        with self._session() as session:
            if session.get(RecipeRow, recipe_hash) is not None:
                return
        try:
            with self._session.begin() as session:
                session.add(RecipeRow(hash=recipe_hash, json=recipe_json))
        except IntegrityError:
            pass

    def snapshots(self, recipe: str, branch: int) -> list[Snapshot]:
        """The snapshots of a branch by rising epoch."""
        with self._session() as session:
            rows = session.scalars(
                select(SnapshotRow)
                .where(SnapshotRow.recipe == recipe, SnapshotRow.branch == branch)
                .order_by(SnapshotRow.epoch)
            )
            return [Snapshot(r.recipe, r.branch, r.epoch, r.weights, r.optimizer, r.resume_only) for r in rows]

    def snapshot(self, recipe: str, branch: int, epoch: int) -> Snapshot | None:
        return next((s for s in self.snapshots(recipe, branch) if s.epoch == epoch), None)

    def add(self, snapshot: Snapshot, measurements: Sequence[Measurement], lease: Lease) -> None:
        """Record a snapshot with the measurements made since the last one; older points to resume from go.

        Raises:
            LostLeaseError: if ``lease`` was taken over; nothing is written then.
        """
        with self._session.begin() as session:
            lease.check(session)
            older = list(
                session.scalars(
                    select(SnapshotRow).where(
                        SnapshotRow.recipe == snapshot.recipe,
                        SnapshotRow.branch == snapshot.branch,
                        SnapshotRow.epoch <= snapshot.epoch,
                        or_(SnapshotRow.resume_only, SnapshotRow.epoch == snapshot.epoch),
                    )
                )
            )
            for row in older:
                session.delete(row)
            session.flush()
            session.add(
                SnapshotRow(
                    recipe=snapshot.recipe,
                    branch=snapshot.branch,
                    epoch=snapshot.epoch,
                    weights=snapshot.weights,
                    optimizer=snapshot.optimizer,
                    resume_only=snapshot.resume_only,
                )
            )
            _upsert(session, snapshot.recipe, snapshot.branch, measurements)
        self._discard_unused([name for row in older for name in (row.weights, row.optimizer) if name])

    def add_measurements(self, recipe: str, branch: int, measurements: Sequence[Measurement]) -> None:
        """Record measurements of a snapshot that was there already (at another temperature, say)."""
        try:
            with self._session.begin() as session:
                _upsert(session, recipe, branch, measurements)
        except IntegrityError:  # another worker has measured it at the same moment: its rows are there now
            with self._session.begin() as session:
                _upsert(session, recipe, branch, measurements)

    def measurements(self, recipe: str, branch: int, temperature: float) -> dict[tuple[int, Probe], Measurement]:
        """What is known of a branch at a temperature, by (epoch, probe)."""
        with self._session() as session:
            rows = session.scalars(
                select(EpochRow).where(
                    EpochRow.recipe == recipe, EpochRow.branch == branch, EpochRow.temperature == temperature
                )
            )
            return {(r.epoch, _probe(r.probe)): _measurement(r) for r in rows}

    def drop(self, snapshot: Snapshot) -> None:
        """Forget a snapshot whose blob is damaged, so that its stretch is trained again."""
        with self._session.begin() as session:
            session.execute(
                delete(SnapshotRow).where(
                    SnapshotRow.recipe == snapshot.recipe,
                    SnapshotRow.branch == snapshot.branch,
                    SnapshotRow.epoch == snapshot.epoch,
                    SnapshotRow.weights == snapshot.weights,
                )
            )

    def delete_recipe(self, recipe: str) -> None:
        """Remove a recipe with all that hangs on it."""
        with self._session.begin() as session:
            rows = list(session.scalars(select(SnapshotRow).where(SnapshotRow.recipe == recipe)))
            names = [name for row in rows for name in (row.weights, row.optimizer) if name]
            session.execute(delete(EpochRow).where(EpochRow.recipe == recipe))
            session.execute(delete(SnapshotRow).where(SnapshotRow.recipe == recipe))
            session.execute(delete(RecipeRow).where(RecipeRow.hash == recipe))
        self._discard_unused(names)

    def _discard_unused(self, names: Sequence[str]) -> None:
        with self._session() as session:
            used = {
                name
                for row in session.execute(
                    select(SnapshotRow.weights, SnapshotRow.optimizer).where(
                        or_(SnapshotRow.weights.in_(names), SnapshotRow.optimizer.in_(names))
                    )
                )
                for name in row
            }
        for name in set(names) - used:
            self.artifacts.discard(name)


def _upsert(session: Session, recipe: str, branch: int, measurements: Sequence[Measurement]) -> None:
    for m in measurements:
        row = EpochRow(
            recipe=recipe,
            branch=branch,
            epoch=m.epoch,
            temperature=m.temperature,
            probe=m.probe,
            recomputed=m.recomputed,
            train_loss=m.train_loss,
            seconds=m.seconds,
            **{name: m.values[name] for name in MEASURES},
        )
        session.merge(row)


def _measurement(row: EpochRow) -> Measurement:
    values = {name: getattr(row, name) for name in MEASURES}
    return Measurement(
        row.epoch, row.temperature, _probe(row.probe), row.recomputed, values, row.train_loss, row.seconds
    )


def _probe(name: str) -> Probe:
    return "train" if name == "train" else "validation"
