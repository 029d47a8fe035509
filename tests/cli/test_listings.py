"""``sweetspot studies``, ``datasets`` and ``models``: what is built in, with a line each."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sweetspot.data
import sweetspot.models
from sweetspot.study_file import built_in

LISTINGS = {
    "studies": (list(built_in()), "digits"),
    "datasets": (list(sweetspot.data.names()), "npz:PATH"),
    "models": (list(sweetspot.models.names()), "resnet20"),
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_has_one_line_for_each_name(command: Callable[..., Any], listing: str) -> None:
    names, one_of_them = LISTINGS[listing]
    said = command(listing)
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert one_of_them in names
    assert all(len(line.split()) > 3 for line in lines), "each is described"


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_for_programs_says_the_same(command: Callable[..., Any], listing: str) -> None:
    said = command(listing, "--json")
    assert (said.status, said.err) == (0, "")
    entries = json.loads(said.out)
    lines = [f"{entry['name']} {entry['description']}".split() for entry in entries]
    assert lines == [line.split() for line in command(listing).out.splitlines()]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_needs_no_home(command: Callable[..., Any], listing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", "/dev/null/x")
    assert command(listing).status == 0


def test_a_listing_creates_nothing(command: Callable[..., Any]) -> None:
    for listing in LISTINGS:
        command(listing)
    assert list(Path(os.environ["SWEETSPOT_HOME"]).iterdir()) == []
