"""``sweetspot grid``: it records and writes a table, or writes that of what is recorded; and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_config, toml_settings

from sweetspot.config import StudyConfig
from sweetspot.errors import RunError
from sweetspot.report.table import read_table
from sweetspot.workers.grid import grid_config
from sweetspot.workers.optimize import Run

Command = Callable[..., Any]
SMALL = toml_settings(search__batch_size=[64], search__epochs=[1, 2], student__epochs=1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an empty working folder."""
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[StudyConfig, Run]]:
    """What is given to workers, who do nothing."""
    found: list[tuple[StudyConfig, Run]] = []

    def stop(config: StudyConfig, run: Run, console: object, *, quiet: bool) -> None:
        found.append((config, run))
        raise RunError("enough")

    monkeypatch.setattr("sweetspot.workers.optimize.run_study", stop)
    return found


def test_one_command_records_and_writes_and_run_again_trains_nothing(command: Command, here: Path) -> None:
    words = ["grid", "--dataset", "digits", *SMALL, "--teachers", "2", "--workers", "1", "--device", "cpu"]
    first = command(*words, "--export", "table.json", "--json")
    assert first.status == 0, first.err
    told = json.loads(first.out)
    table = read_table(here / "table.json")
    assert (told["study"], told["export"], told["command"]) == ("digits-grid", "table.json", table.command)
    assert (told["points"], told["teacher_seeds"], told["replicates"], told["students"]) == (2, 2, 2, 8)
    assert told["trials"]["complete"] == 4
    assert (told["cost"]["teacher_epochs_trained"], told["test_images"]) == (4, None)

    again = command(*words)
    assert (again.status, "worker 0" in again.err) == (0, False)
    assert again.out == "recorded digits-grid: sweetspot grid digits-grid --export FILE.json writes its table\n"
    for words in (["digits-grid"], [], ["--name", "digits-grid"]):
        written = command("grid", *words, "--export", "again.json")
        assert (written.status, written.err) == (0, "")
        assert written.out.startswith("wrote again.json: 2 points, teachers of each: 2, students of each: 2; ")
        found = read_table(here / "again.json")
        assert (found.points, found.trajectories) == (table.points, table.trajectories)
    looked = command("grid", "digits-grid", "--export", "again.json", "--with-test", "--device", "cpu")
    assert looked.err == "looking at the test split of this data: look 1, which every later verdict on it counts\n"
    assert read_table(here / "again.json").data.test_images == 400

    for reading in (
        ["status"],
        ["best"],
        ["best", "--json"],
        ["trials"],
        ["report", "-o", "page.html"],
        ["plot", "map"],
    ):
        said = command(*reading)
        assert (said.status, said.err) == (0, "")
    assert json.loads(command("best", "--json").out)["parameters"].keys() == {"teacher.seed"}


def test_what_is_recorded_is_a_grid_of_the_study(
    command: Command, here: Path, asked: list[tuple[StudyConfig, Run]]
) -> None:
    words = ["grid", "--dataset", "digits", *toml_settings(), "--teachers", "3", "--replicates", "4", "--seed", "7"]
    assert command(*words, "--workers", "2", "--log-file", "log", "--data", "sets").status == 1
    ((config, run),) = asked
    assert config == grid_config(tiny_config(seed=7), 3, 4)
    assert (run.name, run.trials, run.workers, run.log, run.data) == ("digits-grid", 18, 2, Path("log"), Path("sets"))
    assert not (here.parent / "home" / "sweetspot.db").exists()

    command("grid", "--study", "digits")
    command("grid", "--dataset", "digits", "--name", "mine", "--set", "search.teacher.seeds=2")
    plain, named = asked[1:]
    assert (plain[0].search.teacher.seeds, plain[0].student.replicates.max) == (1, 3)
    assert (plain[1].name, plain[1].workers) == ("digits-grid", None)
    assert (named[0].search.teacher.seeds, named[1].name) == (2, "mine")


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "what is to be recorded? Give --dataset or --study; or --export, and a study that is recorded"),
        (["digits-grid"], "what is to be recorded? "),
        (["mine", "--dataset", "digits"], "'mine' stands beside --dataset or --study: "),
        (["--export", "t.json", "--teachers", "2"], "--teachers is about what is to be recorded: "),
        (["--export", "t.json", "--set", "seed=2"], "--set is about what is to be recorded: "),
        (["one", "--name", "two", "--export", "t.json"], "'one' and --name 'two' both name a study: give one of them"),
        (["--dataset", "digits", "--with-test"], "--with-test is about what the table has: give --export, too"),
        (["--dataset", "digits", "--export", "t.csv"], "--export t.csv: the suffix says what is written: .json"),
        (["--dataset", "digits", "--export", "none/t.json"], "--export none/t.json: there is no folder none"),
        (["--dataset", "digits", "--workers", "0"], "--workers 0: give a number of 1 or more, or auto"),
        (["--dataset", "digit"], "unknown data set 'digit'"),
        (["--dataset", "digits", "--set", "search.teacher.lr={low=0.1, high=1}"], "a grid has every point, and search"),
        (["--dataset", "digits", "--set", 'search.teacher.model=["mlp"]'], "a table is of one teacher's network, and "),
        (["none", "--export", "t.json"], "there is no study 'none' in "),
        (["--export", "t.json"], "there is no study in "),
    ],
)  # fmt: skip
def test_what_does_not_go_together(refused: Command, here: Path, words: list[str], line: str) -> None:
    assert refused("grid", *words).startswith(line)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", [["--teachers", "0"], ["--replicates", "0"], ["--teachers", "many"]])
def test_numbers_that_are_none(refused: Command, here: Path, words: list[str]) -> None:
    assert words[0] in refused("grid", "--dataset", "digits", *words)


def test_a_grid_that_is_not_complete(command: Command, create: Callable[..., None], here: Path) -> None:
    create(grid_config(tiny_config()), "digits-grid")
    said = command("grid", "--export", "t.json")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: 6 of the 6 points of 'digits-grid' are missing: sweetspot grid --dataset digits")
    assert said.err.endswith(" continues it\n")
    assert list(here.iterdir()) == []
