"""The rows of trajectories: recipes, snapshots, and what was measured at their epochs."""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sweetspot.store.artifacts import Artifacts
from sweetspot.store.checkpoints import (
    Checkpoint,
    checkpoint_of,
    discard_unused,
    drop_checkpoints,
    save_checkpoint,
)
from sweetspot.store.database import Database
from sweetspot.store.lease import Lease
from sweetspot.store.outage import outlasting_methods
from sweetspot.store.schema import (
    CheckpointRow,
    ClassSimilarityRow,
    EpochRow,
    RecipeRow,
    RequestRow,
    SnapshotRow,
    now,
)

Probe = Literal["train", "validation"]
TRUNK = 0
"""The branch that longer runs share; a decay branch is named by the epoch at which it ends."""

RUNS = "trajectory/"
"""What the names of leases and checkpoints of trajectories begin with."""

_COLUMNS = tuple(c.name for c in EpochRow.__table__.columns)
MEASURES = _COLUMNS[_COLUMNS.index("response_entropy") :]
"""The columns of :class:`EpochRow` that :meth:`ResponseMeasures.scalars` fills."""


def run_of(recipe: str, branch: int) -> str:
    """The name of a branch's run: of the lease under which it is extended, and of its checkpoint."""
    return f"{RUNS}{recipe}/{branch}"


@dataclass(frozen=True)
class Snapshot:
    """A teacher at one epoch of a branch: the blobs of its weights and, where it may be continued, its optimiser.

    Attributes:
        is_branch_point: whether other runs may go on from here, so that the optimiser stays when the trunk grows on.
        build: the torch build and instruction set that trained it.
    """

    recipe: str
    branch: int
    epoch: int
    weights: str
    optimizer: str | None = None
    is_branch_point: bool = False
    build: str = ""


@dataclass(frozen=True, eq=False)
class ClassSimilarity:
    """What a teacher's response says of each class, on average.

    Attributes:
        matrix: float32 (K, K): row k is the mean response, as probabilities, to images of class k; NaN where there are
            none.
        images: int64 (K,): the images of each class.
    """

    matrix: NDArray[np.float32]
    images: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        return zlib.compress(self.matrix.astype("<f4").tobytes() + self.images.astype("<i8").tobytes())

    @classmethod
    def from_bytes(cls, content: bytes, classes: int) -> "ClassSimilarity":
        plain = zlib.decompress(content)
        matrix = np.frombuffer(plain, "<f4", classes * classes).reshape(classes, classes)
        return cls(matrix, np.frombuffer(plain, "<i8", classes, offset=matrix.nbytes))


@dataclass(frozen=True)
class Measurement:
    """One row of measurements; ``values`` has the columns :data:`MEASURES` (nats, fractions).

    Attributes:
        class_similarity: of a snapshot that may teach, on training views, when it was just measured; what is read from
            the store leaves it out (:meth:`TrajectoryStore.class_similarity`).
    """

    epoch: int
    temperature: float
    probe: Probe
    recomputed: bool
    values: Mapping[str, float]
    train_loss: float | None = None
    seconds: float | None = None
    class_similarity: ClassSimilarity | None = field(default=None, compare=False, repr=False)


@outlasting_methods
class TrajectoryStore:
    """The truth about what has been trained. A row is written after the blobs it names."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self.outages = database.outages
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

    def recipes(self) -> dict[str, str]:
        """The JSON of every recipe by its hash, by creation."""
        with self._session() as session:
            rows = session.execute(select(RecipeRow.hash, RecipeRow.json).order_by(RecipeRow.created, RecipeRow.hash))
            return {row.hash: row.json for row in rows}

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def snapshots(self, recipe: str, branch: int) -> list[Snapshot]:
        """The snapshots of a branch by rising epoch."""
        with self._session() as session:
            rows = session.scalars(
                select(SnapshotRow)
                .where(SnapshotRow.recipe == recipe, SnapshotRow.branch == branch)
                .order_by(SnapshotRow.epoch)
            )
            return [_snapshot(row) for row in rows]

    def snapshot(self, recipe: str, branch: int, epoch: int) -> Snapshot | None:
        with self._session() as session:
            row = session.get(SnapshotRow, (recipe, branch, epoch))
            return None if row is None else _snapshot(row)

    def of_recipe(self, recipe: str) -> list[Snapshot]:
        """The snapshots of all branches of a recipe."""
        with self._session() as session:
            rows = session.scalars(select(SnapshotRow).where(SnapshotRow.recipe == recipe))
            return [_snapshot(row) for row in rows]

    def least_recently_used(self) -> list[Snapshot]:
        """All snapshots, the one that was used longest ago first."""
        with self._session() as session:
            rows = list(session.scalars(select(SnapshotRow)))
            rows.sort(key=lambda row: (row.used or row.created, row.recipe, row.branch, row.epoch))
            return [_snapshot(row) for row in rows]

    def last_used(self) -> dict[tuple[str, int], datetime]:
        """When each branch, as (recipe's hash, branch), last taught or was trained on from, or else was made (UTC)."""
        with self._session() as session:
            found: dict[tuple[str, int], datetime] = {}
            for row in session.scalars(select(SnapshotRow)):
                key = row.recipe, row.branch
                found[key] = max(found.get(key, row.created), row.used or row.created)
            return found

    def add(self, snapshot: Snapshot, measurements: Sequence[Measurement], lease: Lease) -> None:
        """Record a snapshot with the measurements made since the last one.

        From then on it is the one to train on from: earlier optimiser states go, except those at branch points, and so
        does the checkpoint that led here.

        Raises:
            LostLeaseError: if ``lease`` was taken over; nothing is written then.
        """
        with self._session.begin() as session:
            lease.check(session)
            old = session.get(SnapshotRow, (snapshot.recipe, snapshot.branch, snapshot.epoch))
            unused = set()
            if old is not None:
                unused |= {old.weights, old.optimizer}
                session.delete(old)
                session.flush()
            session.add(SnapshotRow(**vars(snapshot)))
            earlier = session.scalars(
                select(SnapshotRow).where(
                    SnapshotRow.recipe == snapshot.recipe,
                    SnapshotRow.branch == snapshot.branch,
                    SnapshotRow.epoch < snapshot.epoch,
                    SnapshotRow.is_branch_point.is_(False),
                    SnapshotRow.optimizer.is_not(None),
                )
            )
            for row in earlier:
                unused.add(row.optimizer)
                row.optimizer = None
            if snapshot.optimizer is not None or snapshot.epoch == snapshot.branch:
                unused |= set(drop_checkpoints(session, [lease.name], before=snapshot.epoch))
            _upsert(session, snapshot.recipe, snapshot.branch, measurements)
        self._discard_unused(unused)

    def add_external(self, snapshot: Snapshot) -> None:
        """Record a snapshot that was not trained here, and that nobody trains on; harmless when it is there."""
        there = self.snapshot(snapshot.recipe, snapshot.branch, snapshot.epoch)
        if there is None:
            with suppress(IntegrityError), self._session.begin() as session:
                session.add(SnapshotRow(**vars(snapshot)))

    def use(self, snapshot: Snapshot) -> None:
        """Note that a snapshot teaches, or is trained on from, now."""
        with self._session.begin() as session:
            session.execute(update(SnapshotRow).where(*_is(snapshot)).values(used=now()))

    def make_branch_point(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot's optimiser state for the branch that will hang from it; False if it is gone already."""
        with self._session.begin() as session:
            kept = session.execute(
                update(SnapshotRow)
                .where(*_is(snapshot), SnapshotRow.optimizer == snapshot.optimizer)
                .values(is_branch_point=True)
            )
            return bool(kept.rowcount == 1)  # type: ignore[attr-defined]

    def drop(self, snapshot: Snapshot) -> None:
        """Forget a snapshot, unless it is another one by now; what it held that nothing else refers to is removed.

        Its measurements stay: they remain true.
        """
        with self._session.begin() as session:
            session.execute(delete(SnapshotRow).where(*_is(snapshot), SnapshotRow.weights == snapshot.weights))
        self._discard_unused({snapshot.weights, snapshot.optimizer})

    def drop_optimizer(self, snapshot: Snapshot) -> None:
        """Forget the optimiser's state of a snapshot; its weights stay, as a teacher."""
        with self._session.begin() as session:
            session.execute(
                update(SnapshotRow)
                .where(*_is(snapshot), SnapshotRow.optimizer == snapshot.optimizer)
                .values(optimizer=None)
            )
        self._discard_unused({snapshot.optimizer})

    # -- what is asked for --------------------------------------------------------------------------------------------

    def ask_for(self, recipe: str, branch: int, epoch: int, *, is_branch_point: bool) -> None:
        """Have whoever trains past an epoch keep a snapshot of it."""
        with self._session() as session:
            there = session.get(RequestRow, (recipe, branch, epoch))
        if there is not None and there.is_branch_point >= is_branch_point:
            return
        with suppress(IntegrityError), self._session.begin() as session:  # another worker asks for it at this moment
            session.merge(RequestRow(recipe=recipe, branch=branch, epoch=epoch, is_branch_point=is_branch_point))

    def asked_for(self, recipe: str, branch: int) -> dict[int, bool]:
        """The epochs of a branch that were asked for, with whether a branch will hang from them."""
        with self._session() as session:
            rows = session.scalars(select(RequestRow).where(RequestRow.recipe == recipe, RequestRow.branch == branch))
            return {row.epoch: row.is_branch_point for row in rows}

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint(self, run: str) -> Checkpoint | None:
        """Where the branch of this lease's name goes on after a crash."""
        with self._session() as session:
            return checkpoint_of(session, run)

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, of teachers and of students."""
        with self._session() as session:
            return [
                Checkpoint(row.run, row.epoch, row.step, row.state, row.detail)
                for row in session.scalars(select(CheckpointRow).order_by(CheckpointRow.run))
            ]

    def save_checkpoint(
        self, checkpoint: Checkpoint, recipe: str, branch: int, measurements: Sequence[Measurement], lease: Lease
    ) -> None:
        """Replace the checkpoint of a branch, and record the measurements made since the last one.

        Raises:
            LostLeaseError: if ``lease`` was taken over; nothing is written then.
        """
        with self._session.begin() as session:
            lease.check(session)
            old = save_checkpoint(session, checkpoint)
            _upsert(session, recipe, branch, measurements)
        self._discard_unused({old})

    def drop_checkpoint(self, run: str) -> None:
        """Forget a checkpoint."""
        with self._session.begin() as session:
            states = drop_checkpoints(session, [run])
        self._discard_unused(set(states))

    # -- measurements -------------------------------------------------------------------------------------------------

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

    def class_similarity(self, recipe: str, branch: int, epoch: int, temperature: float) -> ClassSimilarity | None:
        """What a snapshot's response says of each class, on training views; None where that was not measured."""
        with self._session() as session:
            row = session.get(ClassSimilarityRow, (recipe, branch, epoch, temperature))
            return None if row is None else ClassSimilarity.from_bytes(row.content, row.classes)

    def delete_recipe(self, recipe: str) -> None:
        """Remove a recipe with all that hangs on it."""
        with self._session.begin() as session:
            rows = list(session.scalars(select(SnapshotRow).where(SnapshotRow.recipe == recipe)))
            names = {name for row in rows for name in (row.weights, row.optimizer)}
            runs = session.scalars(select(CheckpointRow.run).where(CheckpointRow.run.startswith(f"{RUNS}{recipe}/")))
            names |= set(drop_checkpoints(session, list(runs)))
            for table in (EpochRow, ClassSimilarityRow, RequestRow, SnapshotRow):
                session.execute(delete(table).where(table.recipe == recipe))
            session.execute(delete(RecipeRow).where(RecipeRow.hash == recipe))
        self._discard_unused(names)
        for note in self.artifacts.notes(f"{RUNS}{recipe}/".replace("/", "-")):
            self.artifacts.remove_note(note)

    def _discard_unused(self, names: set[str | None]) -> None:
        given = {name for name in names if name is not None}
        if given:
            with self._session() as session:
                discard_unused(session, self.artifacts, given)


def _is(snapshot: Snapshot) -> tuple[ColumnElement[bool], ...]:
    return (
        SnapshotRow.recipe == snapshot.recipe,
        SnapshotRow.branch == snapshot.branch,
        SnapshotRow.epoch == snapshot.epoch,
    )


def _snapshot(row: SnapshotRow) -> Snapshot:
    return Snapshot(row.recipe, row.branch, row.epoch, row.weights, row.optimizer, row.is_branch_point, row.build)


def _upsert(session: Session, recipe: str, branch: int, measurements: Sequence[Measurement]) -> None:
    """Record measurements; one made as the teacher teaches is not replaced by one that was not."""
    if not measurements:
        return
    # All at once: row by row, each would take three trips to the database.
    epochs = [m.epoch for m in measurements]
    known = session.execute(
        select(EpochRow.epoch, EpochRow.temperature, EpochRow.probe, EpochRow.recomputed).where(
            EpochRow.recipe == recipe, EpochRow.branch == branch, EpochRow.epoch.between(min(epochs), max(epochs))
        )
    )
    there: dict[tuple[int, float, str], bool] = {
        (row.epoch, row.temperature, row.probe): row.recomputed for row in known
    }
    wanted: dict[tuple[int, float, str], Measurement] = {}
    for m in measurements:
        key = m.epoch, m.temperature, m.probe
        is_recomputed = wanted[key].recomputed if key in wanted else there.get(key, False)
        if m.recomputed or not is_recomputed:
            wanted[key] = m
    for m in wanted.values():
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
        if (m.epoch, m.temperature, m.probe) in there:
            session.merge(row)
        else:
            session.add(row)
    for m in wanted.values():
        if m.recomputed and m.class_similarity is not None:
            similarity = ClassSimilarityRow(
                recipe=recipe,
                branch=branch,
                epoch=m.epoch,
                temperature=m.temperature,
                classes=len(m.class_similarity.images),
                content=m.class_similarity.to_bytes(),
            )
            session.merge(similarity)


def _measurement(row: EpochRow) -> Measurement:
    values = {name: getattr(row, name) for name in MEASURES}
    return Measurement(
        row.epoch, row.temperature, _probe(row.probe), row.recomputed, values, row.train_loss, row.seconds
    )


def _probe(name: str) -> Probe:
    return "train" if name == "train" else "validation"
