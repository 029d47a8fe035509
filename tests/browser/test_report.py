"""The report in a real browser, opened as people open it: from a file."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.large_study import write_large_study
from browser.conftest import OpenTab, Tab
from sweetspot.report.page.contents import Report, read_report
from sweetspot.report.page.html import page
from sweetspot.store import ClassSimilarity, Store

FIGURES = ["map", "confirm", "tradeoff", "steps", "entropy", "classes", "cost"]
MARKUP = """<img src=x onerror="window.pwned = 1; alert(1)"><script>window.pwned = 1</script>'"`|"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('browser')}/study.db") as store:
        write_large_study(store, "pictures", trials=60)
        found = read_report(store, None)
    matrix = np.full((10, 10), 0.01, np.float32) + np.eye(10, dtype=np.float32)
    return replace(found, similarity=ClassSimilarity(matrix, np.full(10, 90)))


@pytest.fixture(scope="module")
def file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "pictures-report.html"
    path.write_text(page(report), encoding="utf-8")
    return path


@pytest.fixture
def opened(tab: Tab, file: Path) -> Tab:
    tab.page.goto(file.as_uri())
    return tab


def colour(tab: Tab, selector: str, name: str = "color") -> tuple[int, ...]:
    """As red, green and blue; a background that is not painted is that of the page."""
    read = "([s, n]) => getComputedStyle(document.querySelector(s))[n]"
    return tuple(map(int, re.findall(r"\d+", tab.page.evaluate(read, [selector, name]))[:3]))


def column(tab: Tab, table: str, heading: str) -> list[str]:
    """The texts of a column, from above."""
    heads = [text.strip() for text in tab.page.locator(f"#{table} thead th").all_text_contents()]
    return tab.page.locator(f"#{table} tbody td:nth-child({heads.index(heading) + 1})").all_text_contents()


def heading(tab: Tab, table: str, text: str) -> Any:
    return tab.page.locator(f"#{table} thead th").get_by_role("button", name=text, exact=True)


def test_it_opens_from_a_file_without_errors_and_asks_for_nothing_else(opened: Tab, file: Path) -> None:
    assert opened.page.title() == "pictures: convnet teaches mlp on digits"
    assert opened.page.locator(".answer .lead").is_visible()
    assert opened.errors == []
    assert opened.requests == [file.as_uri()]


def test_every_figure_is_drawn(opened: Tab) -> None:
    assert [f.get_attribute("id") for f in opened.page.locator("figure").all()] == [f"figure-{f}" for f in FIGURES]
    for name in FIGURES:
        picture = opened.page.locator(f"#figure-{name} :is(svg, img)").first
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 200
    assert opened.page.evaluate("document.querySelector('#figure-classes img').naturalWidth") > 300
    assert opened.page.locator("#figure-map text", has_text="epochs").first.is_visible()


def test_a_table_sorts_by_its_numbers_in_both_directions_what_is_empty_last(opened: Tab) -> None:
    button = heading(opened, "points", "student %")
    for direction, reverse in (("ascending", False), ("descending", True)):
        button.click()
        values = column(opened, "points", "student %")
        numbers = [float(value) for value in values if value]
        assert 1 < len(numbers) < len(values)
        assert numbers == sorted(numbers, reverse=reverse)
        assert values[len(numbers) :] == [""] * (len(values) - len(numbers))
        sorted_by = opened.page.locator("#points th[aria-sort]")
        assert [th.get_attribute("aria-sort") for th in sorted_by.all()] == [direction]
    heading(opened, "points", "steps").click()
    steps = [int(re.sub(r"\D", "", text)) for text in column(opened, "points", "steps")]
    assert steps == sorted(steps)
    assert steps != sorted(steps, key=str)


def test_a_table_sorts_by_its_words_and_from_the_keyboard(opened: Tab) -> None:
    heading(opened, "trials", "state").focus()
    opened.page.keyboard.press("Enter")
    states = column(opened, "trials", "state")
    assert states == sorted(states)
    assert len(set(states)) == 4
    opened.page.keyboard.press("Space")
    assert column(opened, "trials", "state") == sorted(states, reverse=True)
    assert column(opened, "points", "student %")[0] != ""  # the other table stays as it was


def test_every_column_sorts(opened: Tab) -> None:
    for table in ("points", "trials"):
        buttons = opened.page.locator(f"#{table} thead button")
        assert buttons.count() == opened.page.locator(f"#{table} thead th").count()
        rows = opened.page.locator(f"#{table} tbody tr").count()
        for button in buttons.all():
            button.click()
            assert opened.page.locator(f"#{table} tbody tr").count() == rows
    assert opened.errors == []


def test_without_scripts_everything_is_there_but_sorting(open_tab: OpenTab, file: Path) -> None:
    tab = open_tab(java_script_enabled=False)
    tab.page.goto(file.as_uri())
    assert tab.page.locator("#points tbody tr").count() == 60
    assert tab.page.locator("#figure-map svg").is_visible()
    assert tab.page.locator("th button").count() == 0
    assert tab.errors == []


def test_both_colour_schemes_are_readable_in_text_and_in_figures(opened: Tab) -> None:
    text = "#figure-confirm svg text"
    for which, is_dark in (("light", False), ("dark", True)):
        opened.page.emulate_media(color_scheme=which)  # type: ignore[arg-type]
        behind = sum(colour(opened, "body", "backgroundColor"))
        for selector, name in (("body", "color"), ("td", "color"), (".answer .lead", "color"), (text, "fill")):
            before = sum(colour(opened, selector, name))
            assert (behind < 150 < 450 < before) if is_dark else (before < 300 < 700 < behind), (which, selector)


def test_print_is_light_whole_and_without_what_only_a_screen_can_do(opened: Tab) -> None:
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert colour(opened, "body", "backgroundColor") == (255, 255, 255)
    assert sum(colour(opened, "#figure-confirm svg text", "fill")) < 300
    assert not opened.page.locator("nav").is_visible()
    cut = "s => [...document.querySelectorAll(s)].filter(e => e.scrollHeight > e.clientHeight + 1).length"
    assert opened.page.evaluate(cut, ".scroll") == 0
    assert opened.page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_is_no_wider_than_the_window(open_tab: OpenTab, file: Path, width: int) -> None:
    tab = open_tab(viewport={"width": width, "height": 800})
    tab.page.goto(file.as_uri())
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width


def test_names_with_markup_do_nothing(tab: Tab, report: Report, tmp_path: Path) -> None:
    result = report.result
    config = result.config.model_copy(
        update={"data": result.config.data.model_copy(update={"dataset": f"npz:{MARKUP}"})}
    )
    named = replace(
        result,
        record=replace(result.record, name=MARKUP, config=config),
        classes=tuple(f"{MARKUP}{k}" for k in range(10)),
    )
    path = tmp_path / "report.html"
    path.write_text(page(replace(report, result=named, machine=MARKUP)), encoding="utf-8")
    tab.page.goto(path.as_uri())
    heading(tab, "points", "batch").click()
    assert tab.page.locator("h1").text_content() == f"{MARKUP}: convnet teaches mlp on npz:script>'\"`|"
    assert tab.page.evaluate("window.pwned") is None
    assert (tab.errors, tab.requests) == ([], [path.as_uri()])
