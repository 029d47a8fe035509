"""The built wheel, installed away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)  # without isolation: nothing is downloaded
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_ships_every_study_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"sweetspot/studies/{path.name}" for path in (ROOT / "studies").glob("*.toml")} <= names


def test_the_wheel_ships_what_a_report_is_made_of(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"sweetspot/report/page/{name}" for name in ("report.html.jinja", "report.css", "sort.js")} <= names


def test_an_installed_wheel_finds_its_studies(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # what installing a pure wheel does, without its dependencies
    environment = os.environ | {"PYTHONPATH": str(site), "SWEETSPOT_HOME": str(tmp_path)}
    program = (
        "import sys, sweetspot, sweetspot.cli; print(sweetspot.__file__); sys.exit(sweetspot.cli.main(['studies']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(site))
    assert "digits" in done.stdout
    assert "cifar100" in done.stdout
