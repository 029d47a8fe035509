"""``sweetspot export``: what it writes, what it says, and what it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.models.exported import FILES
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import create_or_continue
from sweetspot.workers.worker import work

Command = Callable[..., Any]
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with the study "digits", which was not confirmed, and "begun" without a trial."""
    url = f"sqlite:///{tmp_path_factory.mktemp('finished')}/study.db"
    config = tiny_config(search__trials=1, confirm__seeds=0)
    data = load_study_data(config, data_folder(), torch.device("cpu"))
    with Store(url) as store:
        create_or_continue(store, "digits", config, data)
        work("digits", storage=url, device="cpu")
        create_or_continue(store, "begun", config, data)
    return url


@pytest.fixture
def here(finished: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, with that storage as the one that commands find."""
    monkeypatch.setenv("SWEETSPOT_STORAGE", finished)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(command: Command, here: Path) -> Command:
    """Runs an export that must fail with one line, and leave nothing; that line, without its ``error: ``."""

    def run(*arguments: str, status: int = 2) -> str:
        before = sorted(here.rglob("*"))
        said = command("export", *arguments)
        assert (said.status, said.out) == (status, "")
        assert said.err.startswith("error: ")
        line: str = said.err.removeprefix("error: ").removesuffix("\n")
        assert line.isprintable()
        assert sorted(here.rglob("*")) == before
        return line

    return run


def test_it_says_what_it_wrote_and_how_to_load_it(command: Command, here: Path) -> None:
    said = command("export", "digits", "--output", "out", "--device", "cpu")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("wrote out: teacher convnet (batch ")
    assert re.search(r"student mlp \(validation accuracy \d+\.\d\d %\)$", lines[0])
    assert "The best point is not confirmed: " in said.out
    assert lines[-1] == "Load it: sweetspot.load_student('out')"
    assert {path.name for path in (here / "out").iterdir()} == FILES

    said = command("export", "digits", "-o", "out", "--json")
    assert json.loads(said.out) == {"folder": "out", **json.loads((here / "out" / "config.json").read_text())}
    assert command("export", "digits", "-o", "out", "--quiet").out == ""


def test_the_card_and_the_docs_run_as_they_stand(command: Command, here: Path) -> None:
    (line,) = re.findall(r"```bash\nsweetspot (.*)\n```", DOCS.read_text())
    assert command(*line.split()).status == 0
    card = here / line.split()[-1] / "README.md"
    programs = [re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in (DOCS.read_text(), card.read_text())]
    assert [len(found) for found in programs] == [1, 1]
    code = f"{programs[0][0]}\nimport os\nos.chdir({str(card.parent)!r})\n{programs[1][0]}"
    environment = os.environ | {"SWEETSPOT_HOME": str(here / "nowhere")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=here, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\['\d', '\d'\]\n\d\n", done.stdout)
    assert not (here / "nowhere").exists()


def test_every_key_of_the_config_is_documented(command: Command, here: Path) -> None:
    command("export", "digits", "-o", "out", "--quiet")
    documented = DOCS.read_text().partition("## `config.json`")[2]
    for key in json.loads((here / "out" / "config.json").read_text()):
        assert f"`{key}`" in documented


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_ours(refused: Command, here: Path) -> None:
    (here / "taken").mkdir()
    (here / "taken" / "thesis.tex").touch()
    assert refused("digits", "-o", "taken").endswith(
        "/taken holds what is no export (thesis.tex): name a folder that is not there yet, or an empty one"
    )
    (here / "file").touch()
    assert refused("digits", "-o", "file").endswith("/file is a file: name a folder that is not there yet")
    assert "there is no folder " in refused("digits", "-o", "none/out")
    assert "there is no folder " in refused("digits", "-o", "file/out")
    assert "cannot write in /proc" in refused("digits", "-o", "/proc/out")


def test_the_folder_that_one_is_in(refused: Command) -> None:
    assert "is the folder that you are in" in refused("digits", "-o", ".")


def test_an_empty_folder_will_do(command: Command, here: Path) -> None:
    (here / "empty").mkdir()
    assert command("export", "digits", "-o", "empty", "--quiet").status == 0
    shutil.rmtree(here / "empty")
    assert list(here.iterdir()) == []


def test_no_folder_at_all(refused: Command) -> None:
    assert "--output" in refused("digits")


def test_a_study_that_is_not_there_or_not_named(refused: Command) -> None:
    assert refused("digit", "-o", "out") == "unknown study 'digit': did you mean 'digits'? known are begun, digits"
    assert refused("-o", "out").startswith("which study? ")


def test_a_study_without_a_trial(refused: Command) -> None:
    assert refused("begun", "-o", "out", status=1) == (
        "the study 'begun' has no finished trial yet: see sweetspot status begun"
    )


def test_a_device_that_is_not_one(refused: Command) -> None:
    assert "--device 'tpu': give " in refused("digits", "-o", "out", "--device", "tpu")


def test_data_that_is_not_the_studys(refused: Command, here: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(200, 8, 8), dtype=np.uint8)
    labels = np.arange(200) % 10

    def write(pixels: "np.ndarray[Any, Any]") -> None:
        np.savez(here / "mine.npz", train_x=pixels, train_y=labels, test_x=images, test_y=labels)

    write(images)
    config = tiny_config(
        data__dataset=f"npz:{here}/mine.npz", data__validation=40, search__trials=1, confirm__seeds=0,
        search__batch_size=[32], search__epochs=[1], student__epochs=1, student__batch_size=32,
    )  # fmt: skip
    url = os.environ["SWEETSPOT_STORAGE"]
    with Store(url) as store:
        create_or_continue(store, "mine", config, load_study_data(config, data_folder(), torch.device("cpu")))
    work("mine", storage=url, device="cpu")
    write(255 - images)
    assert re.fullmatch(
        "the study 'mine' was made with other images: its data has the hash [0-9a-f]{12}, the copy here "
        "[0-9a-f]{12}; give the right --data",
        refused("mine", "-o", "out"),
    )
    (here / "mine.npz").unlink()
    assert "no such file" in refused("mine", "-o", "out")
