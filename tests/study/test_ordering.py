"""Which points would wait, seen through real leases, snapshots and trials."""

from typing import Any

import pytest
from tiny_study import tiny_config

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Leases, Snapshot, Store
from sweetspot.store.trajectories import run_of
from sweetspot.study.ordering import Ordering
from sweetspot.study.space import Point
from sweetspot.study.visit import recipe_at

DATA = "d" * 64
WSD = {"name": "wsd", "warmup": 0, "decay": 0.25}


def config(**teacher: Any) -> StudyConfig:
    values = {f"teacher__{key}": value for key, value in teacher.items()}
    return tiny_config(search__batch_size=[64, 128], search__epochs=[4, 8, 16], **values)


class Other:
    """Another worker: takes leases, and adds snapshots."""

    def __init__(self, store: Store, config: StudyConfig) -> None:
        self.leases = Leases(store.database, "other", expiry=60)
        self._database = store.database
        self._store = store.trajectories
        self._config = config

    def recipe(self, batch_size: int) -> str:
        recipe = recipe_at(self._config, DATA, Point(batch_size, 4))
        self._store.add_recipe(recipe.hash, recipe.json)
        return recipe.hash

    def lease(self, batch_size: int, branch: int = TRUNK) -> None:
        assert self.leases.acquire(run_of(self.recipe(batch_size), branch)) is not None

    def has(self, batch_size: int, *epochs: int, branch: int = TRUNK) -> None:
        name = run_of(self.recipe(batch_size), branch)
        with Leases(self._database, "somebody", 60).acquire(f"{name}/past") as lease:  # type: ignore[union-attr]
            for epoch in epochs:
                weights = self._store.artifacts.put(f"{batch_size} {branch} {epoch}".encode())
                self._store.add(Snapshot(self.recipe(batch_size), branch, epoch, weights), [], lease)


@pytest.fixture
def constant() -> StudyConfig:
    return config()


def waiting(store: Store, config: StudyConfig, *running: Point) -> set[tuple[int, int]]:
    """The points, as (batch size, epochs), that must wait."""
    ordering = Ordering(config, DATA, store.trajectories, Leases(store.database, "me", expiry=60))
    points = [Point(b, e) for b in config.search.batch_size for e in config.search.ladder]
    return {(p.batch_size, p.epochs) for p in points if ordering.must_wait(p, running)}


def test_nothing_waits_where_nobody_works(store: Store, constant: StudyConfig) -> None:
    Other(store, constant).has(64, 4)
    assert waiting(store, constant) == set()


def test_what_is_there_does_not_wait_and_what_lies_further_on_does(store: Store, constant: StudyConfig) -> None:
    other = Other(store, constant)
    other.has(64, 4, 8)
    other.lease(64)
    assert waiting(store, constant) == {(64, 16)}


def test_own_leases_and_those_of_the_dead_hinder_nobody(store: Store, constant: StudyConfig) -> None:
    other = Other(store, constant)
    other.lease(64)
    for leases in (other.leases, Leases(store.database, "me", 60, is_dead=lambda owner: owner == "other")):
        ordering = Ordering(constant, DATA, store.trajectories, leases)
        assert not ordering.must_wait(Point(64, 16), [])


def test_a_trial_that_is_about_to_take_the_lease_counts(store: Store, constant: StudyConfig) -> None:
    """Between its claim and its lease nobody holds the trajectory."""
    assert waiting(store, constant, Point(64, 8)) == {(64, 4), (64, 8), (64, 16)}


def test_a_trial_that_is_at_its_students_hinders_nobody(store: Store, constant: StudyConfig) -> None:
    Other(store, constant).has(64, 4, 8)
    assert waiting(store, constant, Point(64, 8)) == set()


def test_with_wsd_a_branch_hinders_nobody_else_and_the_trunk_those_that_lack_their_branch_point(store: Store) -> None:
    """Branches of 4, 8 and 16 epochs hang from the trunk at 3, 6 and 12."""
    wsd = config(schedule=WSD)
    other = Other(store, wsd)
    other.has(64, 3, 6)
    other.lease(64, branch=8)
    assert waiting(store, wsd) == {(64, 8)}
    other.lease(64)
    assert waiting(store, wsd) == {(64, 8), (64, 16)}
    other.has(64, 4, branch=4)
    assert waiting(store, wsd, Point(128, 4)) == {(64, 8), (64, 16), (128, 4), (128, 8), (128, 16)}


def test_with_cosine_every_length_is_a_run_of_its_own(store: Store) -> None:
    cosine = config(schedule={"name": "cosine"})
    Other(store, cosine).lease(64, branch=8)
    assert waiting(store, cosine, Point(128, 4)) == {(64, 8), (128, 4)}
