"""What commands print: JSON for programs, text for people."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=_plain)
    print()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def print_rich(text: "RenderableType") -> None:
    from rich.console import Console

    # A pipe has no width: tables get room, and text is left in whole lines.
    is_terminal = sys.stdout.isatty()
    Console(width=None if is_terminal else 200, soft_wrap=not is_terminal, highlight=False).print(text)
