"""``sweetspot dashboard``: what it refuses, what it prints, and how it begins and ends."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

Command = Callable[..., Any]
Refused = Callable[..., str]
PASSWORD = "correct horse battery"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """An auth file with the user ann."""
    file = tmp_path / "users"
    file.touch(0o600)
    file.write_text(f"ann:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    return file


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "65536"), "--port"),
        (("--port", "-1"), "--port"),
        (("--port", "http"), "--port"),
        (("--host", ""), "--host '': there is no such host"),
        (("--host", "no.such.host.invalid"), "there is no such host; give 127.0.0.1"),
        (("--host", "192.0.2.1", "--insecure"), "--host '192.0.2.1' is no address of this machine"),
        (("--host", "0.0.0.0"), "can be reached from other machines: give --auth-file FILE"),
        (("--host", "::"), "or --insecure to let everybody in"),
        (("--host", "0.0.0.0", "--read-only"), "can be reached from other machines"),
        (("--host", "0.0.0.0", "--allow-host", "a.example"), "can be reached from other machines"),
        (("--allow-host", "https://a.example"), "--allow-host 'https://a.example': give the name that people type"),
        (("--allow-host", "*"), "--allow-host '*': give the name"),
        (("--auth-file", "nowhere"), "cannot read nowhere (No such file or directory)"),
        (("--auth-file", "/"), "cannot read / (Is a directory)"),
        (("--auth-file", "x", "--insecure"), "--insecure and --auth-file are opposites"),
        (("--user", "ann"), "--user goes with --hash-password only"),
        (("--hash-password", "ann"), "a user is given as --user ann"),
        (("--hash-password", "--user", "a:b"), "--user 'a:b': a user's name"),
        (("nowhere",), "there is no study 'nowhere' in sqlite:"),
        (("--storage", "postgresql://ann:hunter2@127.0.0.1:1/x"), "cannot open the database"),
    ],
)
def test_a_mistake(refused: Refused, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
    line = refused("dashboard", *arguments)
    assert words in line
    assert "hunter2" not in line
    assert PASSWORD not in line


def test_a_plain_password_in_the_auth_file_is_refused_and_not_repeated(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:hunter2\n")
    line = refused("dashboard", "--host", "0.0.0.0", "--auth-file", str(tmp_path / "users"))
    assert "line 1 of" in line
    assert "hunter2" not in line


def test_a_port_in_use(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} is in use on 127.0.0.1: give another" in refused("dashboard", "--port", str(port))


# -- passwords --------------------------------------------------------------------------------------------------------


def test_a_password_is_hashed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", "/dev/null/x")  # needs none
    monkeypatch.setenv("LOGNAME", "bob")
    for arguments, user in ((("--user", "ann"), "ann"), ((), "bob")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\nnot this\n"))
        said = command("dashboard", "--hash-password", *arguments)
        assert (said.status, said.err) == (0, "")
        name, _, hashed = said.out.rstrip("\n").partition(":")
        assert name == user
        assert bcrypt.checkpw(PASSWORD.encode(), hashed.encode())


@pytest.mark.parametrize("typed", ["", "\n", "x" * 73])
def test_what_is_no_password(refused: Refused, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert refused("dashboard", "--hash-password", "--user", "ann").startswith("a password has 1 to 72 bytes")


def test_on_a_terminal_the_password_is_asked_for_twice(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [PASSWORD, PASSWORD, PASSWORD, "a typo"]
    monkeypatch.setattr("getpass.getpass", lambda prompt: typed.pop(0))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert command("dashboard", "--hash-password", "--user", "ann").out.startswith("ann:$2b$12$")
    said = command("dashboard", "--hash-password", "--user", "ann")
    assert (said.status, said.out, said.err) == (2, "", "error: the two passwords differ\n")


# -- serving ----------------------------------------------------------------------------------------------------------


class Dashboard:
    """A process that serves."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._stderr = folder / "stderr"
        folder.mkdir(exist_ok=True)
        with open(self._stderr, "w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweetspot", "dashboard", "--port", "0", *arguments],
                stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | {"SWEETSPOT_HOME": str(folder)},
            )  # fmt: skip

    def address(self) -> str:
        """The address that it prints once it can be asked."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("http://"), self.said()
        return line.split()[0]

    def said(self) -> str:
        return self._stderr.read_text()

    def __enter__(self) -> "Dashboard":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def status_of(address: str, password: str | None = None, method: str = "GET", host: str | None = None) -> int:
    request = urllib.request.Request(address, method=method)
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"ann:{password}".encode()).decode())
    if host is not None:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_dashboards_from_beginning_to_end(tmp_path: Path, users: Path) -> None:
    private = Dashboard(tmp_path / "private")
    guarded = Dashboard(
        tmp_path / "guarded", "--host", "0.0.0.0", "--auth-file", str(users), "--read-only", "--allow-host", "a.example"
    )
    with private, guarded:
        address = private.address()
        assert address.startswith("http://127.0.0.1:")
        assert status_of(address) == 200
        assert status_of(address, host="a.example") == 421

        address = f"http://127.0.0.1:{guarded.address().split(':')[2]}"
        assert status_of(address) == 401
        assert status_of(address, "wrong") == 401
        assert status_of(address, PASSWORD, host="a.example") == 200
        assert status_of(address, PASSWORD, host="evil.example") == 421
        assert status_of(address.replace("dashboard", "api/studies/1"), PASSWORD, "DELETE") == 403

        private.process.send_signal(signal.SIGINT)
        guarded.process.send_signal(signal.SIGTERM)
        assert private.process.wait(30) == 0
        assert guarded.process.wait(30) == 0
        assert private.said() == ""
        warning, wrong = guarded.said().splitlines()
        assert warning.startswith("warning: what it sends goes unencrypted")
        assert wrong == "wrong user or password from 127.0.0.1"
