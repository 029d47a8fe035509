"""Errors that are written for the person who can mend them."""

from collections.abc import Iterable
from difflib import get_close_matches


class _OneLineError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UserError(_OneLineError):
    """A mistake that the user can mend: one line that says what was found, what is allowed and what to do.

    The command line prints it as ``error: …`` and exits with status 2.
    """


class RunError(_OneLineError):
    """A run that failed through no mistake in its input: one line; the command line exits with status 1."""


def one_line(text: str) -> str:
    """``text`` as a line that can be printed: lines are joined, and control characters shown by their escapes."""
    joined = " ".join(line.strip() for line in text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in joined)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry: suggests the nearest ones, and lists all that there are."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}known are {', '.join(names)}")
