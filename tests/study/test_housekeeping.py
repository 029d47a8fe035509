"""What is kept, whether it is sound, and what is freed: on stores that real studies have filled."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_config

from sweetspot.store import TRUNK, Snapshot, Store, StudyRecord
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.students import student_run
from sweetspot.store.trajectories import run_of
from sweetspot.study.claim import Outcome, run_next
from sweetspot.study.confirmation import current_plan, ensure_planned
from sweetspot.study.housekeeping import branches, collect, usage, verify
from sweetspot.study.jobs import Confirming, Search
from sweetspot.study.needs import Place, needed_snapshots
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import Point, suggest
from sweetspot.study.tasks import task_of
from sweetspot.study.visit import Visit, distillation_at, recipe_at
from sweetspot.study.workplace import Workplace

OLD = 2 * 3600
WSD = {"name": "wsd", "warmup": 0, "decay": 0.5}


def a_study(workplace: Workplace, name: str = "tiny", trials: int = 2, **values: Any) -> StudyRecord:
    """A study that has run all its trials."""
    config = tiny_config(search__trials=trials, student__epochs=1, **values)
    record = create_or_continue(workplace.store, name, config, workplace.data)
    job = Search(record, workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    return record


def place(record: StudyRecord, batch_size: int, epochs: int) -> Place:
    return Place(recipe_at(record.config, record.data_hash, Point(batch_size, epochs)).hash, TRUNK, epochs)


def places(store: Store) -> set[Place]:
    return {Place.of(snapshot) for snapshot in store.trajectories.least_recently_used()}


def kept_blobs(store: Store) -> set[str]:
    return {file.name for file in store.artifacts.files() if file.kind == "blob"}


def path_of(store: Store, blob: str) -> Path:
    return Path(store.artifacts_url, "blobs", blob[:2], blob)


def leave_over(store: Store, content: bytes = b"nobody's", age: float = OLD) -> str:
    """A blob without a row, so many seconds old."""
    name = store.artifacts.put(content)
    then = path_of(store, name).stat().st_mtime - age
    os.utime(path_of(store, name), (then, then))
    return name


# -- listing and usage ------------------------------------------------------------------------------------------------


def test_branches_say_what_is_kept_of_whom_and_for_whom(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6)
    found = branches(store)
    assert {(b.values["batch_size"], b.branch, b.epochs, b.goes_on_from) for b in found} == {
        (64, TRUNK, (1, 2, 3), (1, 2, 3)),
        (128, TRUNK, (1, 2, 3), (1, 2, 3)),
    }
    assert {b.recipe for b in found} == {place(record, size, 1).recipe for size in (64, 128)}
    for branch in found:
        assert branch.studies == ("tiny",)
        assert branch.heading_for is branch.checkpoint is None
        assert branch.used is not None
        names = {n for s in store.trajectories.snapshots(branch.recipe, TRUNK) for n in (s.weights, s.optimizer) if n}
        assert branch.size == sum(path_of(store, name).stat().st_size for name in names) > 0


def test_branches_that_grow_or_were_interrupted_are_there_before_their_first_snapshot(workplace: Workplace) -> None:
    store = workplace.store
    record = create_or_continue(store, "tiny", tiny_config(), workplace.data)
    recipe = recipe_at(record.config, record.data_hash, Point(64, 1))
    store.trajectories.add_recipe(recipe.hash, recipe.json)
    lease = workplace.leases.acquire(run_of(recipe.hash, TRUNK), heading_for=3)
    assert lease is not None
    state = store.artifacts.put(b"half")
    store.trajectories.save_checkpoint(Checkpoint(lease.name, 0, 7, state, {}), recipe.hash, TRUNK, [], lease)
    (found,) = branches(store)
    assert (found.epochs, found.checkpoint, found.heading_for, found.size) == ((), (0, 7), 3, 4)


def test_usage_counts_every_file_once_by_what_it_is(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace)
    store.students.save_checkpoint(Checkpoint("student/x/search/0", 1, 2, store.artifacts.put(b"half"), {}))
    leave_over(store, b"12345", age=0)
    damaged = store.artifacts.put(b"damaged")
    path_of(store, damaged).write_bytes(b"dam")
    assert verify(store).damaged == (), "nobody's blob is not looked at"
    with pytest.raises(Exception, match="is damaged"):
        store.artifacts.get(damaged)
    found = usage(store)
    snapshots = store.trajectories.least_recently_used()
    sizes = {name: path_of(store, name).stat().st_size for name in kept_blobs(store)}
    assert found.teachers == sum(sizes[name] for name in {s.weights for s in snapshots})
    assert found.optimizers == sum(sizes[name] for name in {s.optimizer for s in snapshots if s.optimizer})
    assert found.students == sum(sizes[name] for name in set(store.students.blobs())) > 0
    assert (found.checkpoints, found.left_over, found.quarantined) == (4, 5, 3)
    assert found.total == sum(file.size for file in store.artifacts.files())
    assert found.free is not None
    assert record.config.student.replicates.max * 2 == len(store.students.blobs())


# -- verifying --------------------------------------------------------------------------------------------------------


def test_a_sound_store_is_found_sound(workplace: Workplace) -> None:
    a_study(workplace)
    steps: list[int] = []

    def count(total: int) -> Callable[[], None]:
        return lambda: steps.append(total)

    found = verify(workplace.store, count)
    assert found.damaged == ()
    assert found.checked == len(kept_blobs(workplace.store)) == len(steps) == steps[0]
    assert found.size == usage(workplace.store).total


@pytest.mark.parametrize("how", ["missing", "altered"])
def test_what_is_damaged_is_found_forgotten_and_made_again(workplace: Workplace, how: str) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6)
    first, second = (store.trajectories.snapshots(place(record, 64, 1).recipe, TRUNK)[i] for i in (0, 1))
    student = store.students.blobs()[0]
    checkpoint = Checkpoint("student/x/search/0", 1, 2, store.artifacts.put(b"half"), {})
    store.students.save_checkpoint(checkpoint)
    assert second.optimizer is not None
    damaged = {first.weights: "the teacher at", second.optimizer: "the optimiser of", student: "a student",
               checkpoint.state: "the checkpoint at"}  # fmt: skip
    for name in damaged:
        path_of(store, name).unlink() if how == "missing" else path_of(store, name).write_bytes(b"!")
    found = verify(store)
    assert {d.blob: d.what[: len(damaged[d.blob])] for d in found.damaged} == damaged
    assert all(("missing" if how == "missing" else "damaged") in d.why and d.then for d in found.damaged)
    assert store.trajectories.snapshot(first.recipe, TRUNK, 1) is None
    assert store.trajectories.snapshot(first.recipe, TRUNK, 2) == Snapshot(**{**vars(second), "optimizer": None})
    assert store.students.checkpoint(checkpoint.run) is None
    assert len(store.students.blobs()) == 6 * record.config.student.replicates.max - 1
    points = [Point(batch_size, epochs) for batch_size in (64, 128) for epochs in (1, 2, 3)]
    hashes = [distillation_at(record.config, record.data_hash, point).hash for point in points]
    assert sum(map(len, store.students.of(hashes, "search").values())) == 12, "what a student has shown stays"
    assert verify(store).damaged == ()
    visit = Visit(record.config, Point(64, 1), workplace)
    visit.train_teacher()
    assert visit.epochs_trained == 1
    assert store.trajectories.snapshot(first.recipe, TRUNK, 1) == first


# -- collecting garbage -----------------------------------------------------------------------------------------------


def test_only_what_nothing_refers_to_is_freed_and_only_when_it_is_old(workplace: Workplace) -> None:
    store = workplace.store
    a_study(workplace)
    before = kept_blobs(store)
    old, young = leave_over(store, b"old"), leave_over(store, b"young", age=60)
    partial = path_of(store, old).with_name(f"{old}.0123.partial")
    partial.write_bytes(b"partial")
    os.utime(partial, (0, 0))
    for dry_run in (True, False):
        found = collect(store, dry_run=dry_run)
        assert (len(found.freed), found.size, found.needed) == (2, len(b"oldpartial"), {})
        assert path_of(store, old).exists() == partial.exists() == dry_run
    assert kept_blobs(store) == before | {young}
    assert found.kept == usage(store).total
    assert collect(store).freed == ()


def test_a_blob_that_gets_its_row_while_garbage_is_collected_stays(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is old, and nothing refers to it when the files are listed; then a worker stores the very same content."""
    store = workplace.store
    name = leave_over(store, b"weights")
    inner = store.artifacts.remove_file

    def remove(file: Any) -> bool:
        store.artifacts.put(b"weights")
        return inner(file)

    monkeypatch.setattr(store.artifacts, "remove_file", remove)
    assert collect(store).freed == ()
    assert kept_blobs(store) == {name}


def test_beyond_the_limit_snapshots_are_freed_the_longest_unused_first(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6)
    needed = needed_snapshots(store)
    order = [Place.of(s) for s in store.trajectories.least_recently_used() if Place.of(s) not in needed]
    assert len(order) == 5, "but for the best point's teacher"
    size = usage(store).total
    dry = collect(store, size - 1, dry_run=True)
    assert len(dry.freed) == 1
    assert usage(store).total == size
    found = collect(store, size - 1)
    assert found == dry
    assert places(store) == {*order[1:], *needed}
    assert usage(store).total == found.kept == size - found.size
    found = collect(store, 0)
    assert places(store) == set(needed)
    assert found.kept == usage(store).total > 0
    assert found.needed == {"the best point of tiny": 1}
    measured = store.trajectories.measurements(order[0].recipe, TRUNK, record.config.teacher.probe_temperature)
    assert {epoch for epoch, _ in measured} == {1, 2, 3}, "measurements stay"


def test_what_was_freed_is_trained_again_to_the_bit(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6)
    before = {Place.of(s): s.weights for s in store.trajectories.least_recently_used()}
    collect(store, 0)
    for batch_size in (64, 128):
        for epochs in (1, 2, 3):
            Visit(record.config, Point(batch_size, epochs), workplace).train_teacher()
    assert {Place.of(s): s.weights for s in store.trajectories.least_recently_used()} == before


def test_teachers_that_no_study_has_touched_go_first(workplace: Workplace) -> None:
    store = workplace.store
    survey = tiny_config(teacher__model="mlp")
    record = a_study(workplace, trials=6)
    Visit(survey, Point(64, 2), workplace).train_teacher()
    nobody = recipe_at(survey, workplace.data.hash, Point(64, 1)).hash
    size = usage(store).total
    found = collect(store, size - 1, dry_run=True)
    assert [nobody[:12] in item.what for item in found.freed] == [True]
    assert record.name == "tiny"


def test_the_arms_of_a_confirmation_are_never_freed(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6, search__min_steps=0)
    assert ensure_planned(store, record, workplace.data)
    job = Confirming(record, workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    collect(store, 0)
    reasons = needed_snapshots(store)
    assert places(store) == {p for p in reasons if store.trajectories.snapshot(*p)}
    assert any("the confirmation of tiny" in why for why in reasons.values())
    plan = current_plan(store, "tiny")
    assert plan is not None
    points = {p for p in plan.arms.values() if isinstance(p, Point)}
    assert {place(record, p.batch_size, p.epochs) for p in points} <= places(store)


def test_what_a_running_and_a_waiting_trial_need_is_never_freed(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6)
    config = tiny_config(search__trials=20, student__epochs=1)
    create_or_continue(store, "tiny", config, workplace.data)
    study = load(store, "tiny")
    study.enqueue_trial({"batch_size": 128, "epochs": 2})
    study.enqueue_trial({"batch_size": 64, "epochs": 3})
    suggest(study.ask(), config)  # it runs; the other waits
    collect(store, 0)
    assert places(store) >= {place(record, 128, 1), place(record, 128, 2), *(place(record, 64, e) for e in (1, 2, 3))}


def test_where_a_branch_hangs_is_kept_until_it_is_trained(workplace: Workplace) -> None:
    """Decay over half of the run: 2 epochs hang from the trunk at 1, 4 at 2, 8 at 4."""
    store = workplace.store
    config = tiny_config(search__epochs=[2, 4, 8], search__batch_size=[64], teacher__schedule=WSD, student__epochs=1)
    record = create_or_continue(store, "tiny", config, workplace.data)
    study = load(store, "tiny")
    study.enqueue_trial({"batch_size": 64, "epochs": 8})
    run_next(Search(record, workplace), workplace)
    collect(store, 0)
    recipe = place(record, 64, 2).recipe
    assert places(store) == {Place(recipe, TRUNK, 1), Place(recipe, TRUNK, 2), Place(recipe, 8, 8)}
    visit = Visit(config, Point(64, 4), workplace)
    visit.train_teacher()
    assert visit.epochs_trained == 2
    collect(store, 0)
    assert places(store) == {Place(recipe, TRUNK, 1), Place(recipe, 8, 8)}


def test_what_a_worker_is_extending_is_never_freed(workplace: Workplace) -> None:
    store = workplace.store
    survey = tiny_config()
    Visit(survey, Point(64, 3), workplace).train_teacher()
    recipe = recipe_at(survey, workplace.data.hash, Point(64, 1)).hash
    lease = workplace.leases.acquire(run_of(recipe, TRUNK), heading_for=9)
    assert lease is not None
    assert collect(store, 0).needed == {"a worker is training on from it": 3}
    lease.release()
    collect(store, 0)
    assert places(store) == set()


def test_abandoned_checkpoints_go_before_snapshots_and_those_of_unfinished_studies_stay(workplace: Workplace) -> None:
    store = workplace.store
    done = a_study(workplace, "done")
    going = create_or_continue(store, "going", tiny_config(student__epochs=2), workplace.data)
    load(store, "going").enqueue_trial({"batch_size": 64, "epochs": 1})
    checkpoints = {}
    for record in (done, going):
        distillation = distillation_at(record.config, record.data_hash, Point(64, 1)).hash
        trials = load(store, record.name).get_trials(deepcopy=False)
        if record is done:
            point = Point.of(trials[0].params)
            distillation = distillation_at(record.config, record.data_hash, point).hash
        run = student_run(distillation, "search", 9)
        checkpoints[record.name] = Checkpoint(run, 1, 2, store.artifacts.put(record.name.encode()), {})
        store.students.save_checkpoint(checkpoints[record.name])
    assert collect(store).freed == ()
    found = collect(store, usage(store).total - 1)
    assert [item.what[:14] for item in found.freed] == ["the checkpoint"]
    assert store.trajectories.checkpoints() == [checkpoints["going"]]


def test_checkpoints_of_a_confirmation_under_way_stay_until_it_is_done(workplace: Workplace) -> None:
    store = workplace.store
    record = a_study(workplace, trials=6, search__min_steps=0)
    assert ensure_planned(store, record, workplace.data)
    (task, *_) = [task_of(t) for t in load(store, "tiny/confirm").get_trials(deepcopy=False)]
    run = student_run(distillation_at(record.config, record.data_hash, task.source).hash, task.purpose, 9)
    checkpoint = Checkpoint(run, 1, 2, store.artifacts.put(b"half"), {})
    store.students.save_checkpoint(checkpoint)
    collect(store, 0)
    assert store.trajectories.checkpoints() == [checkpoint]
    job = Confirming(record, workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    collect(store, 0)
    assert store.trajectories.checkpoints() == []


def test_a_worker_whose_snapshot_is_freed_under_its_hands_trains_it_again(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the row that it has read and the blob."""
    store = workplace.store
    config = tiny_config()
    visit = Visit(config, Point(64, 2), workplace)
    visit.train_teacher()
    inner = store.artifacts.get
    freed: list[int] = []

    def get(name: str) -> bytes:
        if not freed:
            freed.append(len(collect(store, 0).freed))
        return inner(name)

    monkeypatch.setattr(store.artifacts, "get", get)
    again = Visit(config, Point(64, 2), workplace)
    assert again._trajectory is not None
    again._trajectory.teacher(2)
    assert freed == [2]
    assert again.epochs_trained == 2
    assert {epoch for _, _, epoch in places(store)} == {1, 2}
