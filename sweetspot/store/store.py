"""Store: everything that outlives a process, opened by two addresses."""

import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType

from sqlalchemy.exc import IntegrityError

from sweetspot.config import RunConfig
from sweetspot.errors import RunError, UserError
from sweetspot.store.artifacts import Artifacts
from sweetspot.store.checkpoints import used_blobs
from sweetspot.store.database import Database, open_database
from sweetspot.store.external import ExternalTeacherStore
from sweetspot.store.lease import free_leases
from sweetspot.store.schema import ArtifactsRow
from sweetspot.store.students import StudentStore
from sweetspot.store.studies import StudyStore
from sweetspot.store.trajectories import TrajectoryStore
from sweetspot.store.url import artifacts_url, database_url, shown
from sweetspot.store.workers import WorkerStore

_MARK_SECONDS = 2.0


class Store:
    """The shared database and the artifacts. A context manager: closed on the way out.

    Args:
        storage: database URL; None: ``SWEETSPOT_STORAGE``, or the SQLite file in ``SWEETSPOT_HOME``.
        artifacts: folder or fsspec URL; None: ``SWEETSPOT_ARTIFACTS``, or beside the SQLite file.
        run: the heartbeat settings of the study whose trials are run with this store.

    Raises:
        UserError: if either cannot be opened.
    """

    def __init__(
        self,
        storage: str | None = None,
        artifacts: str | None = None,
        run: RunConfig | None = None,
    ) -> None:
        self.url = database_url(storage)
        self.artifacts_url = artifacts_url(artifacts, self.url)
        self.database = open_database(self.url, run)
        try:
            self.artifacts = Artifacts(self.artifacts_url)
            _check_they_belong_together(self.database, self.artifacts)
        except (UserError, RunError):
            self.database.close()
            raise
        self.studies = StudyStore(self.database)
        self.workers = WorkerStore(self.database)
        self.trajectories = TrajectoryStore(self.database, self.artifacts)
        self.students = StudentStore(self.database, self.artifacts)
        self.external_teachers = ExternalTeacherStore(self.database, self.artifacts)

    def hurry_when(self, is_ending: Callable[[], bool]) -> None:
        """Have no patience with outages any more as soon as ``is_ending()``."""
        self.database.outages.hurry = self.artifacts.outages.hurry = is_ending

    def free_leases(self, owners: Collection[str]) -> None:
        """Free whatever these workers hold: they are taken for dead."""

        def free() -> None:
            with self.database.session.begin() as session:
                free_leases(session, owners)

        if owners:
            self.database.outages.outlast(free)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_they_belong_together(database: Database, artifacts: Artifacts) -> None:
    """Refuse artifacts that are not this database's: every blob would be missing, or be taken for nobody's.

    Raises:
        UserError: if they are another database's, or empty although this one has had others.
    """
    deadline = time.monotonic() + _MARK_SECONDS
    while True:
        with database.session() as session:
            row = session.get(ArtifactsRow, 1)
        found = artifacts.owner()
        if row is None and found is None:
            with suppress(IntegrityError), database.session.begin() as session:  # another process does the same
                session.add(ArtifactsRow(id=1, database=uuid.uuid4().hex))
            with database.session() as session:
                row = session.get(ArtifactsRow, 1)
            assert row is not None
            artifacts.set_owner(row.database)
            return
        if row is None or (found is not None and found != row.database):
            raise UserError(
                f"the artifacts in {shown(artifacts.url)} belong to another database: "
                "give --artifacts a place of their own"
            )
        if found is not None:
            return
        with database.session() as session:
            has_blobs = bool(used_blobs(session))
        if not has_blobs:  # a process died before it could mark them
            artifacts.set_owner(row.database)
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"the artifacts in {shown(artifacts.url)} are not those of {shown(database.url)}: give the right "
                f"--artifacts, or mount their disk (lost for good? put a file sweetspot-store with the line "
                f"{row.database} there, and what is missing is trained again)"
            )
        time.sleep(0.1)  # another process may be about to mark them
