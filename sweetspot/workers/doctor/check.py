"""Check: one thing that was looked at, and what is to be done where it is not as it should be."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

from sweetspot.errors import UserError, one_line

State = Literal["ok", "advice", "wrong"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing.

    Attributes:
        state: "advice": it works, and could be better; "wrong": something will not work.
        found: in one line.
        advice: what to do, in one line; None where it is ok.
    """

    name: str
    state: State
    found: str
    advice: str | None = None

    def __post_init__(self) -> None:
        for field in ("found", "advice"):  # file names and other programs' errors are in them
            if (text := getattr(self, field)) is not None:
                object.__setattr__(self, field, one_line(text))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "state": self.state, "found": self.found, "advice": self.advice}


def looked_at(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What ``look()`` finds; where it fails, that. One look never hides another."""
    try:
        yield from look()
    except UserError as error:
        yield Check(name, "wrong", "it cannot be used as asked", str(error))
    except Exception as error:
        yield Check(name, "wrong", f"looking at it failed: {in_words(error)}", f"mend this first: {name}")


def in_words(error: BaseException) -> str:
    """An error in one line."""
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@cache
def import_error(module: str) -> str | None:
    """Why a module cannot be imported, from the first time that it was tried; None if it can.

    Builds that do not fit together raise whatever they like, not only ImportError.
    """
    try:
        import_module(module)
    except Exception as error:
        return in_words(error)
    return None
