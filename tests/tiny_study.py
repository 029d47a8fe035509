"""A study small enough for tests: real digits, real networks, seconds."""

import json
from typing import Any

from sweetspot.config import StudyConfig
from sweetspot.study_file import Draft, find

TINY = {
    "search.batch_size": [64, 128],
    "search.epochs": [1, 2, 3],
    "search.trials": 4,
    "search.min_steps": 0,
    "student.epochs": 2,
    "student.replicates": {"min": 2, "max": 2},
    "confirm.seeds": 2,
    "confirm.arms": ["student_alone", "most_accurate_teacher", "longest_teacher", "your_teacher"],
    "pruner": {"name": "none"},
}


def tiny_config(**values: object) -> StudyConfig:
    """The digits study, cut down; further values by key, "__" for "."."""
    draft = Draft.read(find("digits"))
    for key, value in {**TINY, **{k.replace("__", "."): v for k, v in values.items()}}.items():
        draft.set(key, value, key)
    return draft.config()


def toml_settings(**values: Any) -> list[str]:
    """The options that make the digits study this small on a command line; further values by key, "__" for "."."""
    settings = {**TINY, **{key.replace("__", "."): value for key, value in values.items()}}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={_toml(value)}")]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)
