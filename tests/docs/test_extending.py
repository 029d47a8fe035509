"""docs/extending.md: the package on the page, installed away from here, and the commands on the page run with it.

The commands of docs/networks.md run, too.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sweetspot.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
NETWORKS = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """The arguments of the commands on a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    found = [line.split() for block in blocks for line in block.splitlines()]
    assert found
    assert all(program == "sweetspot" for program, *_ in found)
    return [arguments for _, *arguments in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and in ``site`` what installs as a wheel from its package."""
    folder = tmp_path_factory.mktemp("page")
    for path, content in re.findall(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    # Without isolation nothing is downloaded: the backend is the one that torch brings.
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "stripes"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")  # what installing a pure wheel does
    return folder


def test_the_commands_of_the_page_run_with_its_package(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT)))}
    said = {}
    for arguments in commands(PAGE):
        run = [sys.executable, "-m", "sweetspot", *arguments]
        done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said[arguments[0]] = done.stdout
    assert "stripes " in said["datasets"]
    assert "stripes-net " in said["models"]
    assert "stripes-net teaches mlp-8 on stripes" in said["optimize"]
    assert "Verdict" in said["optimize"]


def test_the_commands_of_the_page_on_networks_run(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands(NETWORKS):
        assert main(arguments) == 0
    said = capsys.readouterr()
    assert "timm:NAME " in said.out
    assert "disk" in said.out, "the estimate"
    assert said.err == ""
