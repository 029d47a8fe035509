"""Recipes: what identifies a teacher's training, and what does not."""

import json
from typing import Any

import pytest

from sweetspot.config import StudyConfig
from sweetspot.teacher.recipe import Recipe
from sweetspot.training.schedules import WSD

DATA = "d" * 64


def study(**values: Any) -> StudyConfig:
    """A study; values by key, "__" for "."."""
    tables: dict[str, Any] = StudyConfig().model_dump()
    tables["teacher"]["precision"] = "float32"
    for key, value in values.items():
        *path, last = key.split("__")
        table = tables
        for name in path:
            table = table[name]
        table[last] = value
    return StudyConfig.model_validate(tables)


def recipe(batch_size: int = 128, data_hash: str = DATA, **values: Any) -> Recipe:
    return Recipe(study(**values), data_hash, batch_size)


TRAINING = {
    "seed": 1,
    "data__validation": 4000,
    "data__augmentation": ("flip",),
    "teacher__model": "resnet20",
    "teacher__optimizer": {"name": "adamw", "lr": 0.1, "weight_decay": 5e-4},
    "teacher__optimizer__lr": 0.2,
    "teacher__optimizer__momentum": 0.8,
    "teacher__optimizer__nesterov": False,
    "teacher__optimizer__weight_decay": 1e-4,
    "teacher__schedule": {"name": "cosine", "warmup": 1.0},
    "teacher__schedule__decay": 0.3,
    "teacher__schedule__warmup": 0.5,
    "teacher__label_smoothing": 0.1,
    "teacher__precision": "bfloat16",
}
ANYTHING_ELSE = {
    "data__dataset": "npz:/elsewhere/the-same-images.npz",
    "teacher__probe_temperature": 2.0,
    "teacher__lr_rule__cap": 8.0,
    "student__model": "resnet8",
    "student__epochs": 5,
    "student__batch_size": 64,
    "student__temperature": 2.0,
    "student__alpha": 0.5,
    "student__optimizer__lr": 0.01,
    "student__precision": "float32",
    "student__replicates": {"min": 1, "max": 9},
    "search__batch_size": (32, 128),
    "search__epochs": (10, 20, 400),
    "search__trials": 7,
    "search__sampler": "random",
    "search__min_steps": 5,
    "search__student": {"temperature": {"low": 1.0, "high": 8.0}},
    "search__teacher": {"lr": {"low": 0.01, "high": 0.2}},
    "pruner": {"name": "none"},
    "confirm__seeds": 9,
    "confirm__margin": 0.01,
    "run__checkpoint_seconds": 1.0,
    "run__deterministic": True,
    "run__heartbeat_seconds": 1,
    "run__grace_seconds": 600,
}


@pytest.mark.parametrize("key", TRAINING)
def test_whatever_changes_the_training_makes_another_recipe(key: str) -> None:
    assert recipe(**{key: TRAINING[key]}).hash != recipe().hash


@pytest.mark.parametrize("key", ANYTHING_ELSE)
def test_whatever_does_not_change_the_training_leaves_the_recipe(key: str) -> None:
    assert study(**{key: ANYTHING_ELSE[key]}) != study()
    assert recipe(**{key: ANYTHING_ELSE[key]}).hash == recipe().hash


def test_other_images_make_another_recipe() -> None:
    assert recipe(data_hash="e" * 64).hash != recipe().hash


def test_another_batch_size_makes_another_recipe_even_at_the_same_learning_rate() -> None:
    small, large = (recipe(size, teacher__lr_rule__name="none") for size in (128, 256))
    assert small.lr == large.lr
    assert small.hash != large.hash


def test_the_same_learning_rate_by_another_rule_is_the_same_recipe() -> None:
    by_rule = recipe(256)
    assert by_rule.lr == 0.2
    given = recipe(256, teacher__lr_rule__name="none", teacher__optimizer__lr=0.2)
    by_root = recipe(256, teacher__lr_rule={"name": "sqrt", "batch_size": 64}, teacher__optimizer__lr=0.1)
    capped = recipe(256, teacher__lr_rule={"name": "linear", "batch_size": 32, "cap": 2})
    assert by_rule.hash == given.hash == by_root.hash == capped.hash
    assert recipe(128, teacher__lr_rule__name="none").hash == recipe(128).hash
    assert recipe(256, teacher__lr_rule__name="none").hash != by_rule.hash


def test_a_warm_up_that_the_shortest_run_cuts_is_part_of_the_recipe() -> None:
    """The ladder matters only through it."""
    cut = recipe(search__epochs=(5, 20))
    assert cut.schedule == WSD(0.5, 0.2)
    assert cut.hash != recipe().hash
    assert cut.hash == recipe(search__epochs=(5, 80)).hash
    assert cut.hash == recipe(teacher__schedule__warmup=0.5).hash
    assert recipe(search__epochs=(10, 20)).hash == recipe(search__epochs=(20, 40)).hash


def test_the_recipe_is_told_in_canonical_json_with_every_value_resolved() -> None:
    values = json.loads(recipe(256).json)
    assert values.keys() == {
        "format", "data", "model", "optimizer", "schedule", "label_smoothing", "precision", "batch_size", "seed",
    }  # fmt: skip
    assert values["data"] == {"hash": DATA, "validation": 5000, "augmentation": ["crop", "flip"]}
    assert values["optimizer"]["lr"] == 0.2
    assert values["schedule"] == {"name": "wsd", "warmup": 1.0, "decay": 0.2}
    assert recipe(256).json == json.dumps(values, sort_keys=True, separators=(",", ":"))


def test_a_stored_configuration_gives_the_same_recipe() -> None:
    config = study(teacher__optimizer__lr=1 / 3, teacher__label_smoothing=0.1)
    assert Recipe(StudyConfig.from_json(config.to_json()), DATA, 128).hash == Recipe(config, DATA, 128).hash


def test_a_whole_number_is_the_same_as_the_fraction_that_equals_it() -> None:
    assert recipe(teacher__optimizer__lr=1).hash == recipe(teacher__optimizer__lr=1.0).hash
    assert recipe(teacher__schedule__warmup=1).hash == recipe(teacher__schedule__warmup=1.0).hash


def test_a_recipe_has_the_same_hash_on_every_machine() -> None:
    """A change of this number means that the teachers of stored studies are trained again: was it meant?"""
    mine = recipe(
        teacher__model="resnet56",
        teacher__optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        teacher__lr_rule={"name": "linear", "batch_size": 128, "cap": 4},
        teacher__schedule={"name": "wsd", "warmup": 1, "decay": 0.2},
        teacher__label_smoothing=0,
        data__validation=5000,
        data__augmentation=("crop", "flip"),
        search__epochs=(10, 20),
        seed=0,
    )
    assert mine.hash == "669cd160a58be75431c29aa6b736054e23d041ff1254752d853a2f14d39502da"


def test_a_precision_that_is_not_resolved_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is resolved"):
        _ = recipe(teacher__precision="auto").hash
