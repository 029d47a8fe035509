"""``--storage-file``: a database URL that is in no argument list, for every command that takes ``--storage``."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sweetspot.cli.commands import app

Command = Callable[..., Any]

URL = "sqlite:///{}/elsewhere.db"


@pytest.fixture
def url_file(tmp_path: Path) -> Path:
    file = tmp_path / "url"
    file.write_text(f"  {URL.format(tmp_path)}\n")
    return file


def test_the_url_comes_from_a_file(command: Command, url_file: Path, tmp_path: Path) -> None:
    said = command("init", "--storage-file", str(url_file))
    assert (said.status, said.err) == (0, "")
    assert said.out == f"ready: {URL.format(tmp_path)}, artifacts in {tmp_path}/artifacts\n"
    with sqlite3.connect(tmp_path / "elsewhere.db") as connection:
        assert connection.execute("SELECT version FROM sweetspot_schema").fetchall()


def test_so_does_the_variable_and_the_file_counts_more_than_the_urls_own(
    command: Command, url_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEETSPOT_STORAGE_FILE", str(url_file))
    monkeypatch.setenv("SWEETSPOT_STORAGE", f"sqlite:///{tmp_path}/not-this.db")
    assert command("status").out.startswith("no study yet")
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "not-this.db").exists()


def test_the_option_counts_more_than_either_variable(
    command: Command, url_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEETSPOT_STORAGE_FILE", str(url_file))
    command("init", "--storage", f"{tmp_path}/given.db")
    assert [path.name for path in tmp_path.glob("*.db")] == ["given.db"]


def test_two_databases_are_refused(command: Command, url_file: Path, tmp_path: Path) -> None:
    said = command("status", "--storage-file", str(url_file), "--storage", f"{tmp_path}/other.db")
    assert said.status == 2
    assert said.err == "error: --storage and --storage-file both name a database: give one of them\n"
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.parametrize(("content", "why"), [("", "has 0 words"), ("a b", "has 2 words"), (None, "No such file")])
def test_a_file_without_a_url_is_refused_and_not_shown(
    command: Command, tmp_path: Path, content: str | None, why: str
) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_text(content)
    said = command("status", "--storage-file", str(file))
    assert said.status == 2
    assert said.err.startswith(f"error: --storage-file {file}")
    assert why in said.err


def test_every_command_that_takes_the_one_takes_the_other(command: Command) -> None:
    commands = dict(get_command(app).commands)  # type: ignore[attr-defined]
    for name in ("snapshots", "workers"):
        commands |= {f"{name} {part}": c for part, c in commands[name].commands.items()}
    options = {name: {p.name for p in c.params} for name, c in commands.items()}
    takers = {name for name, given in options.items() if "storage" in given}
    assert {"optimize", "worker", "workers", "workers drain", "init", "dashboard", "snapshots gc"} <= takers
    assert takers == {name for name, given in options.items() if "storage_file" in given}
