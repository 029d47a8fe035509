"""Deleting a study: its trials, its companions, and the networks that nothing else uses."""

import optuna

from sweetspot.store import Store, StudyRecord
from sweetspot.study.needs import branches_under_way, used_networks
from sweetspot.study.search import companions


def delete_study(store: Store, record: StudyRecord) -> None:
    """Remove a study. Teachers and students stay as long as another study may use them."""
    recipes, distillations = used_networks(store, record)
    for other in store.studies.all():
        if other.name != record.name:
            kept_recipes, kept_distillations = used_networks(store, other)
            recipes -= kept_recipes
            distillations -= kept_distillations
    recipes -= {recipe for recipe, _ in branches_under_way(store)}  # sweetspot entropy may be at one
    for name in (*companions(store, record.name), record.name):
        optuna.delete_study(study_name=name, storage=store.database.storage)
    store.studies.delete(record.name)
    store.students.delete(sorted(distillations))
    for recipe in sorted(recipes):
        store.trajectories.delete_recipe(recipe)
