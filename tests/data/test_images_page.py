"""docs/images.md: its program and its commands, as a reader runs them one after the other, searches as dry runs."""

import json
import re
import shlex
from pathlib import Path

import pytest

from sweetspot.cli import main
from sweetspot.data import names
from sweetspot.data.image_files import SUFFIXES
from sweetspot.data.imagefolder import IMAGE_SIZE
from sweetspot.study import estimate

PAGE = Path(__file__).parents[2] / "docs" / "images.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_pages_program_and_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "_MEASURE_SECONDS", 0.0)  # one step of each: the figures do not matter here
    (program,) = blocks("python")
    exec(program, {})
    assert len(list(Path("photos").rglob("*.png"))) == 1797
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 3
    for program_name, *arguments in commands:
        assert program_name == "sweetspot"
        small = ["--teacher", "mlp", "--set", "student.model=mlp"]
        dry = [] if "--dry-run" in arguments else ["--dry-run"]
        assert main([*arguments, *dry, *small, "--device", "cpu", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["student_epochs"] > 0


def test_the_page_names_every_data_set_and_every_ending() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in names() if name != "fruit")
    assert all(f"`{ending}`" in page for ending in SUFFIXES)
    assert f"pixels, {IMAGE_SIZE} where nothing is said" in page
