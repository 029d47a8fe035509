"""docs/extending.md: the package on the page, installed away from here, and the commands on the page run with it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """The arguments of the commands on a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    found = [line.split() for block in blocks for line in block.splitlines()]
    assert found
    assert all(program == "sweetspot" for program, *_ in found)
    return [arguments for _, *arguments in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and its package installed in ``site``."""
    folder = tmp_path_factory.mktemp("page")
    for path, content in re.findall(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    # As the page says, but into a folder, and offline: the package's backend is the setuptools that is here.
    options = ["--offline", "--python", sys.executable, "--no-deps", "--no-build-isolation", "--target", "site"]
    install = [str(ROOT / "uvw"), "pip", "install", *options, "./stripes"]
    assert "`./uvw pip install ./stripes`" in PAGE
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


PROGRAM = """
import json, sys
from sweetspot.cli import main
for arguments in json.loads(sys.argv[1]):
    print("$", *arguments, flush=True)
    assert main(arguments) == 0, arguments
"""


@pytest.mark.ci
def test_the_commands_of_the_page_run_with_its_package(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT)))}
    shown = commands(PAGE)
    assert [name for name, *_ in shown] == ["datasets", "models", "optimize"]
    run = [sys.executable, "-c", PROGRAM, json.dumps(shown)]  # in one process, as its imports take seconds
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, datasets, models, optimize = done.stdout.split("$ ")
    assert "stripes " in datasets
    assert "stripes-net " in models
    assert "stripes-net teaches mlp-8 on stripes" in optimize
    assert "Verdict" in optimize
