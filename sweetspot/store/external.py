"""The rows of external teachers: networks that were trained elsewhere."""

from dataclasses import dataclass

from sqlalchemy import delete, select

from sweetspot.store.artifacts import Artifacts
from sweetspot.store.checkpoints import discard_unused
from sweetspot.store.database import Database
from sweetspot.store.outage import outlasting_methods
from sweetspot.store.schema import ExternalTeacherRow


@dataclass(frozen=True)
class ExternalTeacher:
    """A network that was trained elsewhere, to teach of some data.

    Attributes:
        weights: the blob of its weights.
        data_hash: of the training images.
        model: the name of its network.
        name: what people know it by.
        epochs: that it was trained, as far as its owner says.
    """

    weights: str
    data_hash: str
    model: str
    name: str
    epochs: int


@outlasting_methods
class ExternalTeacherStore:
    """The external teachers of a database. Their weights cannot be trained again: nothing frees them but removal."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self.outages = database.outages
        self._session = database.session
        self._artifacts = artifacts

    def add(self, teacher: ExternalTeacher) -> None:
        """Record a teacher whose weights are in the artifacts; one that is there gets this name and these epochs."""
        with self._session.begin() as session:
            session.merge(ExternalTeacherRow(**vars(teacher)))

    def all(self) -> list[ExternalTeacher]:
        """By the time they were added."""
        with self._session() as session:
            rows = session.scalars(
                select(ExternalTeacherRow).order_by(ExternalTeacherRow.added, ExternalTeacherRow.name)
            )
            return [ExternalTeacher(r.weights, r.data_hash, r.model, r.name, r.epochs) for r in rows]

    def of_data(self, data_hash: str) -> list[ExternalTeacher]:
        """Those for these training images, by the time they were added."""
        return [teacher for teacher in self.all() if teacher.data_hash == data_hash]

    def remove(self, teacher: ExternalTeacher) -> None:
        """Forget a teacher; its weights go unless something else refers to them."""
        with self._session.begin() as session:
            session.execute(
                delete(ExternalTeacherRow).where(
                    ExternalTeacherRow.weights == teacher.weights,
                    ExternalTeacherRow.data_hash == teacher.data_hash,
                    ExternalTeacherRow.model == teacher.model,
                )
            )
        with self._session() as session:
            discard_unused(session, self._artifacts, {teacher.weights})
