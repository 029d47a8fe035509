"""What a teacher's response says of each class is kept with the measurement of its snapshot."""

from dataclasses import replace

import numpy as np
import pytest

from sweetspot.store import TRUNK, ClassSimilarity, Leases, Measurement, Snapshot, Store
from sweetspot.store.trajectories import MEASURES, run_of
from sweetspot.store.undelivered import Undelivered, leave, left

RECIPE = "a" * 64
SIMILARITY = ClassSimilarity(
    np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [np.nan] * 3], np.float32), np.array([60, 49, 0], np.int64)
)
MEASURED = Measurement(10, 4.0, "train", True, dict.fromkeys(MEASURES, 0.5), class_similarity=SIMILARITY)


@pytest.fixture(autouse=True)
def _recipe(store: Store) -> None:
    store.trajectories.add_recipe(RECIPE, "{}")


def _is_kept(store: Store, epoch: int = 10, temperature: float = 4.0) -> bool:
    found = store.trajectories.class_similarity(RECIPE, TRUNK, epoch, temperature)
    if found is None:
        return False
    np.testing.assert_array_equal(found.matrix, SIMILARITY.matrix)
    np.testing.assert_array_equal(found.images, SIMILARITY.images)
    return True


def test_it_comes_back_as_it_was_measured(store: Store) -> None:
    store.trajectories.add_measurements(RECIPE, TRUNK, [MEASURED])
    store.trajectories.add_measurements(RECIPE, TRUNK, [MEASURED])
    assert _is_kept(store)
    assert not _is_kept(store, epoch=11)
    assert not _is_kept(store, temperature=2.0)


def test_that_of_a_network_which_is_no_teacher_yet_is_not_kept(store: Store) -> None:
    store.trajectories.add_measurements(RECIPE, TRUNK, [replace(MEASURED, recomputed=False)])
    assert not _is_kept(store)


def test_it_goes_with_its_recipe(store: Store) -> None:
    store.trajectories.add_measurements(RECIPE, TRUNK, [MEASURED])
    store.trajectories.delete_recipe(RECIPE)
    assert not _is_kept(store)


def test_it_is_delivered_with_what_a_worker_has_left_behind(store: Store) -> None:
    run = run_of(RECIPE, TRUNK)
    snapshot = Snapshot(RECIPE, TRUNK, 10, store.artifacts.put(b"weights"))
    leave(store.artifacts, run, Undelivered([(snapshot, [MEASURED])]))
    ((_, work),) = left(store.artifacts, run)
    lease = Leases(store.database, "ann", 60.0).acquire(run)
    assert lease is not None
    ((delivered, measured),) = work.snapshots
    store.trajectories.add(delivered, measured, lease)
    assert _is_kept(store)
