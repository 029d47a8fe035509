from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from sweetspot.store import TRUNK, DamagedBlobError, Lease, Leases, LostLeaseError, Measurement, Probe, Snapshot, Store
from sweetspot.store.schema import EpochRow, LeaseRow, RecipeRow, SnapshotRow
from sweetspot.store.trajectories import MEASURES

RECIPE = "a" * 64
OTHER = "b" * 64


@pytest.fixture(autouse=True)
def _recipes(store: Store) -> None:
    store.trajectories.add_recipe(RECIPE, '{"model":"plain"}')
    store.trajectories.add_recipe(OTHER, '{"model":"other"}')


@pytest.fixture
def lease(store: Store) -> Lease:
    lease = Leases(store.database, "ann", 60.0).acquire("branch")
    assert lease is not None
    return lease


def _snapshot(
    store: Store, epoch: int, *, recipe: str = RECIPE, branch: int = TRUNK, resume_only: bool = False, text: str = ""
) -> Snapshot:
    """A snapshot whose blobs are there."""
    text = text or f"{recipe}-{branch}-{epoch}"
    weights, optimizer = (store.artifacts.put(f"{kind} {text}".encode()) for kind in ("weights", "optimizer"))
    return Snapshot(recipe, branch, epoch, weights, optimizer, resume_only)


def _measurement(epoch: int = 1, temperature: float = 4.0, probe: Probe = "train", base: float = 0.0) -> Measurement:
    values = {name: base + i / 7 for i, name in enumerate(MEASURES)}
    return Measurement(epoch, temperature, probe, True, values, train_loss=1 / 3, seconds=0.1)


def _is_there(store: Store, name: str | None) -> bool:
    try:
        store.artifacts.get(str(name))
    except DamagedBlobError:
        return False
    return True


# -- recipes and snapshots --------------------------------------------------------------------------------------------


def test_a_recipe_is_added_once(store: Store) -> None:
    store.trajectories.add_recipe(RECIPE, '{"model":"plain"}')
    with store.database.session() as session:
        assert session.scalar(select(RecipeRow.json).where(RecipeRow.hash == RECIPE)) == '{"model":"plain"}'


def test_a_snapshot_comes_back_as_it_was_recorded(store: Store, lease: Lease, open_store: Callable[[], Store]) -> None:
    snapshot = _snapshot(store, 10)
    store.trajectories.add(snapshot, [], lease)
    elsewhere = open_store()
    assert elsewhere.trajectories.snapshot(RECIPE, TRUNK, 10) == snapshot
    assert elsewhere.artifacts.get(snapshot.weights) == f"weights {RECIPE}-0-10".encode()
    assert elsewhere.trajectories.snapshot(RECIPE, TRUNK, 11) is None


def test_snapshots_come_by_rising_epoch_and_branches_apart(store: Store, lease: Lease) -> None:
    for epoch in (20, 10, 30):
        store.trajectories.add(_snapshot(store, epoch), [], lease)
    ended = replace(_snapshot(store, 40, branch=40), optimizer=None)
    store.trajectories.add(ended, [], lease)
    store.trajectories.add(_snapshot(store, 10, recipe=OTHER), [], lease)
    assert [s.epoch for s in store.trajectories.snapshots(RECIPE, TRUNK)] == [10, 20, 30]
    assert store.trajectories.snapshots(RECIPE, 40) == [ended]
    assert [s.epoch for s in store.trajectories.snapshots(OTHER, TRUNK)] == [10]


def test_a_late_writer_records_neither_snapshot_nor_measurements_and_removes_nothing(
    store: Store, lease: Lease
) -> None:
    point = _snapshot(store, 10, resume_only=True)
    store.trajectories.add(point, [], lease)
    with store.database.session.begin() as session:
        session.execute(update(LeaseRow).values(owner="bob", token=LeaseRow.token + 1))
    with pytest.raises(LostLeaseError):
        store.trajectories.add(_snapshot(store, 20), [_measurement(20)], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [point]
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0) == {}
    assert _is_there(store, point.weights)


# -- points to resume from --------------------------------------------------------------------------------------------


def test_a_point_to_resume_from_goes_with_its_blobs_when_a_later_snapshot_lands(store: Store, lease: Lease) -> None:
    rung, point, later = _snapshot(store, 10), _snapshot(store, 15, resume_only=True), _snapshot(store, 20)
    for snapshot in (rung, point):
        store.trajectories.add(snapshot, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [rung, point]
    store.trajectories.add(later, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [rung, later]
    assert [_is_there(store, name) for name in (rung.weights, rung.optimizer)] == [True, True]
    assert [_is_there(store, name) for name in (point.weights, point.optimizer)] == [False, False]
    assert [_is_there(store, name) for name in (later.weights, later.optimizer)] == [True, True]


def test_one_point_to_resume_from_replaces_another(store: Store, lease: Lease) -> None:
    for epoch in (3, 4, 5):
        store.trajectories.add(_snapshot(store, epoch, resume_only=True), [], lease)
    assert [s.epoch for s in store.trajectories.snapshots(RECIPE, TRUNK)] == [5]


def test_points_of_other_branches_and_recipes_stay(store: Store, lease: Lease) -> None:
    kept = [_snapshot(store, 5, branch=40, resume_only=True), _snapshot(store, 5, recipe=OTHER, resume_only=True)]
    for snapshot in kept:
        store.trajectories.add(snapshot, [], lease)
    store.trajectories.add(_snapshot(store, 20), [], lease)
    assert store.trajectories.snapshots(RECIPE, 40) == kept[:1]
    assert store.trajectories.snapshots(OTHER, TRUNK) == kept[1:]
    assert all(_is_there(store, s.weights) for s in kept)


def test_a_point_ahead_of_a_snapshot_stays(store: Store, lease: Lease) -> None:
    ahead = _snapshot(store, 30, resume_only=True)
    store.trajectories.add(ahead, [], lease)
    store.trajectories.add(_snapshot(store, 20), [], lease)
    assert ahead in store.trajectories.snapshots(RECIPE, TRUNK)


def test_a_blob_that_is_used_elsewhere_outlives_the_point(store: Store, lease: Lease) -> None:
    point = _snapshot(store, 5, resume_only=True, text="shared")
    same = _snapshot(store, 5, recipe=OTHER, text="shared")
    assert same.weights == point.weights
    store.trajectories.add(point, [], lease)
    store.trajectories.add(same, [], lease)
    store.trajectories.add(_snapshot(store, 20), [], lease)
    assert _is_there(store, same.weights)
    assert _is_there(store, same.optimizer)


def test_a_point_becomes_a_rung_without_losing_its_blobs(store: Store, lease: Lease) -> None:
    point = _snapshot(store, 10, resume_only=True)
    store.trajectories.add(point, [], lease)
    rung = replace(point, resume_only=False)
    store.trajectories.add(rung, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [rung]
    assert _is_there(store, rung.weights)
    assert _is_there(store, rung.optimizer)


def test_a_snapshot_that_is_made_again_replaces_the_old_one_and_its_blobs(store: Store, lease: Lease) -> None:
    old, new = _snapshot(store, 10, text="one machine"), _snapshot(store, 10, text="another machine")
    store.trajectories.add(old, [], lease)
    store.trajectories.add(new, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [new]
    assert not _is_there(store, old.weights)
    assert _is_there(store, new.weights)


# -- measurements -----------------------------------------------------------------------------------------------------


def test_measurements_come_back_to_the_last_bit(store: Store, lease: Lease) -> None:
    train, validation = _measurement(10, 0.1, "train"), _measurement(10, 0.1, "validation", base=1e-17)
    store.trajectories.add(_snapshot(store, 10), [train, validation], lease)
    found = store.trajectories.measurements(RECIPE, TRUNK, 0.1)
    assert found == {(10, "train"): train, (10, "validation"): validation}


def test_measurements_are_told_apart_by_recipe_branch_epoch_temperature_and_probe(store: Store) -> None:
    keys: list[tuple[str, int, int, float, Probe]] = [
        (RECIPE, TRUNK, 1, 4.0, "train"),
        (OTHER, TRUNK, 1, 4.0, "train"),
        (RECIPE, 40, 1, 4.0, "train"),
        (RECIPE, TRUNK, 2, 4.0, "train"),
        (RECIPE, TRUNK, 1, 1.0, "train"),
        (RECIPE, TRUNK, 1, 4.0, "validation"),
    ]
    for number, (recipe, branch, epoch, temperature, probe) in enumerate(keys):
        measured = _measurement(epoch, temperature, probe, base=number)
        store.trajectories.add_measurements(recipe, branch, [measured])
    for number, (recipe, branch, epoch, temperature, probe) in enumerate(keys):
        found = store.trajectories.measurements(recipe, branch, temperature)[epoch, probe]
        assert found.values[MEASURES[0]] == number


def test_measuring_again_replaces_what_was_measured(store: Store) -> None:
    store.trajectories.add_measurements(RECIPE, TRUNK, [replace(_measurement(), recomputed=False)])
    again = replace(_measurement(base=1.0), train_loss=None, seconds=None)
    store.trajectories.add_measurements(RECIPE, TRUNK, [again])
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0) == {(1, "train"): again}


def test_two_workers_may_measure_the_same_snapshot_at_the_same_moment(
    store: Store, open_store: Callable[[], Store]
) -> None:
    other = open_store()
    ours = [_measurement(1), _measurement(2)]

    theirs = [_measurement(1, base=5.0)]

    def other_is_faster(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO sweetspot_epoch" in statement and theirs:
            other.trajectories.add_measurements(RECIPE, TRUNK, [theirs.pop()])

    event.listen(store.database.engine, "before_cursor_execute", other_is_faster)
    store.trajectories.add_measurements(RECIPE, TRUNK, ours)
    assert list(store.trajectories.measurements(RECIPE, TRUNK, 4.0).values()) == ours


def test_an_incomplete_measurement_is_refused_whole(store: Store) -> None:
    incomplete = replace(_measurement(2), values={"accuracy": 0.5})
    with pytest.raises(KeyError):
        store.trajectories.add_measurements(RECIPE, TRUNK, [_measurement(1), incomplete])
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0) == {}


# -- removal ----------------------------------------------------------------------------------------------------------


def test_a_dropped_snapshot_is_forgotten_and_its_measurements_stay(store: Store, lease: Lease) -> None:
    damaged, other = _snapshot(store, 10), _snapshot(store, 20)
    store.trajectories.add(damaged, [_measurement(10)], lease)
    store.trajectories.add(other, [], lease)
    store.trajectories.drop(damaged)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [other]
    assert (10, "train") in store.trajectories.measurements(RECIPE, TRUNK, 4.0)


def test_a_snapshot_that_was_made_anew_is_not_dropped_for_the_old_ones_damage(store: Store, lease: Lease) -> None:
    damaged, anew = _snapshot(store, 10, text="damaged"), _snapshot(store, 10, text="anew")
    store.trajectories.add(anew, [], lease)
    store.trajectories.drop(damaged)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [anew]


def test_deleting_a_recipe_removes_all_that_hangs_on_it_and_nothing_else(store: Store, lease: Lease) -> None:
    gone = [_snapshot(store, 10), _snapshot(store, 40, branch=40)]
    shared = _snapshot(store, 20, text="shared")
    kept = _snapshot(store, 20, recipe=OTHER, text="shared")
    for snapshot in (*gone, shared, kept):
        store.trajectories.add(snapshot, [_measurement(snapshot.epoch)], lease)
    store.trajectories.delete_recipe(RECIPE)
    with store.database.session() as session:
        for table in (RecipeRow.hash, SnapshotRow.recipe, EpochRow.recipe):
            assert session.scalars(select(table)).all() == [OTHER]
        assert session.scalar(select(func.count()).select_from(LeaseRow)) == 1
    assert not any(_is_there(store, name) for s in gone for name in (s.weights, s.optimizer))
    assert _is_there(store, kept.weights)
    store.trajectories.delete_recipe(RECIPE)
