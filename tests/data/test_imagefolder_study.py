"""A study of the user's own image files, from a path that is relative, to its confirmation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sweetspot.cli import main

WriteImages = Callable[..., Path]
SMALL = {
    "data.image_size": "8",
    "data.validation": "9",
    "search.batch_size": "[8]",
    "search.epochs": "[1, 2]",
    "search.min_steps": "0",
    "student.batch_size": "8",
    "student.epochs": "1",
    "student.model": "mlp",
    "confirm.seeds": "2",
}


@pytest.mark.slow  # tests/docs/test_commands.py has a short form of it
def test_a_study_of_image_files_runs_to_its_confirmation(
    write_images: WriteImages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_images("photos", {"ant": 15, "<b>bee</b>": 15, "cow": 15})
    monkeypatch.chdir(photos.parent)
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    options = ["--trials", "2", "--teacher", "mlp", "--workers", "1", "--device", "cpu", "--quiet", "--json"]
    assert main(["optimize", "--dataset", "imagefolder:photos", *settings, *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["study"] == "photos"
    assert result["dataset"] == f"imagefolder:{photos}"
    assert result["test_looks"] == 1
    assert result["test_accuracy"]["replicates"] == 2
