"""A study small enough for tests: real digits, real networks, seconds."""

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
    "pruner": {"name": "none"},
}


def tiny_config(**values: object) -> StudyConfig:
    """The digits study, cut down; further values by key, "__" for "."."""
    draft = Draft.read(find("digits"))
    for key, value in {**TINY, **{k.replace("__", "."): v for k, v in values.items()}}.items():
        draft.set(key, value, key)
    return draft.config()
