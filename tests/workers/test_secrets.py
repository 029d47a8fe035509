"""A password in the database's URL is in nothing that a run shows or leaves behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import MetaData, create_engine, select
from tiny_study import toml_settings

from sweetspot.cli import main
from sweetspot.store.url import database_url, full

SECRET = "hunter2+secret"


@pytest.fixture
def url(postgresql: str) -> str:
    """With a password, which this server does not ask for."""
    parts = conninfo_to_dict(postgresql)
    return f"postgresql://{parts['user']}:{SECRET}@/{parts['dbname']}?host={parts['host']}"


def titles() -> list[str]:
    """The command lines of all processes."""
    found = []
    for process in psutil.process_iter():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.ci
def test_a_password_is_in_no_title_log_row_file_or_message(url: str, tmp_path: Path) -> None:
    environment = os.environ | {"SWEETSPOT_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    arguments = [
        *("optimize", "--dataset", "digits", "--device", "cpu", "--workers", "1", "--storage", url),
        *("--log-file", str(tmp_path / "log"), "--artifacts", str(tmp_path / "artifacts")),
        *toml_settings(search__trials=1, confirm__seeds=2, student__epochs=1),
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "sweetspot", *arguments], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    # At first the shell's own argument list is there, until the program has started again without the address.
    while running.poll() is None and not psutil.Process(running.pid).children():
        time.sleep(0.1)
    shown = titles()
    assert running.stdout is not None
    said = running.stdout.read()
    assert running.wait(60) == 0, said
    assert "Verdict" in said
    assert any(" optimize --dataset digits" in title for title in shown)
    assert any(" worker --name digits" in title for title in shown)
    assert not any(SECRET in title for title in shown)

    engine = create_engine(full(database_url(url)))
    tables = MetaData()
    tables.reflect(engine)
    assert len(tables.tables) > 15
    with engine.connect() as connection:
        rows = [str(tuple(row)) for table in tables.sorted_tables for row in connection.execute(select(table))]
    engine.dispose()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(rows) > 30
    assert len(files) > 3
    assert not any(SECRET in text for text in (said, *rows))
    assert not any(SECRET.encode() in content for content in files)


@pytest.mark.parametrize(
    "command", [["status"], ["init"], ["worker", "--device", "cpu"], ["workers", "drain", "--all"]]
)
def test_nor_in_the_error_of_a_server_that_is_not_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "url"
    file.write_text(f"postgresql://ann:{SECRET}@127.0.0.1:1/studies")
    assert main([*command, "--storage-file", str(file)]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert said.err.startswith("error: cannot open the database postgresql+psycopg://ann:***@127.0.0.1:1/studies")
