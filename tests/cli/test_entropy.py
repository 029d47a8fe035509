"""``sweetspot entropy``: one command from a data set to curves; its answers, refusals and interruptions."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tiny_study import tiny_config

from sweetspot.report.survey_live import Lines
from sweetspot.store import Store
from sweetspot.store.schema import WorkerRow

Command = Callable[..., Any]
Refused = Callable[..., str]
TINY = (
    *("entropy", "--dataset", "digits", "--device", "cpu"),
    *("--set", "search.batch_size=[64,128]", "--set", "search.epochs=[1,2]"),
)


def home() -> list[Path]:
    return list(Path(os.environ["SWEETSPOT_HOME"]).rglob("*"))


def workers() -> list[str]:
    with Store() as store, store.database.session() as session:
        return list(session.scalars(select(WorkerRow.id)))


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


def test_the_table_then_the_curves_without_training_again(command: Command, tmp_path: Path) -> None:
    said = command(*TINY)
    assert said.status == 0, said.err
    assert [line.split(":")[0] for line in said.err.splitlines()] == [
        "1/4  batch 64, 1 epoch", "2/4  batch 64, 2 epochs", "3/4  batch 128, 1 epoch", "4/4  batch 128, 2 epochs",
    ]  # fmt: skip
    assert [line.split()[:2] for line in said.out.splitlines()[4:8]] == [
        ["64", "1"], ["64", "2"], ["128", "1"], ["128", "2"],
    ]  # fmt: skip
    assert "4 teacher epochs trained where 6 were asked for" in said.out
    assert "-o FILE.html, .png or .json" in said.out
    file = tmp_path / "digits.json"
    said = command(*TINY, "-o", str(file), "--json")
    assert (said.status, said.err) == (0, "")
    answer = json.loads(said.out, parse_constant=refuse_constant)
    assert answer == json.loads(file.read_text())
    assert answer["cost"] == {"teacher_epochs_requested": 6, "teacher_epochs_trained": 0}
    assert {point["batch_size"] for point in answer["points"]} == {64, 128}
    said = command(*TINY, "-o", str(tmp_path / "digits.html"))
    assert said.out.splitlines()[-1] == f"wrote {tmp_path / 'digits.html'}"
    assert command("status", "--json").out == "[]\n"
    assert workers() == []


def test_a_study_finds_the_teachers_of_a_survey(command: Command, create: Callable[..., None]) -> None:
    assert command(*TINY, "--quiet").status == 0
    create(tiny_config(search__batch_size=[64, 128], search__epochs=[1, 2], search__trials=2, confirm__seeds=0))
    assert command("worker", "--name", "digits", "--device", "cpu").status == 0
    cost = json.loads(command("best", "digits", "--json").out)["cost"]
    assert cost["teacher_epochs_requested"] >= 2
    assert cost["teacher_epochs_trained"] == 0


def test_options_that_are_given_count(command: Command) -> None:
    said = command(*TINY, "--teacher", "mlp", "--seed", "3", "--set", "teacher.schedule={ name = 'cosine' }", "--json")
    assert said.status == 0
    answer = json.loads(said.out)
    assert (answer["teacher"], answer["seed"], answer["schedule"]) == ("mlp", 3, "cosine")
    assert 'teacher.schedule "cosine" shares nothing' in said.err.splitlines()[0]


def test_quiet_says_nothing(command: Command) -> None:
    said = command(*TINY, "--set", "search.epochs=[1]", "--quiet")
    assert (said.status, said.out, said.err) == (0, "", "")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("-o", "curves.pdf"), "--output curves.pdf: the suffix says what is written: .html, .png, .json"),
        (("--output", "nowhere/curves.png"), "there is no folder nowhere"),
        (("--teacher", "convnets"), "did you mean 'convnet'?"),
        (("--set", "student.model=mpl"), "did you mean 'mlp'?"),
        (("--set", "search.batch_size=[4096]"), "batch size 4096 is above the 1097 training images"),
        (("--dataset", "digit"), "unknown data set 'digit': did you mean 'digits'?"),
        (("--dataset", "npz:nowhere.npz"), "nowhere.npz"),
        (("--study", "nowhere.toml"), "there is no study file nowhere.toml"),
        (("--device", "tpu"), "give auto, cpu, cuda"),
        (("--device", "cpu,cpu"), "the same command on the other device shares the work"),
        (("--set", "search.epoch=[1]"), "did you mean search.epochs?"),
    ],
)
def test_a_mistake_is_found_before_anything_is_made(
    command: Command, wrong: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command(*TINY, *wrong)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert home() == list(tmp_path.iterdir()) == []


def test_teachers_that_all_diverge_are_a_failed_run(command: Command) -> None:
    said = command(*TINY, "--set", "search.batch_size=[64]", "--set", "teacher.optimizer={ lr = 1e30 }", "--quiet")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: every teacher diverged; the first, at batch size 64: ")
    assert workers() == []


def test_an_interrupted_survey_goes_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "teacher", interrupt)
        said = command(*TINY)
    assert (said.status, said.out) == (130, "")
    assert said.err == "error: interrupted; the same command continues where it stopped\n"
    assert workers() == []
    answer = json.loads(command(*TINY, "--json").out)
    assert answer["cost"]["teacher_epochs_trained"] == 3
