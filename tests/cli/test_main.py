"""The command line where nothing is wrong: help, answers without a study, a dry run, a run that prints JSON."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_study import tiny_config
from typer.main import get_command

from sweetspot.cli import main
from sweetspot.cli.commands import app
from sweetspot.errors import RunError, one_line
from sweetspot.training.device import resolve_precision

COMMANDS = [
    "dashboard", "optimize", "grid", "entropy", "worker", "init", "status", "best", "trials", "delete", "studies",
    "datasets", "models", "snapshots", "workers", "watch", "plot", "report", "export", "teacher", "doctor",
]  # fmt: skip
TINY = [
    *("--set", "search.epochs=[1]"),
    *("--set", "search.batch_size=[64]"),
    *("--set", "search.min_steps=0"),
    *("--set", "student.epochs=1"),
    *("--set", "student.replicates={ min = 1, max = 1 }"),
    *("--device", "cpu", "--workers", "1", "--no-confirm"),
]


def home() -> list[Path]:
    return list(Path(os.environ["SWEETSPOT_HOME"]).rglob("*"))


# -- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(command: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    said = command(*arguments)
    assert (said.status, said.err) == (0, "")
    assert [name for name in COMMANDS if f"\n  {name} " in said.out] == COMMANDS
    assert sorted(get_command(app).commands) == sorted(COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_option(command: Callable[..., Any], name: str) -> None:
    said = command(name, "--help")
    assert (said.status, said.err) == (0, "")
    for parameter in get_command(app).commands[name].params:  # type: ignore[attr-defined]
        assert parameter.help
        if parameter.opts[0].startswith("--"):
            assert parameter.opts[0] in said.out


def test_help_of_optimize_says_the_defaults(command: Callable[..., Any]) -> None:
    said = " ".join(command("optimize", "--help").out.split())
    for default in (
        "(the data set's)",
        "auto",
        "(sqlite file in SWEETSPOT_HOME)",
        "(the stored total, else the study's)",
    ):
        assert f"default: {default}" in said


@pytest.mark.parametrize(
    "name", ["optimize", "entropy", "worker", "status", "best", "trials", "delete", "watch", "plot", "report", "export"]
)
def test_every_command_that_touches_a_study_takes_storage_and_artifacts(command: Callable[..., Any], name: str) -> None:
    said = command(name, "--help").out
    for word in ("--storage", "--artifacts", "SWEETSPOT_STORAGE", "SWEETSPOT_ARTIFACTS"):
        assert word in said


def test_every_command_that_reports_answers_programs(command: Callable[..., Any]) -> None:
    for name in (
        "optimize",
        "entropy",
        "status",
        "best",
        "trials",
        "studies",
        "datasets",
        "models",
        "watch",
        "report",
        "export",
        "doctor",
    ):
        assert "--json" in command(name, "--help").out


# -- an empty storage -----------------------------------------------------------------------------------------------


def test_status_of_an_empty_storage_is_an_empty_list(command: Callable[..., Any]) -> None:
    said = command("status", "--json")
    assert (said.status, json.loads(said.out), said.err) == (0, [], "")


def test_status_of_an_empty_storage_says_how_to_start(command: Callable[..., Any]) -> None:
    said = command("status")
    assert (said.status, said.err) == (0, "")
    assert said.out == "no study yet: start one with sweetspot optimize --dataset digits\n"


# -- a dry run ------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_the_cost_and_creates_nothing(command: Callable[..., Any]) -> None:
    said = command("optimize", "--dataset", "digits", "--dry-run", "--workers", "3", "--device", "cpu")
    assert (said.status, said.err) == (0, "")
    sentence, table = said.out.split("\n\n")
    for words in ("14 trials of ", " students on ", "3 workers", "teacher epochs", "student epochs", "of disk"):
        assert words in sentence
    assert table.split()[:4] == ["plain", "shared", "teacher", "epochs"]
    assert max(map(len, table.splitlines())) <= 80
    assert home() == []


def test_a_dry_run_for_programs_is_json(command: Callable[..., Any]) -> None:
    said = command("optimize", "--dataset", "digits", "--dry-run", "--json", *TINY, "--trials", "1")
    assert (said.status, said.err) == (0, "")
    cost = json.loads(said.out)
    assert cost["teacher_epochs"] == cost["teacher_epochs_unshared"] == 1
    assert cost["student_epochs"] == cost["plain"]["student_epochs"] == cost["shared"]["student_epochs"] == 1
    assert cost["seconds"] == cost["shared"]["seconds"] > 0
    assert cost["disk_bytes"] > 0
    assert home() == []


def test_a_dry_run_of_days_needs_no_data_and_names_what_runs_in_minutes(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    options = ("--device", "cpu", "--workers", "1", "--trials", "5000", "--data", str(data))
    said = command("optimize", "--dataset", "cifar100", "--dry-run", *options)
    assert (said.status, said.err) == (0, "")
    assert "That is days on this device" in said.out
    assert "in minutes run sweetspot optimize --dataset digits" in said.out
    assert home() == []
    assert not data.exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--name", "a/b"), "no '/'"),
        (("--teacher", "resnet57"), "did you mean 'resnet56'?"),
        (("--student", "mpl"), "did you mean 'mlp'?"),
        (("--set", "search.teacher.model=['mlp', 'convnets']"), "did you mean 'convnet'?"),
        (("--set", "search.batch_size=[4096]"), "batch size 4096 is above the 1097 training images"),
        (("--set", "student.batch_size=4096"), "batch size 4096 is above the 1097 training images"),
        (("--set", "data.validation=5000"), "validation = 5000 holds out 5000 of 1397 training images"),
        (("--device", "tpu"), "give auto, cpu, cuda"),
        (("--workers", "0"), "give a number of 1 or more, or auto"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would_refuse(
    refused: Callable[..., str], wrong: tuple[str, ...], words: str
) -> None:
    assert words in refused("optimize", "--dataset", "digits", "--dry-run", *wrong)


# -- a run ----------------------------------------------------------------------------------------------------------


def test_progress_and_json_do_not_mix(command: Callable[..., Any]) -> None:
    said = command("optimize", "--dataset", "digits", "--trials", "1", *TINY, "--json")
    assert said.status == 0, said.err
    answer = json.loads(said.out)
    assert (answer["study"], answer["batch_size"], answer["epochs"]) == ("digits", 64, 1)
    assert "1/1" in said.err
    assert json.loads(command("best", "--json").out) == answer
    (status,) = json.loads(command("status", "--json").out)
    assert status["trials"] == {"complete": 1, "pruned": 0, "failed": 0, "running": 0, "waiting": 0, "total": 1}
    (trial,) = json.loads(command("trials", "--json").out)
    assert (trial["state"], trial["batch_size"], trial["epochs"]) == ("complete", 64, 1)


def test_a_study_goes_on_with_the_precision_that_was_settled_when_it_was_created(
    command: Callable[..., Any], create: Callable[..., None]
) -> None:
    here = resolve_precision("auto", "cpu")
    other = "float32" if here == "bfloat16" else "bfloat16"
    create(tiny_config(teacher__precision=other, student__precision=other, search__trials=1, confirm__seeds=0))
    tiny = tiny_config().search
    sets = [f"search.batch_size={list(tiny.batch_size)}", f"search.epochs={list(tiny.ladder)}", "search.min_steps=0"]
    sets += ["student.epochs=2", "student.replicates={ min = 2, max = 2 }", "pruner={ name = 'none' }"]
    sets += ["teacher.precision=auto", "student.precision=auto"]
    options = [part for each in sets for part in ("--set", each)]
    options += ["--no-confirm", "--workers", "1", "--device", "cpu", "--quiet"]
    said = command("optimize", "--dataset", "digits", *options)
    assert (said.status, said.out, said.err) == (0, "", "")


# -- delete ---------------------------------------------------------------------------------------------------------


def test_delete_removes_the_study(command: Callable[..., Any], create: Callable[..., None]) -> None:
    create(tiny_config())
    said = command("delete", "digits", "--yes")
    assert (said.status, said.out, said.err) == (0, "removed digits\n", "")
    assert command("status", "--json").out == "[]\n"


def test_delete_asks_and_takes_no_for_an_answer(
    command: Callable[..., Any], create: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tiny_config())
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: False)
    said = command("delete", "digits")
    assert (said.status, said.out, said.err) == (1, "", "error: the study 'digits' was not removed\n")
    assert [study["study"] for study in json.loads(command("status", "--json").out)] == ["digits"]


# -- exit statuses --------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., None]:
    def command(*_: Any, **__: Any) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunError("it failed\nand failed"), 1, "it failed and failed"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues where it stopped"),
        (ValueError("a bug\nof ours"), 1, "ValueError: a bug of ours (SWEETSPOT_TRACEBACK=1 shows where)"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_a_status(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    monkeypatch.setattr("sweetspot.study_file.built_in", raising(error))
    said = command("studies")
    assert (said.status, said.out, said.err) == (status, "", f"error: {line}\n")


def test_a_traceback_is_shown_to_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_TRACEBACK", "1")
    monkeypatch.setattr("sweetspot.study_file.built_in", raising(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        main(["studies"])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one", "one"),
        ("one\n  two\r\nthree", "one two three"),
        ("\x1b[31mred\x00\t\udcff", r"\x1b[31mred\x00\t\udcff"),
        ("Füße, 𝕊, 名", "Füße, 𝕊, 名"),
    ],
)
def test_an_error_is_one_line_that_can_be_printed(text: str, line: str) -> None:
    assert one_line(text) == line
