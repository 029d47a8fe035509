from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from sweetspot.store import TRUNK, DamagedBlobError, Lease, Leases, LostLeaseError, Measurement, Probe, Snapshot, Store
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.schema import EpochRow, LeaseRow, RecipeRow, SnapshotRow
from sweetspot.store.trajectories import MEASURES, run_of

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
    store: Store, epoch: int, *, recipe: str = RECIPE, branch: int = TRUNK, is_branch_point: bool = True, text: str = ""
) -> Snapshot:
    """A snapshot whose blobs are there."""
    text = text or f"{recipe}-{branch}-{epoch}"
    weights, optimizer = (store.artifacts.put(f"{kind} {text}".encode()) for kind in ("weights", "optimizer"))
    return Snapshot(recipe, branch, epoch, weights, optimizer, is_branch_point, "torch 2, AVX512")


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
    point = _snapshot(store, 10, is_branch_point=False)
    store.trajectories.add(point, [], lease)
    with store.database.session.begin() as session:
        session.execute(update(LeaseRow).values(owner="bob", token=LeaseRow.token + 1))
    with pytest.raises(LostLeaseError):
        store.trajectories.add(_snapshot(store, 20), [_measurement(20)], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [point]
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0) == {}
    assert _is_there(store, point.weights)


# -- optimiser states -------------------------------------------------------------------------------------------------


def test_the_optimiser_is_kept_at_branch_points_and_at_the_newest_epoch(store: Store, lease: Lease) -> None:
    point = _snapshot(store, 10)
    between, newest = (_snapshot(store, epoch, is_branch_point=False) for epoch in (20, 30))
    for snapshot in (point, between):
        store.trajectories.add(snapshot, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [point, between]
    store.trajectories.add(newest, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [point, replace(between, optimizer=None), newest]
    assert [_is_there(store, name) for name in (point.optimizer, between.optimizer)] == [True, False]
    assert [_is_there(store, s.weights) for s in (point, between, newest)] == [True, True, True]


def test_a_snapshot_that_lands_before_the_newest_takes_no_optimiser_from_it(store: Store, lease: Lease) -> None:
    newest = _snapshot(store, 30, is_branch_point=False)
    store.trajectories.add(newest, [], lease)
    store.trajectories.add(replace(_snapshot(store, 20, is_branch_point=False), optimizer=None), [], lease)
    assert store.trajectories.snapshot(RECIPE, TRUNK, 30) == newest


def test_states_of_other_branches_and_recipes_stay(store: Store, lease: Lease) -> None:
    kept = [_snapshot(store, 5, branch=40, is_branch_point=False), _snapshot(store, 5, recipe=OTHER, text="5")]
    for snapshot in kept:
        store.trajectories.add(snapshot, [], lease)
    store.trajectories.add(_snapshot(store, 20), [], lease)
    assert store.trajectories.snapshots(RECIPE, 40) == kept[:1]
    assert store.trajectories.snapshots(OTHER, TRUNK) == kept[1:]
    assert all(_is_there(store, s.optimizer) for s in kept)


def test_a_blob_that_is_used_elsewhere_outlives_the_snapshot(store: Store, lease: Lease) -> None:
    snapshot = _snapshot(store, 5, is_branch_point=False, text="shared")
    same = _snapshot(store, 5, recipe=OTHER, text="shared")
    assert same.weights == snapshot.weights
    for each in (snapshot, same, _snapshot(store, 20)):
        store.trajectories.add(each, [], lease)
    store.trajectories.drop(replace(snapshot, optimizer=None))
    assert store.trajectories.snapshot(RECIPE, TRUNK, 5) is None
    assert _is_there(store, same.weights)
    assert _is_there(store, same.optimizer)


def test_a_snapshot_becomes_a_branch_point_unless_its_optimiser_has_gone(store: Store, lease: Lease) -> None:
    early, late = (_snapshot(store, epoch, is_branch_point=False) for epoch in (10, 20))
    store.trajectories.add(early, [], lease)
    assert store.trajectories.make_branch_point(early)
    store.trajectories.add(late, [], lease)
    assert store.trajectories.snapshots(RECIPE, TRUNK) == [replace(early, is_branch_point=True), late]
    store.trajectories.add(_snapshot(store, 30), [], lease)
    assert not store.trajectories.make_branch_point(late)


def test_a_lost_optimiser_leaves_the_teacher(store: Store, lease: Lease) -> None:
    snapshot = _snapshot(store, 10)
    store.trajectories.add(snapshot, [], lease)
    store.trajectories.drop_optimizer(replace(snapshot, optimizer="f" * 64))
    assert store.trajectories.snapshot(RECIPE, TRUNK, 10) == snapshot, "another one by now: it stays"
    store.trajectories.drop_optimizer(snapshot)
    assert store.trajectories.snapshot(RECIPE, TRUNK, 10) == replace(snapshot, optimizer=None)
    assert _is_there(store, snapshot.weights)
    assert not _is_there(store, snapshot.optimizer)


def test_what_was_used_longest_ago_comes_first(store: Store, lease: Lease) -> None:
    for epoch in (10, 20, 30):
        store.trajectories.add(_snapshot(store, epoch), [], lease)
    ten, twenty, thirty = store.trajectories.snapshots(RECIPE, TRUNK)
    store.trajectories.use(ten)
    assert store.trajectories.least_recently_used() == [twenty, thirty, ten]


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_known_to_all_and_a_branch_point_stays_one(
    store: Store, open_store: Callable[[], Store]
) -> None:
    store.trajectories.ask_for(RECIPE, TRUNK, 7, is_branch_point=False)
    store.trajectories.ask_for(RECIPE, TRUNK, 9, is_branch_point=False)
    store.trajectories.ask_for(RECIPE, TRUNK, 7, is_branch_point=True)
    store.trajectories.ask_for(RECIPE, TRUNK, 7, is_branch_point=False)
    assert open_store().trajectories.asked_for(RECIPE, TRUNK) == {7: True, 9: False}
    assert store.trajectories.asked_for(RECIPE, 7) == {}


# -- checkpoints ------------------------------------------------------------------------------------------------------


def _checkpoint(store: Store, epoch: int, step: int, run: str = "branch") -> Checkpoint:
    state = store.artifacts.put(f"{run} {epoch} {step}".encode())
    return Checkpoint(run, epoch, step, state, {"seconds": 1 / 3})


def test_a_checkpoint_replaces_the_one_before_it_and_brings_its_measurements(store: Store, lease: Lease) -> None:
    first, second = _checkpoint(store, 3, 40), _checkpoint(store, 4, 1)
    for checkpoint in (first, second):
        measured = [_measurement(checkpoint.epoch)]
        store.trajectories.save_checkpoint(checkpoint, RECIPE, TRUNK, measured, lease)
        assert store.trajectories.checkpoint("branch") == checkpoint
    assert not _is_there(store, first.state)
    assert _is_there(store, second.state)
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0).keys() == {(3, "train"), (4, "train")}


def test_a_checkpoint_goes_when_a_snapshot_is_further_on(store: Store, lease: Lease) -> None:
    checkpoint = _checkpoint(store, 15, 3)
    store.trajectories.save_checkpoint(checkpoint, RECIPE, TRUNK, [], lease)
    store.trajectories.add(_snapshot(store, 15), [], lease)
    assert store.trajectories.checkpoint("branch") == checkpoint
    store.trajectories.add(_snapshot(store, 16), [], lease)
    assert store.trajectories.checkpoint("branch") is None
    assert not _is_there(store, checkpoint.state)


def test_a_late_writer_saves_no_checkpoint(store: Store, lease: Lease) -> None:
    with store.database.session.begin() as session:
        session.execute(update(LeaseRow).values(owner="bob", token=LeaseRow.token + 1))
    with pytest.raises(LostLeaseError):
        store.trajectories.save_checkpoint(_checkpoint(store, 3, 1), RECIPE, TRUNK, [_measurement(3)], lease)
    assert store.trajectories.checkpoints() == []
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0) == {}


def test_a_recipe_goes_with_all_that_hangs_on_it(store: Store) -> None:
    leases = Leases(store.database, "bob", 60.0)
    runs = {recipe: leases.acquire(run_of(recipe, TRUNK)) for recipe in (RECIPE, OTHER)}
    for recipe, lease in runs.items():
        assert lease is not None
        store.trajectories.add(_snapshot(store, 10, recipe=recipe), [_measurement(10)], lease)
        store.trajectories.save_checkpoint(_checkpoint(store, 11, 1, lease.name), recipe, TRUNK, [], lease)
        store.trajectories.ask_for(recipe, TRUNK, 12, is_branch_point=False)
    store.trajectories.delete_recipe(RECIPE)
    assert list(store.trajectories.recipes()) == [OTHER]
    assert store.trajectories.asked_for(RECIPE, TRUNK) == {}
    assert [c.run for c in store.trajectories.checkpoints()] == [run_of(OTHER, TRUNK)]
    used = {name for s in store.trajectories.of_recipe(OTHER) for name in (s.weights, s.optimizer)}
    used |= {c.state for c in store.trajectories.checkpoints()}
    assert {file.name for file in store.artifacts.files()} == used


# -- snapshots made again ---------------------------------------------------------------------------------------------


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


def test_a_measurement_of_the_teacher_as_it_teaches_is_not_replaced_by_another(store: Store) -> None:
    as_it_teaches = _measurement(10)
    other = replace(_measurement(10, base=1.0), recomputed=False)
    for measured in (other, as_it_teaches, other):
        store.trajectories.add_measurements(RECIPE, TRUNK, [measured])
    assert store.trajectories.measurements(RECIPE, TRUNK, 4.0) == {(10, "train"): as_it_teaches}


def test_of_several_measurements_that_are_recorded_at_once_the_same_one_stays(store: Store) -> None:
    as_it_teaches = _measurement(10)
    other = replace(_measurement(10, base=1.0), recomputed=False)
    next_one = replace(_measurement(11), recomputed=False)
    store.trajectories.add_measurements(RECIPE, TRUNK, [other, as_it_teaches, other, next_one])
    found = store.trajectories.measurements(RECIPE, TRUNK, 4.0)
    assert found == {(10, "train"): as_it_teaches, (11, "train"): next_one}


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
