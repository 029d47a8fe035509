"""The package as it is imported and started: what it offers, and what it does not load."""

import importlib.metadata
import subprocess
import sys

import pytest

import sweetspot
from sweetspot.cli import main

HEAVY = ("torch", "torchvision", "optuna", "sqlalchemy", "numpy", "sklearn", "matplotlib")


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def loaded_by(code: str) -> list[str]:
    """The heavy packages that a fresh process has loaded after ``code``."""
    done = python("-c", f"{code}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules], sep='\\n')")
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line in HEAVY]


@pytest.mark.parametrize(
    "code",
    [
        "import sweetspot",
        "import sweetspot; sweetspot.StudyConfig(), sweetspot.UserError, dir(sweetspot)",
        "from sweetspot.cli import main; main(['--help'])",
        "from sweetspot.cli import main; main(['optimize', '--help'])",
        "from sweetspot.cli import main; main(['studies'])",
        "from sweetspot.cli import main; main(['models'])",
        "from sweetspot.cli import main; main(['optimize'])",
        "from sweetspot.cli import main; main(['optimize', '--dataset', 'digits', '--set', 'student.epochs=x'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    assert loaded_by(code) == []


def test_python_dash_m_is_the_command_line() -> None:
    done = python("-m", "sweetspot", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: sweetspot ")


def test_python_dash_m_ends_with_the_status_of_the_command() -> None:
    done = python("-m", "sweetspot", "optimize")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: what is the data?")


def test_the_console_script_is_the_command_line() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="sweetspot")
    assert script.load() is main


@pytest.mark.parametrize("name", sweetspot.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(sweetspot, name).__doc__
    assert name in dir(sweetspot)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sweetspot' has no attribute 'optimise'"):
        sweetspot.optimise  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("sweetspot") == sweetspot.__version__
