"""Every command that the README and the pages show is run, on studies of seconds."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from tiny_study import toml_settings

import sweetspot
from sweetspot.cli import main
from sweetspot.models import build

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ELSEWHERE = {
    "worker --forever": "deploy/test_compose.py",
    "workers drain": "cli/test_workers_command.py",
    "dashboard": "cli/test_dashboard.py",
    "optimize --study stripes.toml": "docs/test_extending.py",
    "optimize --study study.toml": "cli/test_report.py",
    "export": "cli/test_export_command.py",
    "delete": "cli/test_main.py",
    "teacher add": "cli/test_teacher.py",  # where it is named without its arguments
}
"""What other tests run, by how the command begins; those that run here come first."""
PLACEHOLDER = re.compile(r"…|\[|\b(NAME|STUDY|PATH|DIR|FILE)\b")
"""What shows the form of a command, not a command."""


def commands(page: Path) -> list[str]:
    """The commands of a page in their order, each once, without ``sweetspot``."""
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)).replace("\\\n", " ")
    shown = re.findall(r"^(?:\$ )?(?:\./uvw run )?sweetspot +(.*)$", fenced, re.M)
    named = re.findall(r"`sweetspot ([^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    found = [re.sub(r"\s+#.*", "", command).strip() for command in shown]
    return list(dict.fromkeys([*found, *(c for c in named if not PLACEHOLDER.search(c))]))


EVERY = [(page.name, command) for page in PAGES for command in commands(page)]


def is_run_elsewhere(command: str) -> bool:
    return any(f"{command} ".startswith(f"{start} ") for start in ELSEWHERE)


HERE = [c for c in dict.fromkeys(c for _, c in EVERY) if c.startswith("teacher add ") or not is_run_elsewhere(c)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home, and a current folder with the files that the commands name, smaller than the real ones."""
    here = tmp_path_factory.mktemp("commands")
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * 15).astype(np.uint8)
    for name, images in (("part-0.npz", pixels), ("cifar100.npz", 255 - pixels)):
        np.savez(here / name, train_x=images[:900], train_y=labels[:900], test_x=images[900:], test_y=labels[900:])
    torch.manual_seed(0)
    save_file(build("resnet56", classes=10, channels=1, image_size=8).state_dict(), here / "mine.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("SWEETSPOT_HOME", str(here / "home"))
        for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/images.md").read_text(), re.S | re.M):
            exec(block, {})
        yield here


def shrunk(command: str) -> list[str]:
    """The command's arguments, with data that are at hand instead of what is downloaded, and made small."""
    arguments = shlex.split(command)
    arguments = ["npz:cifar100.npz" if part == "cifar100" else part for part in arguments]
    if arguments[0] in ("optimize", "entropy") and "--dry-run" not in arguments:
        tiny = toml_settings(**{"data.validation": 200})
        return [arguments[0], *tiny, *arguments[1:], *SMALLER]
    return arguments


SMALLER = ["--set", "search.batch_size=[64,128]", "--set", "search.epochs=[1,2,3]", "--set", "student.epochs=2"]
"""What counts more than the command's own."""


def test_the_commands_that_the_pages_show(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", str(folder / "home"))
    assert len(HERE) > 30
    for command in HERE:
        status = main(shrunk(command))
        said = capsys.readouterr()
        assert status == 0, f"sweetspot {command}: {said.err}"
    for name in ("map.png", "entropy.svg", "tradeoff.html", "report.html", "report.md", "report.json", "curves.html"):
        assert (folder / name).stat().st_size > 1000, name
    result = sweetspot.load_result("digits")
    for plot in (result.plot_map, result.plot_entropy, result.plot_tradeoff, result.plot_steps, result.plot_cost):
        assert plot().data
    assert len(result.to_dataframe()) == len(result.points)


def test_what_is_run_elsewhere_is_in_a_test_there() -> None:
    for command, test in ELSEWHERE.items():
        assert command.split()[0] in (ROOT / "tests" / test).read_text(), (command, test)
