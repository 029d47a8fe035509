"""Our part of a note, and what people write about it."""

import pytest

from sweetspot.report.dashboard.note import marked, merged


def test_an_empty_note_becomes_ours_and_is_known_again() -> None:
    first = merged("", "one", is_first=True)
    assert first.startswith("one\n")
    assert merged(first, "two", is_first=False) == marked("two")


def test_what_was_there_before_us_stays_above() -> None:
    assert merged("Ask Ann.\n", "one", is_first=True) == f"Ask Ann.\n\n{marked('one')}"


def test_what_people_write_above_and_below_stays() -> None:
    for old in ("one", "a version long before"):  # which they had opened when it was written again
        theirs = f"Ask *Ann*.\n\n{marked(old)}\nAnd Bob."
        assert merged(theirs, "two", is_first=False) == f"Ask *Ann*.\n\n{marked('two')}\nAnd Bob."


@pytest.mark.parametrize(
    "theirs",
    [
        "mine",
        marked("one").replace("one", "One"),
        marked("one")[:-30],
        marked("one").replace("one", "one more"),
        '[sweetspot]: # "0123456789abcdef 5"\n',
        '[sweetspot]: # "0123456789abcdef 9999999"\n',
    ],
)
def test_a_note_that_somebody_has_changed_is_theirs(theirs: str) -> None:
    assert merged(theirs, "two", is_first=False) == theirs


def test_a_note_that_was_emptied_is_written_again() -> None:
    assert merged(" \n", "two", is_first=False) == marked("two")


def test_any_text_is_known_again() -> None:
    for text in ("", "a" * 50_000, 'x [sweetspot]: # "0123456789abcdef 3"', "naïve — 雪 \ud800"):
        assert merged(marked(text), "two", is_first=False) == marked("two")
