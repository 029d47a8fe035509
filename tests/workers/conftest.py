"""Real workers, and a store in each database whose artifacts are in the test's folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from watched_worker import Workers

from sweetspot.store import Store


@pytest.fixture(scope="session")
def _forks() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


@pytest.fixture
def workers(_forks: Workers) -> Iterator[Workers]:
    """Starts workers; those that a test leaves are killed."""
    yield _forks
    _forks.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture
def store(storage: str, tmp_path: Path) -> Iterator[Store]:
    with Store(storage, str(tmp_path / "artifacts")) as opened:
        yield opened
