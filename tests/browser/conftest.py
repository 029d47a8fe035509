"""A real Chromium, started once, and tabs of it that tell what went wrong in them and what they asked for."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass
class Tab:
    """A page in a browser context of its own.

    Attributes:
        errors: what its console called an error, and exceptions that nothing caught.
        requests: the addresses that it asked for, those of the pages themselves included; ``data:`` and ``blob:`` not.
    """

    page: "Page"
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


OpenTab = Callable[..., Tab]


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """The browser. Without one the tests are skipped, unless ``SWEETSPOT_BROWSER_TESTS=required``."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _cannot("Playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        _cannot("no Chromium was found (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs a user other than root; these pages are ours.
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=["--no-sandbox"])
        yield browser
        browser.close()


def _cannot(why: str) -> NoReturn:
    if os.environ.get("SWEETSPOT_BROWSER_TESTS") == "required":
        pytest.fail(f"SWEETSPOT_BROWSER_TESTS=required, but {why}")
    pytest.skip(f"browser tests: {why}")


@pytest.fixture
def open_tab(chromium: "Browser") -> Iterator[OpenTab]:
    """Opens a tab, closed after the test; arguments are those of Playwright's ``new_context``."""
    contexts = []

    def open_tab(**arguments: Any) -> Tab:
        context = chromium.new_context(**arguments)
        context.set_default_timeout(15_000)
        contexts.append(context)
        tab = Tab(context.new_page())
        tab.page.on("console", lambda said: tab.errors.append(said.text) if said.type == "error" else None)
        tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.page.on("dialog", lambda dialog: (tab.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.page.on("request", lambda asked: _note(tab, asked.url))
        return tab

    yield open_tab
    for context in contexts:
        context.close()


def _note(tab: Tab, url: str) -> None:
    if not url.startswith(("data:", "blob:")):
        tab.requests.append(url)


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """A tab of 1280 by 800, in the light scheme."""
    return open_tab(viewport={"width": 1280, "height": 800}, color_scheme="light")
