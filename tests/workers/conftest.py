"""Real workers, and a store in each database whose artifacts are in the test's folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from one_trajectory import (
    LADDER,
    Undisturbed,
    assert_goes_on,
    assert_nothing_is_left_over,
    assert_saves_when_it_is_due,
    complete,
    create,
    numbers,
    study,
)

from benchmarks.watched_worker import Workers
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


@pytest.fixture(params=["postgresql", pytest.param("sqlite", marks=pytest.mark.ci)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As everywhere; where whole processes are killed and drained, SQLite is for continuous integration alone."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture
def store(storage: str, tmp_path: Path) -> Iterator[Store]:
    with Store(storage, str(tmp_path / "artifacts")) as opened:
        yield opened


@pytest.fixture(scope="session")
def undisturbed(_forks: Workers, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    storage = f"sqlite:///{folder}/study.db"
    with Store(storage, str(folder / "artifacts")) as store:
        create(store, study())
        worker = _forks.start("tiny", storage, folder)
        worker.ends_well()
        assert worker.said == ""
        assert_goes_on({}, worker.steps)
        assert_saves_when_it_is_due(worker.events)
        assert sum(event.what == "saved" for event in worker.events) > 2 * len(LADDER)
        assert_nothing_is_left_over(store)
        assert sum(trial.user_attrs["epochs_trained"] for trial in complete(store)) == max(LADDER)
        points = [trial.params for trial in complete(store)]
        return Undisturbed(numbers(store), points, [(step.run, step.place) for step in worker.steps])
