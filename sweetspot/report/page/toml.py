"""A study's configuration as a study file."""

import json
from collections.abc import Iterator
from typing import Any

import tomli_w

from sweetspot.config import StudyConfig


def study_file(config: StudyConfig) -> str:
    """TOML that ``--study`` takes for the same configuration, every value in it."""
    values = _given(json.loads(config.model_dump_json()))
    return "\n".join(_short_lists(tomli_w.dumps(values).splitlines())) + "\n"


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """Without what is None, which TOML cannot say and the defaults are, and the tables that this leaves empty."""
    found = {key: _given(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in found.items() if value not in (None, {})}


def _short_lists(lines: list[str]) -> Iterator[str]:
    """Each list on one line: the writer puts one value on each, and no value of its contains a line break."""
    items: list[str] | None = None
    start = ""
    for line in lines:
        if items is not None and line == "]":
            yield start + ", ".join(items) + "]"
            items = None
        elif items is not None:
            items.append(line.strip().removesuffix(","))
        elif line.endswith(" = ["):
            items, start = [], line
        else:
            yield line
