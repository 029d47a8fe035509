"""Markdown in which names from outside mark nothing up."""

import pytest

from sweetspot.report.notes import code, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("*a* _b_ `c` [d](e)", r"\*a\* \_b\_ \`c\` \[d\]\(e\)"),
        ("<img src=x onerror=alert(1)>", r"\<img src\=x onerror\=alert\(1\)\>"),
        ("a|b\n# c\x00\u202e", r"a\|b \# c"),
        ("\\", r"\\"),
    ],
)
def test_escaped_text_is_shown_as_it_is_on_one_line(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize("address", ["http://a.example", "HTTPS://a.example", "www.a.example", "ann@a.example"])
def test_addresses_in_escaped_text_are_no_links(address: str) -> None:
    assert address not in escaped(address).replace("\\", "")


@pytest.mark.parametrize(
    ("text", "span"),
    [("a*b", "`a*b`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("``x", "``` ``x ```"), ("", "` `"), ("a\nb", "`a b`")],
)
def test_code_is_closed_by_nothing_in_it(text: str, span: str) -> None:
    assert code(text) == span


def test_very_long_texts_are_cut() -> None:
    assert len(escaped("x" * 10_000)) == 2000
