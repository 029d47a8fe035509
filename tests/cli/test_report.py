"""``sweetspot report``: from a real study to its files, and what it refuses."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_config

from sweetspot.study_file import Draft
from sweetspot.workers.worker import work

Command = Callable[..., Any]


def test_a_study_becomes_a_page_markdown_and_numbers_and_its_configuration_repeats_it(
    command: Command, create: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create(tiny_config(search__trials=2))
    work("digits", device="cpu")
    assert command("report").out == "wrote digits-report.html\n"
    assert command("report", "digits", "-o", "digits.md").out == "wrote digits.md\n"
    said = command("report", "-o", "digits.json", "--json")
    assert (said.status, said.err) == (0, "")
    answer = json.loads(said.out)
    written = json.loads(Path("digits.json").read_text(encoding="utf-8"))
    assert answer | {"written": ""} == written | {"written": ""}
    assert answer.items() >= json.loads(command("best", "--json").out).items()
    assert answer["class_similarity"]["images"] != []
    assert answer["builds"] != []
    sentence = answer["answer"]["sentence"].replace("\u00a0", " ")
    page, markdown = (Path(name).read_text(encoding="utf-8") for name in ("digits-report.html", "digits.md"))
    for text in (page, markdown.replace("\\", "")):
        assert sentence.partition(": ")[2] in text.replace("\u00a0", " ")
    assert sorted(os.listdir()) == ["digits-report.html", "digits.json", "digits.md"]
    # The configuration, as a file, is this very study: with any other, it would not be continued.
    Path("again.toml").write_text(answer["config_toml"], encoding="utf-8")
    create(Draft.read(Path("again.toml")).config())
    work("digits", device="cpu")
    assert json.loads(command("report", "--json").out)["all_trials"] == answer["all_trials"]


def test_a_study_without_a_trial_has_a_report_too(
    command: Command, create: Callable[..., None], tmp_path: Path
) -> None:
    create(tiny_config())
    for suffix in (".html", ".md", ".json"):
        said = command("report", "-o", str(tmp_path / f"x{suffix}"))
        assert (said.status, said.err) == (0, "")
    assert json.loads((tmp_path / "x.json").read_text())["answer"]["standing"] == "no answer"


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("x.pdf", "--output x.pdf: the suffix says what is written: .html, .md, .json"),
        ("x", "--output x: the suffix says what is written: .html, .md, .json"),
        ("nowhere/x.html", "--output nowhere/x.html: there is no folder nowhere"),
        ("folder.md", "--output folder.md is a folder: name a file in it"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.md").mkdir()
    said = command("report", "no-such-study", "-o", output)
    assert (said.status, said.out, said.err) == (2, "", f"error: {told}\n")
    assert os.listdir() == ["folder.md"]


def test_an_unknown_study_is_refused_and_nothing_is_written(
    command: Command, create: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command("report")
    assert said.status == 2
    assert said.err.startswith("error: there is no study in ")
    create(tiny_config())
    said = command("report", "digit", "-o", "x.html")
    assert (said.status, said.out) == (2, "")
    assert said.err == "error: unknown study 'digit': did you mean 'digits'? known are digits\n"
    assert os.listdir() == []
