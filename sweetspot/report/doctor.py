"""What the doctor found, as text for people."""

from collections.abc import Sequence
from typing import Literal, Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "advice": "yellow", "wrong": "bold red"}


class Found(Protocol):
    """What was found of one thing, and what to do about it: :class:`sweetspot.workers.doctor.Check`."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> Literal["ok", "advice", "wrong"]: ...

    @property
    def found(self) -> str: ...

    @property
    def advice(self) -> str | None: ...


def checks_text(checks: Sequence[Found]) -> RenderableType:
    """One row for each check, what to do under what was found; fits 80 columns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        found = Text(check.found)
        if check.advice is not None:
            found.append(f"\n-> {check.advice}")
        table.add_row(Text(check.state, _STYLES[check.state]), Text(check.name), found)
    return Group(table, Text(), Text(_conclusion(checks), "bold"))


def _conclusion(checks: Sequence[Found]) -> str:
    wrong = [check.name for check in checks if check.state == "wrong"]
    if wrong:
        return f"{len(wrong)} of {len(checks)} checks found something wrong: {', '.join(wrong)}"
    return "Nothing is wrong."
