"""``sweetspot teacher`` as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sweetspot.models import build

GIVEN = ("--model", "convnet", "--dataset", "digits", "--epochs", "240")


@pytest.fixture
def file(tmp_path: Path) -> str:
    torch.manual_seed(7)
    path = tmp_path / "mine.safetensors"
    save_file(build("convnet", classes=10, channels=1, image_size=8).state_dict(), path)
    return str(path)


def test_a_teacher_is_added_listed_and_removed(command: Callable, file: str) -> None:  # type: ignore[type-arg]
    said = command("teacher", "add", file, *GIVEN)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("mine: convnet, 240 epochs, trained elsewhere\nAccuracy: ")
    assert "which its training may have seen" in said.out
    assert "hardly better than guessing" in said.out
    (listed,) = json.loads(command("teacher", "ls", "--json").out)
    assert listed.items() >= {"name": "mine", "model": "convnet", "epochs": 240, "studies": []}.items()
    assert listed["weights"][:12] in command("teacher", "ls").out
    added = json.loads(command("teacher", "add", file, *GIVEN, "--name", "again", "--json").out)
    assert added["weights"] == listed["weights"]
    assert 0 < added["accuracy"]["validation"] < 0.3
    assert command("teacher", "remove", "again").out == "removed again\n"
    assert command("teacher", "ls").out.startswith("no teacher was added")


def test_mistakes_are_told_in_one_line(refused: Callable[..., str], file: str, tmp_path: Path) -> None:
    assert "unknown model 'convnot'" in refused("teacher", "add", file, *GIVEN[2:], "--model", "convnot")
    assert "what is the data?" in refused("teacher", "add", file, "--model", "convnet", "--epochs", "3")
    assert "--model" in refused("teacher", "add", file, *GIVEN[2:])
    assert "'--epochs'" in refused("teacher", "add", file, *GIVEN[:4], "--epochs", "0")
    assert "'--epochs'" in refused("teacher", "add", file, *GIVEN[:4], "--epochs", str(2**31))
    assert "cannot read" in refused("teacher", "add", str(tmp_path), *GIVEN)
    assert "1 to 200 printable characters" in refused("teacher", "add", file, *GIVEN, "--name", "a\nb")
    assert "no teacher is called 'nobody'" in refused("teacher", "remove", "nobody")
