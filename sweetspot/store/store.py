"""Store: everything that outlives a process, opened by two addresses."""

from types import TracebackType

from sweetspot.config import RunConfig
from sweetspot.errors import UserError
from sweetspot.store.artifacts import Artifacts
from sweetspot.store.database import open_database
from sweetspot.store.students import StudentStore
from sweetspot.store.studies import StudyStore
from sweetspot.store.trajectories import TrajectoryStore
from sweetspot.store.url import artifacts_url, database_url
from sweetspot.store.workers import WorkerStore


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
        except UserError:
            self.database.close()
            raise
        self.studies = StudyStore(self.database)
        self.workers = WorkerStore(self.database)
        self.trajectories = TrajectoryStore(self.database, self.artifacts)
        self.students = StudentStore(self.database, self.artifacts)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
