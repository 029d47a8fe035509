"""What stands beside every result: the command that made it, the machine, the versions."""

import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil


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


def machine() -> dict[str, Any]:
    """The machine this process runs on: its processor, and how many cores of it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
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


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """None outside of a clone, or where there is no git."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
