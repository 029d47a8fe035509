"""What stands beside every result: the command that made it, the machine, the versions."""

import json
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweetspot.workers.machine import machine


def evidence(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The command line, the machine and the versions; nothing that names this one machine.

    Args:
        program: the module that ran, like "benchmarks.ordering".
        arguments: of the command line.
    """
    return {
        "command": shlex.join(["python", "-m", program, *arguments]),
        "machine": machine(),
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, of the packages that matter, and the commit of this clone ("-dirty" where files differ from it)."""
    packages = {
        name: version(name) for name in ("torch", "torchvision", "numpy", "pillow", "optuna", "sqlalchemy", "sweetspot")
    }
    return {"python": platform.python_version(), **packages, "commit": _commit()}


def write(path: Path, result: dict[str, Any]) -> None:
    """A result as JSON, its lists of numbers on one line each."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    text = re.sub(r"\[[^][{}\"]*\]", lambda match: " ".join(match[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def _commit() -> str | None:
    """None outside of a clone, or where there is no git."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
