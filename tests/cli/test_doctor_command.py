"""``sweetspot doctor``: what it prints, its exit status, and a torch or torchvision that cannot be imported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def home() -> list[Path]:
    return list(Path(os.environ["SWEETSPOT_HOME"]).rglob("*"))


def test_a_sound_installation_is_told_line_by_line(command: Command) -> None:
    said = command("doctor", "--device", "cpu", "--dataset", "digits")
    assert (said.status, said.err) == (0, "")
    *lines, _, end = said.out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "advice", "->"}
    assert end.strip() == "Nothing is wrong."
    assert home() == []


def test_for_programs_it_is_a_list(command: Command) -> None:
    said = command("doctor", "--device", "cpu", "--json")
    checks = json.loads(said.out)
    assert {tuple(check) for check in checks} == {("name", "state", "found", "advice")}
    assert all((check["advice"] is None) == (check["state"] == "ok") for check in checks)
    assert {"python", "sweetspot", "torch", "cpu", "precision", "threads", "database", "artifacts", "home", "data"} <= {
        check["name"] for check in checks
    }


def test_something_wrong_is_exit_status_1_with_everything_else_told(command: Command, tmp_path: Path) -> None:
    said = command("doctor", "--storage", "nonsense", "--device", "cuda:77", "--artifacts", "/dev/null/x", "--json")
    assert (said.status, said.err) == (1, "")
    wrong = [check["name"] for check in json.loads(said.out) if check["state"] == "wrong"]
    assert wrong == ["device", "database", "artifacts"]


# -- builds that do not fit together ----------------------------------------------------------------------------------

MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")'
NO_LIBRARY = 'raise OSError("libcudart.so.13: cannot open shared object file")'


def with_broken(package: str, code: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs ``sweetspot`` where a package does this when it is imported."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "sweetspot", *arguments],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "code", "advice"),
    [
        ("torchvision", MISMATCH, "install both from one index"),
        ("torch", NO_LIBRARY, "install both from one index"),
    ],
)
def test_a_package_that_cannot_be_imported_is_told_with_what_to_do(
    tmp_path: Path, package: str, code: str, advice: str
) -> None:
    done = with_broken(package, code, tmp_path, "doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks[package]["state"] == "wrong"
    assert code.split('"')[1] in checks[package]["found"]
    assert advice in checks[package]["advice"]
    assert checks["data"]["advice"] == f"see {package}"
    assert checks["database"]["state"] == checks["artifacts"]["state"] == "ok"


def test_other_commands_point_to_the_doctor_then(tmp_path: Path) -> None:
    done = with_broken("torch", NO_LIBRARY, tmp_path, "optimize", "--dataset", "digits")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: torch cannot be imported (libcudart.so.13: cannot open shared object file): sweetspot doctor says what "
        "is wrong, and what to do\n"
    )
    assert home() == []
