"""The dashboard of a finished digits study, as a browser shows it."""

import re
from collections.abc import Iterator

import bcrypt
import pytest
import torch
from report.dashboard.conftest import Site, serving
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.report.dashboard.contents import FIGURE_NAMES, figure_id
from sweetspot.report.dashboard.trials import CURVES, SIMILARITY
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import create_or_continue
from sweetspot.workers.worker import work

from .conftest import OpenTab, Tab

USER, PASSWORD = "ann", "correct horse battery"
NAME = "<img src=x onerror=alert(1)> *tiny* $x^2$"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The dashboard, for users who may only read, of a study that a worker has brought to its end."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/study.db"
    networks = {"teacher__model": "mlp", "student__model": "mlp-8"}
    config = tiny_config(search__batch_size=[64], search__epochs=[1, 2], search__trials=2, **networks)
    with Store(url) as store:
        create_or_continue(store, NAME, config, load_study_data(config, data_folder(), torch.device("cpu")))
        work(NAME, storage=url, device="cpu")
        with serving(store, users={USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))}, read_only=True) as site:
            yield site


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """Of somebody who knows the password."""
    known = {"username": USER, "password": PASSWORD}
    return open_tab(viewport={"width": 1280, "height": 800}, http_credentials=known)


def study(site: Site, page: str = "") -> str:
    return f"http://127.0.0.1:{site.port}/dashboard/studies/1{page}"


def test_the_studys_page_shows_its_figures_in_order_and_across_the_page(site: Site, tab: Tab) -> None:
    tab.page.goto(study(site))
    places = []
    for name in FIGURE_NAMES:
        figure = tab.page.locator(f'[id="user-defined-plot:{figure_id(name)}"]')
        assert figure.locator(".gtitle").first.text_content().startswith(f"{NAME} (")  # type: ignore[union-attr]
        box = figure.locator(".main-svg").first.bounding_box()
        assert box is not None
        assert box["width"] > 900
        assert box["height"] > 500
        places.append(box["y"])
    assert places == sorted(places)
    map_ = tab.page.locator(f'[id="user-defined-plot:{figure_id("map")}"]')
    assert map_.locator(".heatmaplayer image").count() == 1
    assert "n = 2" in (map_.text_content() or "")
    arms = tab.page.locator(f'[id="user-defined-plot:{figure_id("confirm")}"]')
    assert "no teacher" in (arms.text_content() or "")
    assert tab.errors == []


def test_the_studys_note_is_shown_and_its_name_marks_nothing_up(site: Site, tab: Tab) -> None:
    tab.page.goto(study(site, "/note"))
    heading = tab.page.get_by_role("heading", level=2)
    heading.wait_for()
    assert heading.inner_text() == NAME
    assert heading.is_visible()
    said = tab.page.locator("body").inner_text()
    for words in ("What is searched. How long", "Best so far. batch 64", "2 of 2 trials have finished", "Written 2"):
        assert words in said
    assert f"sweetspot worker --name '{NAME}' --storage sqlite:///" in said
    assert "[sweetspot]" not in said
    assert tab.page.locator("img[src=x]").count() == 0
    assert tab.errors == []


def test_a_trials_page_shows_its_numbers_and_its_artifacts_as_images(site: Site, tab: Tab) -> None:
    tab.page.goto(study(site, "/trials?numbers=1"))
    tab.page.get_by_role("heading", level=3).wait_for()
    said = tab.page.locator("body").inner_text()
    for words in ("S, similarity entropy", "nats at T = 4", "teacher accuracy", "each student", "trained, 1 reused"):
        assert words in said
    for words in (CURVES, SIMILARITY, "class-similarity.png", "students.png"):
        shown = tab.page.get_by_text(words, exact=True)
        shown.first.scroll_into_view_if_needed()
        assert shown.first.is_visible()
    images = tab.page.locator('img[src^="/artifacts/"]')
    assert images.count() == 4  # two in the note, and the artifacts themselves
    for image in images.all():
        image.scroll_into_view_if_needed()
        assert image.is_visible()
        tab.page.wait_for_function("image => image.complete && image.naturalWidth > 200", arg=image.element_handle())
    assert tab.errors == []


def test_the_dashboard_asks_nobody_else(site: Site, tab: Tab) -> None:
    tab.page.goto(study(site))
    tab.page.locator(".js-plotly-plot").first.wait_for()
    assert all(re.match(rf"http://127\.0\.0\.1:{site.port}/", url) for url in tab.requests)
