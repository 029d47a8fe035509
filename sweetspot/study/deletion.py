"""Deleting a study: its trials, its companions, and the networks that nothing else uses."""

import optuna
from optuna.trial import FrozenTrial

from sweetspot.store import Store, StudyRecord
from sweetspot.study.confirmation import current_plan
from sweetspot.study.search import companions, load
from sweetspot.study.space import Point
from sweetspot.study.visit import distillation_at, recipe_at


def delete_study(store: Store, record: StudyRecord) -> None:
    """Remove a study. Teachers and students stay as long as another study may use them."""
    recipes, distillations = _owned(store, record)
    for other in store.studies.all():
        if other.name != record.name:
            kept_recipes, kept_distillations = _owned(store, other)
            recipes -= kept_recipes
            distillations -= kept_distillations
    for name in (*companions(store, record.name), record.name):
        optuna.delete_study(study_name=name, storage=store.database.storage)
    store.studies.delete(record.name)
    store.students.delete(sorted(distillations))
    for recipe in sorted(recipes):
        store.trajectories.delete_recipe(recipe)


def _owned(store: Store, record: StudyRecord) -> tuple[set[str], set[str]]:
    """The hashes of the recipes and distillations that a study has touched."""
    points: set[Point | None] = {None}
    trials: list[FrozenTrial] = load(store, record.name).get_trials(deepcopy=False)
    points |= {Point.of(t.params) for t in trials if {"batch_size", "epochs"} <= t.params.keys()}
    if (plan := current_plan(store, record.name)) is not None:
        points |= set(plan.points.values())
    recipes = {recipe_at(record.config, record.data_hash, point).hash for point in points if point is not None}
    return recipes, {distillation_at(record.config, record.data_hash, point).hash for point in points}
