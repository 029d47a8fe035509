"""``sweetspot plot``: a figure as a file of the kind that its suffix says, or one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_config

from benchmarks.large_study import write_large_study
from sweetspot.store import Store

Command = Callable[..., Any]
Refused = Callable[..., str]
CONFIG = tiny_config(search__batch_size=[64, 128], search__epochs=[3, 10, 30], search__trials=20)


@pytest.fixture
def study() -> str:
    """A study in the home, its name to be escaped."""
    with Store() as store:
        write_large_study(store, "my <b> study", trials=20, config=CONFIG)
    return "my <b> study"


def test_a_file_is_what_its_suffix_says(command: Command, study: str, tmp_path: Path) -> None:
    for suffix, begins in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype html>"), (".PNG", b"\x89")):
        file = tmp_path / f"map{suffix}"
        said = command("plot", "map", study, "-o", str(file))
        assert (said.status, said.out, said.err) == (0, f"wrote {file}\n", "")
        assert file.read_bytes().startswith(begins)
    assert b"<b>" not in (tmp_path / "map.html").read_bytes().split(b"<script>")[0]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("figure", ["entropy", "tradeoff", "steps", "cost", "confirm"])
def test_without_a_file_a_picture_is_named_after_study_and_figure(
    command: Command, study: str, figure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command("plot", figure)
    assert (said.status, said.err) == (0, "")
    (file,) = tmp_path.iterdir()
    assert file.name == f"my-b-study-{figure}.png"
    assert said.out == f"wrote {file.name}\n"
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plot",), "map|entropy|tradeoff|steps|cost|confirm"),
        (("plot", "mab"), "unknown figure 'mab': did you mean 'map'? known are "),
        (("plot", "map", "-o", "map.pdf"), "--output map.pdf: the suffix says what is written: .png, .svg, .html"),
        (("plot", "map", "-o", "nowhere/map.png"), "there is no folder nowhere"),
        (("plot", "map", "-o", "."), "the suffix says what is written"),
        (("plot", "map"), "there is no study in "),
        (("plot", "map", "digits"), "there is no study 'digits'"),
    ],
)
def test_a_mistake_costs_one_line(refused: Refused, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments)


def test_a_figure_that_is_not_there_yet_says_why_and_leaves_no_file(
    command: Command, create: Callable[..., None], tmp_path: Path
) -> None:
    create(CONFIG)
    for figure, words in (("confirm", "has no confirmation to show"), ("map", "has no trial yet")):
        said = command("plot", figure, "-o", str(tmp_path / "figure.png"))
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith("error: the study 'digits'")
        assert words in said.err
    assert list(tmp_path.iterdir()) == []
