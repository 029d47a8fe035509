"""Markdown in which no text from outside marks anything up: names, errors, paths."""

import re
import unicodedata

_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!$]")
_BLOCK = re.compile(r"^(\d{1,9})(?=[.)](?: |$))|^(?=[-+](?: |$)|-+$|=+$)")
"""What begins a list, is a rule, or underlines a heading."""
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)


def escaped(text: object) -> str:
    """Text that is shown as it is, on one line, wherever it stands, in a table too: no markup, HTML, formula or link.

    Unseen word joiners stand in addresses.
    """
    # GitHub's Markdown makes links of addresses, escaped or not, unless something unseen stands within.
    unlinked = _ADDRESS.sub("\u2060", plain(text))
    return _BLOCK.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", unlinked))


def code(text: object) -> str:
    """Text as a span of code, in which nothing is interpreted. Not for tables: a "|" would end the cell."""
    line = plain(text) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def fenced(text: str, language: str) -> str:
    """Lines as a block of code that nothing in them ends."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def plain(text: object) -> str:
    """One line without characters that control anything."""
    spaced = "".join(_space(c) for c in str(text))
    return re.sub(" +", " ", spaced).strip(" ")


def _space(character: str) -> str:
    category = unicodedata.category(character)
    return "" if category == "Cf" else " " if category in ("Cc", "Cs", "Zl", "Zp") else character
