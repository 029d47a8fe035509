"""Markdown in which names from outside mark nothing up, wherever they stand."""

import pytest
from markdown_it import MarkdownIt

from sweetspot.report.markdown import code, escaped, fenced

HOSTILE = (
    "*a* _b_ `c` ~~d~~ **e** [f](g) ![h](i)",
    "<img src=x onerror=alert(1)> </code></pre> <!-- &lt;",
    "a|b\n\n# c\n---\n\x00d",
    "\\",
    "- a",
    "1. a",
    "===",
    "---",
    "+",
    "```\n~~~ ````",
    "$x$ $$y$$ {{ 7*7 }}",
    "[sweetspot]: # 'x'",
    "94.12",
    "+3.00 points",
)
PLACES = ("{}", "# {}", "- {}", "**Lead.** {}", "Text.\n{}", "| a | {} |\n|---|---|\n| {} | b |", "> {}")


def shown(markdown: str) -> tuple[list[str], str]:
    """The tags of a text, and what is to be read in it."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tags, texts = [], []
    for token in parser.parse(markdown):
        for each in [token, *(token.children or [])]:
            tags += [each.tag] * (each.nesting >= 0 and bool(each.tag)) + ["html"] * each.type.startswith("html")
            texts += [each.content] if each.type in ("text", "code_inline", "fence", "text_special") else []
    return tags, " ".join(texts)


def flat(text: str) -> str:
    return "".join(text.replace("\x00", " ").split())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_shown_as_it_is_on_one_line_wherever_it_stands(text: str, place: str) -> None:
    tags, read = shown(place.replace("{}", escaped(text)))
    assert tags == shown(place.replace("{}", "x"))[0]
    assert flat(text) in flat(read)


@pytest.mark.parametrize("text", [*HOSTILE, "", " ", "`", "``", "`a", "a`b", "http://a.example www.a.example"])
def test_nothing_ends_a_span_or_a_block_of_code(text: str) -> None:
    assert shown(f"# {code(text)}")[0] == ["h1", "code"]
    assert flat(text) == flat(shown(code(text))[1])
    assert shown(fenced(text, "toml"))[0] == ["code"]
    assert flat(text) == flat(shown(fenced(text, "toml"))[1].replace("\ufffd", ""))


@pytest.mark.parametrize("address", ["http://a.example", "HTTPS://a.example", "www.a.example", "ann@a.example"])
def test_addresses_in_escaped_text_are_no_links(address: str) -> None:
    assert address not in shown(escaped(address))[1]
    assert address == escaped(address).replace("\u2060", "").replace("\\", "")


def test_numbers_are_left_as_they_are() -> None:
    assert escaped("94.12 (95 % interval 93.1 to 95.1), +3.00 points: 1,200 - 3") == (
        "94.12 (95 % interval 93.1 to 95.1), +3.00 points: 1,200 - 3"
    )


def test_characters_that_are_not_seen_turn_nothing_around() -> None:
    assert escaped("a\u202eb\u2028c\x1b[0m") == "ab c \\[0m"
