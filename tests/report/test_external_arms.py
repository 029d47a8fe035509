"""Teachers that were trained elsewhere bear their names wherever a confirmation is told; values made by hand."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console
from tiny_study import tiny_config

from benchmarks.large_study import write_large_study
from report.test_card import about
from sweetspot.report.card import card
from sweetspot.report.exported import comparison
from sweetspot.report.figures.catalogue import FIGURES
from sweetspot.report.figures.spec import Intervals
from sweetspot.report.markdown import escaped
from sweetspot.report.page.contents import Report, read_report
from sweetspot.report.page.evidence import arms
from sweetspot.report.page.html import page
from sweetspot.report.page.markdown import markdown
from sweetspot.report.page.numbers import numbers
from sweetspot.report.text import summary
from sweetspot.report.watch import Look, news
from sweetspot.store import Store
from sweetspot.study.arms import YOURS
from sweetspot.study.inference import Interval
from sweetspot.study.space import ExternalPoint

TEACHERS = {
    YOURS: ExternalPoint("a" * 64, "resnet8", "my <b>best</b> | one", 240),
    f"{YOURS}_2": ExternalPoint("b" * 64, "convnet", "the_other", 1),
}
NAMES = [f"your teacher {teacher.name}" for teacher in TEACHERS.values()]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """With two teachers of somebody's own among the arms."""
    config = tiny_config(search__trials=8, confirm__seeds=2)
    with Store(f"sqlite:///{tmp_path_factory.mktemp('arms')}/study.db") as store:
        write_large_study(store, "s", trials=8, config=config)
        found = read_report(store, "s")
    confirmed = found.result.confirmation
    assert confirmed is not None
    interval = Interval(0.5, 0.05, 9.0)
    changed = replace(
        confirmed,
        plan=replace(confirmed.plan, arms={**confirmed.plan.arms, **TEACHERS}),
        accuracies={**confirmed.accuracies, **{arm: [0.5, 0.5] for arm in TEACHERS}},
        intervals={**confirmed.intervals, **dict.fromkeys(TEACHERS, interval)},
        gains={**confirmed.gains, **dict.fromkeys(TEACHERS, interval)},
    )
    return replace(found, result=replace(found.result, confirmation=changed, plan=changed.plan))


def test_the_summary_names_them(report: Report) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(summary(report.result))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in said for name in NAMES)
    assert "240 epochs" in said


def test_a_report_names_them_with_their_networks(report: Report) -> None:
    assert [(arm.name, arm.point) for arm in arms(report)[-2:]] == list(
        zip(NAMES, ("resnet8, 240 epochs", "convnet, 1 epoch"), strict=True)
    )
    assert all(escaped(name) in markdown(report) for name in NAMES)
    assert "your teacher my &lt;b&gt;best&lt;/b&gt; | one" in page(report)
    told = numbers(report)["arms"]
    assert [told[arm]["point"]["name"] for arm in TEACHERS] == [teacher.name for teacher in TEACHERS.values()]


def test_the_figure_of_the_confirmation_names_them(report: Report) -> None:
    figure = FIGURES["confirm"](report.result)
    assert [tick.label for tick in figure.panels[0].y.ticks][1::-1] == NAMES
    hovers = [layer.hover[0] for layer in figure.panels[0].layers if isinstance(layer, Intervals)]
    assert hovers[0].startswith("your teacher the_other: convnet, 1 epoch\n")


def test_an_export_names_them_with_networks_and_epochs(report: Report) -> None:
    told = list(comparison(report.result))
    best, *_, mine, other = told
    assert [(arm["name"], arm["model"], arm["epochs"]) for arm in (mine, other)] == [
        (teacher.name, teacher.model, teacher.epochs) for teacher in TEACHERS.values()
    ]
    assert (best["name"], best["model"]) == (None, report.result.config.teacher.model)
    said = card(about(comparison=told))
    assert f"| {escaped(NAMES[0])} | resnet8, 240 epochs |" in said
    assert f"| {escaped(NAMES[1])} | convnet, 1 epoch |" in said


def test_watching_names_them(report: Report) -> None:
    after = Look(datetime.now(UTC), report.result, (), dict.fromkeys(TEACHERS, 0.5), False)
    told = [event.text for event in news(replace(after, confirmed={}), after) if event.kind == "arm"]
    assert len(told) == 2
    assert all(text.startswith(f"{name}: test accuracy 50.00 %") for name, text in zip(NAMES, told, strict=True))
