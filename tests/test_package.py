"""The package as it is imported and started: what it offers, and what it does not load."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_study import tiny_config

import sweetspot
from sweetspot.cli import main
from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.study.search import create_or_continue
from sweetspot.study.workplace import resolved

NEVER_AT_FIRST = (
    "torchvision",
    "timm",
    "sklearn",
    "scipy",
    "pandas",
    "plotly",
    "matplotlib",
    "optuna_dashboard",
    "rich",
)
HEAVY = ("torch", "optuna", "sqlalchemy", "alembic", "numpy", *NEVER_AT_FIRST)


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


# A worker that says what it has loaded when its first trial has all its parameters, and no more.
FIRST_TRIAL = """
import gc, os, sys
from importlib.machinery import PathFinder

class Objectives:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "sweetspot.study.objective":
            return None
        spec = PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.Objective.run = ended
        spec.loader.exec_module = exec_module
        return spec

def ended(objective, trial, suggested):
    print("claimed", sorted(trial.params), gc.isenabled(), gc.get_freeze_count() > 100_000)
    print(*sys.modules, sep="\\n")
    sys.stdout.flush()
    os._exit(0)

sys.meta_path.insert(0, Objectives)
from sweetspot.cli import main
main(["worker", "--name", "tiny", "--device", "cpu", *sys.argv[1:]])
"""


@pytest.mark.parametrize(("dataset", "allowed"), [("npz", set()), ("digits", {"sklearn", "scipy", "pandas", "rich"})])
def test_a_worker_takes_its_first_trial_with_no_more_than_it_needs(
    dataset: str, allowed: set[str], tmp_path: Path
) -> None:
    if dataset == "npz":
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (200, 8, 8), dtype=np.uint8)
        np.savez(
            tmp_path / "noise.npz",
            train_x=images,
            train_y=np.arange(200) % 10,
            test_x=images,
            test_y=np.arange(200) % 10,
        )
        dataset = f"npz:{tmp_path}/noise.npz"
    config = resolved(tiny_config(data__dataset=dataset, data__validation=0.2), "cpu")
    at = f"sqlite:///{tmp_path}/study.db", str(tmp_path / "artifacts")
    with Store(*at) as store:
        create_or_continue(store, "tiny", config, load_study_data(config, tmp_path, torch.device("cpu")))
    done = python("-c", FIRST_TRIAL, "--storage", at[0], "--artifacts", at[1])
    assert done.returncode == 0, done.stderr
    said, *modules = done.stdout.splitlines()
    # Garbage is collected again, and what PyTorch's import has made is left out of it.
    assert said == "claimed ['batch_size', 'epochs'] True True"
    assert "torch" in modules
    assert set(NEVER_AT_FIRST) & set(modules) <= allowed


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
