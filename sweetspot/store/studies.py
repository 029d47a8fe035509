"""The rows of studies: name, configuration, data, and why a search ended."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sweetspot.config import StudyConfig
from sweetspot.store.database import Database
from sweetspot.store.outage import outlasting_methods
from sweetspot.store.schema import DeletedLooksRow, StudyRow


@dataclass(frozen=True)
class StudyRecord:
    name: str
    config: StudyConfig
    data_hash: str
    ended: str | None
    """Why the search asks for no further trial although its total is not reached."""
    test_looks: int


@outlasting_methods
class StudyStore:
    """The studies of a database."""

    def __init__(self, database: Database) -> None:
        self.outages = database.outages
        self._session = database.session

    def add(self, name: str, config: StudyConfig, data_hash: str) -> bool:
        """Record a new study; False if one of that name is there."""
        try:
            with self._session.begin() as session:
                session.add(StudyRow(name=name, config=config.to_json(), data_hash=data_hash))
        except IntegrityError:
            return False
        return True

    def get(self, name: str) -> StudyRecord | None:
        with self._session() as session:
            row = session.get(StudyRow, name)
            return None if row is None else _record(row)

    def all(self) -> list[StudyRecord]:
        """By creation."""
        with self._session() as session:
            return [_record(row) for row in session.scalars(select(StudyRow).order_by(StudyRow.created, StudyRow.name))]

    def set_config(self, name: str, config: StudyConfig) -> None:
        with self._session.begin() as session:
            session.execute(update(StudyRow).where(StudyRow.name == name).values(config=config.to_json()))

    def set_ended(self, name: str, reason: str | None) -> None:
        with self._session.begin() as session:
            session.execute(update(StudyRow).where(StudyRow.name == name).values(ended=reason))

    def count_test_look(self, name: str) -> int:
        """Note one more look at the test split; how many its data has had (:meth:`test_looks`)."""
        with self._session.begin() as session:
            session.execute(update(StudyRow).where(StudyRow.name == name).values(test_looks=StudyRow.test_looks + 1))
            data_hash = session.scalar(select(StudyRow.data_hash).where(StudyRow.name == name))
            return _looks(session, data_hash or "")

    def test_looks(self, data_hash: str) -> int:
        """How many looks the test split of these data has had, by all studies that this database has or had."""
        with self._session() as session:
            return _looks(session, data_hash)

    def has_exported(self, data_hash: str) -> bool:
        """Whether a study of these data that was deleted had its test accuracies written to a table."""
        exported = select(DeletedLooksRow.id).where(
            DeletedLooksRow.data_hash == data_hash, DeletedLooksRow.was_exported.is_(True)
        )
        with self._session() as session:
            return session.scalar(exported.limit(1)) is not None

    def delete(self, name: str, *, was_exported: bool = False) -> None:
        """Forget a study, but not how often it has looked at a test split, nor that it told what it saw there."""
        with self._session.begin() as session:
            row = session.get(StudyRow, name)
            if row is not None and row.test_looks:
                looks = DeletedLooksRow(data_hash=row.data_hash, test_looks=row.test_looks, was_exported=was_exported)
                session.add(looks)
            session.execute(delete(StudyRow).where(StudyRow.name == name))


def _looks(session: Session, data_hash: str) -> int:
    by_table = (
        session.scalar(select(func.sum(table.test_looks)).where(table.data_hash == data_hash))
        for table in (StudyRow, DeletedLooksRow)
    )
    return sum(int(looks or 0) for looks in by_table)


def _record(row: StudyRow) -> StudyRecord:
    return StudyRecord(row.name, StudyConfig.from_json(row.config), row.data_hash, row.ended, row.test_looks)
