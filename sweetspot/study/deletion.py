"""Deleting a study: its trials, its companions, its pictures, and the networks that nothing else uses."""

from collections.abc import Iterator
from contextlib import suppress

import optuna
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.artifacts.exceptions import ArtifactNotFound

from sweetspot.store import Store, StudyRecord
from sweetspot.study.needs import branches_under_way, used_networks
from sweetspot.study.search import TEST_EXPORTED, companions, load


def delete_study(store: Store, record: StudyRecord) -> None:
    """Remove a study. Teachers and students stay as long as another study may use them."""
    recipes, distillations = used_networks(store, record)
    for other in store.studies.all():
        if other.name != record.name:
            kept_recipes, kept_distillations = used_networks(store, other)
            recipes -= kept_recipes
            distillations -= kept_distillations
    recipes -= {recipe for recipe, _ in branches_under_way(store)}  # sweetspot entropy may be at one
    was_exported = bool(load(store, record.name).user_attrs.get(TEST_EXPORTED))
    for name in (*companions(store, record.name), record.name):
        for artifact in _artifacts(store, name):
            with suppress(ArtifactNotFound, OSError):
                store.artifacts.remove(artifact)
        optuna.delete_study(study_name=name, storage=store.database.storage)
    store.studies.delete(record.name, was_exported=was_exported)
    store.students.delete(sorted(distillations))
    for recipe in sorted(recipes):
        store.trajectories.delete_recipe(recipe)


def _artifacts(store: Store, name: str) -> Iterator[str]:
    """The ids of what was uploaded for a study and its trials: pictures, and whatever people have added."""
    study = load(store, name)
    owners = [store.database.storage.get_study_system_attrs(study._study_id)]
    owners += [trial.system_attrs for trial in study.get_trials(deepcopy=False)]
    for attributes in owners:
        yield from (k.removeprefix(ARTIFACTS_ATTR_PREFIX) for k in attributes if k.startswith(ARTIFACTS_ATTR_PREFIX))
