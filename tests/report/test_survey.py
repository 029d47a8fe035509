"""The curves of a survey as files: a page that asks nothing of the network, a picture, numbers."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.report.figures.matplotlib import picture
from sweetspot.report.figures.plotly import page
from sweetspot.report.figures.scheme import LIGHT
from sweetspot.report.survey import check_output, figure, write
from sweetspot.report.survey_live import survey_progress
from sweetspot.report.survey_text import survey_text
from sweetspot.store import Leases, Store
from sweetspot.store.url import data_folder
from sweetspot.study.space import Point
from sweetspot.study.survey import Survey, survey
from sweetspot.study.workplace import Workplace


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Of real digits; the longest run of batch size 128 is said to have diverged."""
    config = tiny_config(teacher__schedule={"name": "wsd", "warmup": 0.0, "decay": 0.34})
    cpu = torch.device("cpu")
    with Store(f"sqlite:///{tmp_path_factory.mktemp('survey')}/study.db") as store:
        leases = Leases(store.database, store.workers.register("cpu"), 60.0)
        measured = survey(config, Workplace("", store, leases, load_study_data(config, data_folder(), cpu), cpu))
    whole, other = measured.curves
    teachers = tuple(point for point in other.teachers if point.epochs < 3)
    broken = replace(other, teachers=teachers, diverged={3: "loss not finite in epoch 3 at learning rate 1"})
    return replace(measured, curves=(whole, broken))


def said(text: Any, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(text)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


# -- the page -------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))


def test_a_page_asks_nothing_of_the_network(found: Survey) -> None:
    tags = Tags()
    tags.feed(page(figure(found)))
    assert {"script", "meta", "h1"} <= {tag for tag, _ in tags.all}
    assert [attributes for _, attributes in tags.all if {"src", "href"} & attributes.keys()] == []
    (policy,) = (a["content"] for tag, a in tags.all if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def figure_of(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The traces and the layout that a page draws."""
    figures, _ = json.JSONDecoder().raw_decode(text, text.index("{", text.index("const figures = ")))
    return figures["light"]["data"], figures["light"]["layout"]


def test_a_page_draws_what_was_measured(found: Survey) -> None:
    text = page(figure(found))
    assert "<h1>digits: the responses of convnet along its training</h1>" in text
    assert "epochs are annealed (a run whose schedule ends there)" in text
    assert "Responses at temperature 4." in text
    assert "Teachers that diverged are missing at batch size 128." in text
    traces, layout = figure_of(text)
    curve = found.curves[0]
    marks = [trace for trace in traces if trace.get("yaxis") == "y3" and trace["mode"] == "markers"]
    assert [trace["x"] for trace in marks] == [[1, 2, 3], [1, 2, 3], [1, 2], [1, 2]]
    for trace, probe in zip(marks[:2], ("train", "validation"), strict=True):
        assert trace["y"] == pytest.approx([p.values["similarity_entropy"] for p in curve.of("teacher", probe)], 1e-4)
    assert [trace["marker"]["color"] == LIGHT.page for trace in marks] == [False, True] * 2
    lines = [trace for trace in traces if trace.get("yaxis") == "y3" and trace["mode"] == "lines"]
    assert [trace["line"]["dash"] for trace in lines] == ["solid", "dash"] * 4
    trunk = next(trace for trace in traces if trace.get("yaxis") == "y" and trace["mode"] == "lines")
    assert trunk["y"] == pytest.approx([p.values["accuracy"] for p in curve.of("trunk", "train")], 1e-4)
    assert [t["name"] for t in traces if t.get("showlegend") is not False] == [
        "training views", "validation", "128", "64"
    ]  # fmt: skip
    titles = [a["text"] for a in layout["annotations"]]
    assert len(titles) == 6
    assert titles[1] == "<b>Softness: non-target mass, 1 − p(y)</b>"
    units = [layout[f"yaxis{i}"]["title"]["text"] for i in ("", 2, 3, 4, 5, 6)]
    assert units == ["fraction", "fraction", "nats", "nats", "nats", "nats"]
    assert {layout[f"xaxis{i}"]["type"] for i in ("", 2, 3, 4, 5, 6)} == {"log"}


def test_a_page_takes_names_as_text(found: Survey) -> None:
    config = found.config.model_copy(
        update={"data": found.config.data.model_copy(update={"dataset": "npz:folder/<script>x"})}
    )
    text = page(figure(replace(found, config=config)))
    assert "<script>x" not in text
    assert "npz:&lt;script&gt;x: the responses" in text


# -- the picture ----------------------------------------------------------------------------------------------------


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_a_picture_decodes_and_has_every_batch_size_in_its_colour(found: Survey) -> None:
    with Image.open(io.BytesIO(picture(figure(found), "png"))) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > 1000
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    counts = [int((pixels == colour).all(axis=1).sum()) for colour in (rgb(LIGHT.colour(0.0)), rgb(LIGHT.colour(1.0)))]
    assert min(counts) > 500


@pytest.mark.parametrize("epochs", [[3], [1, 2, 3]])
def test_one_rung_and_one_batch_size_can_be_drawn(found: Survey, epochs: list[int]) -> None:
    config = tiny_config(search__batch_size=[64], search__epochs=epochs)
    curve = found.curves[0]
    curve = replace(curve, trunk=(), teachers=tuple(p for p in curve.teachers if p.epochs in epochs))
    alone = replace(found, config=config, curves=(curve,))
    _, layout = figure_of(page(figure(alone)))
    assert layout["xaxis"]["tickvals"] == epochs
    low, high = layout["yaxis"]["range"]
    values = [p.values["accuracy"] for p in curve.teachers]
    assert low < min(values) <= max(values) < high
    assert Image.open(io.BytesIO(picture(figure(alone), "png"))).format == "PNG"


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".html", b"<!doctype html>"), (".png", b"\x89PNG\r\n"), (".json", b"{"), (".PNG", b"\x89PNG")],
)
def test_a_file_is_what_its_suffix_says(found: Survey, tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / f"curves{suffix}"
    path.write_bytes(b"older")
    check_output(path)
    assert path.read_bytes() == b"older"
    write(found, path)
    assert path.read_bytes().startswith(begins)
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_are_the_survey_itself(found: Survey, tmp_path: Path) -> None:
    write(found, tmp_path / "curves.json")
    assert json.loads((tmp_path / "curves.json").read_text()) == found.to_dict()


def test_a_file_that_cannot_be_written_leaves_the_older_one(
    found: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curves.json"
    path.write_text("older")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        write(found, path)
    assert [each.name for each in tmp_path.iterdir()] == ["curves.json"]
    assert path.read_text() == "older"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("curves.pdf", "the suffix says what is written: .html, .png, .json"),
        ("curves", "the suffix says what is written"),
        ("none/curves.png", "there is no folder"),
        ("folder.png", "is a folder: name a file in it"),
        ("x" * 300 + ".png", "cannot be written: File name too long"),
        ("file.json/curves.png", "there is no folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.json").touch()
    with pytest.raises(UserError, match=words):
        check_output(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.png", "file.json"}


# -- text -----------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_teacher(found: Survey) -> None:
    lines = said(survey_text(found)).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "digits: the responses of convnet at temperature 4"
    head = next(i for i, line in enumerate(lines) if line.startswith("batch"))
    rows = [line.split() for line in lines[head + 1 : head + 6]]
    assert [row[:2] for row in rows] == [["64", "1"], ["64", "2"], ["64", "3"], ["128", "1"], ["128", "2"]]
    views, validation = (found.curves[0].of("teacher", probe)[2].values for probe in ("train", "validation"))
    assert rows[2][3:] == [
        f"{100 * validation['accuracy']:.2f}",
        f"{views['non_target_mass']:.3f}",
        f"{views['similarity_entropy']:.3f}",
        f"{views['class_information']:.3f}",
        f"{views['image_information']:.3f}",
        f"{views['delivered_similarity']:.3f}",
        f"{validation['similarity_entropy']:.3f}",
    ]
    assert "Batch 128: no teacher of 3 epochs: loss not finite in epoch 3 at learning rate 1." in lines
    assert "10 teacher epochs trained where 12 were asked for" in " ".join(lines)


def test_a_file_stands_for_the_table(found: Survey) -> None:
    text = said(survey_text(found, Path("curves.png")))
    assert text.endswith("wrote curves.png\n")
    assert "S val." not in text
    assert "no teacher of 3 epochs" in text


def test_what_is_searched_of_the_teacher_beside_is_said(found: Survey) -> None:
    config = tiny_config(search__teacher={"model": ["mlp", "convnet"], "lr": {"low": 0.01, "high": 0.1}})
    text = said(survey_text(replace(found, config=config)))
    assert "The study searches teacher.model too: this survey is of convnet alone." in text
    assert "The study searches teacher.lr too: this survey is of 0.05 alone." in text


# -- progress -------------------------------------------------------------------------------------------------------


def progress_of(found: Survey, *, is_terminal: bool, quiet: bool = False) -> str:
    console = Console(width=100, file=io.StringIO(), force_terminal=is_terminal, highlight=False)
    with survey_progress(found.config, console, quiet=quiet) as view:
        view.progress("teacher", Point(64, 3), 1, 1.5)
        view.teacher(Point(64, 1), "a reason", True)
        view.teacher(Point(64, 2), "another", False)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_without_a_terminal_progress_is_a_line_per_teacher_that_was_trained(found: Survey) -> None:
    assert progress_of(found, is_terminal=False) == "1/6  batch 64, 1 epoch: no teacher: a reason\n"


def test_on_a_terminal_it_is_a_bar_of_epochs(found: Survey) -> None:
    drawn = progress_of(found, is_terminal=True)
    assert "/10 epochs" in drawn
    assert "batch 64, 3 epochs: epoch 1, S 1.500" in drawn


def test_quiet_says_nothing(found: Survey) -> None:
    assert progress_of(found, is_terminal=True, quiet=True) == ""
