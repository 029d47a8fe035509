from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from sweetspot.store import DamagedBlobError, Store, Student
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.schema import StudentRow
from sweetspot.store.students import student_run

HASH = "a" * 64
OTHER = "b" * 64


def _student(store: Store, replicate: int = 0, distillation: str = HASH, text: str = "") -> Student:
    """A student whose weights are there."""
    return Student(
        distillation=distillation,
        purpose="search",
        replicate=replicate,
        study="digits",
        accuracy=0.9 + replicate / 300,
        curve={"loss": [2.5, 1 / 3], "accuracy": [0.1, 0.9]},
        seconds=1.25,
        weights=store.artifacts.put((text or f"{distillation} {replicate}").encode()),
    )


def _is_there(store: Store, name: str) -> bool:
    try:
        store.artifacts.get(name)
    except DamagedBlobError:
        return False
    return True


def test_a_student_comes_back_as_it_was_recorded(store: Store) -> None:
    student = _student(store)
    store.students.add(student)
    assert store.students.of([HASH], "search") == {HASH: [student]}
    assert student.test_accuracy is None


def test_students_come_by_distillation_and_rising_replicate(store: Store) -> None:
    for replicate in (2, 0, 1):
        store.students.add(_student(store, replicate))
    store.students.add(_student(store, 0, OTHER))
    found = store.students.of([OTHER, HASH, "c" * 64], "search")
    assert {name: [s.replicate for s in students] for name, students in found.items()} == {HASH: [0, 1, 2], OTHER: [0]}


def test_students_of_more_distillations_than_a_database_takes_at_once(store: Store) -> None:
    hashes = [f"{i:064d}" for i in range(1203)]
    for name in (hashes[0], hashes[600], hashes[1202]):
        store.students.add(_student(store, 0, name))
    assert list(store.students.of(hashes, "search")) == [hashes[0], hashes[600], hashes[1202]]
    store.students.delete(hashes)
    assert store.students.of(hashes, "search") == {}
    assert store.students.of([], "search") == {}


def test_a_student_is_recorded_once_and_the_first_one_stays(store: Store) -> None:
    first = _student(store)
    store.students.add(first)
    store.students.add(replace(first, accuracy=0.1, study="another"))
    assert store.students.of([HASH], "search") == {HASH: [first]}


def test_search_and_confirmation_do_not_share_students(store: Store) -> None:
    chosen_by, fresh = _student(store), replace(_student(store), purpose="confirm", accuracy=0.8)
    store.students.add(chosen_by)
    store.students.add(fresh)
    assert store.students.of([HASH], "search") == {HASH: [chosen_by]}
    assert store.students.of([HASH], "confirm") == {HASH: [fresh]}


def test_a_student_that_cannot_be_recorded_is_not_taken_for_one_that_is_there(store: Store) -> None:
    with pytest.raises(IntegrityError):
        store.students.add(replace(_student(store), accuracy=None))  # type: ignore[arg-type]


# -- the test split ---------------------------------------------------------------------------------------------------


def test_what_was_correct_comes_back_image_by_image_for_any_number_of_images(store: Store) -> None:
    rng = np.random.default_rng(0)
    recorded = [rng.random(images) < share for images in (1, 7, 8, 9, 359, 2500) for share in (0.0, 0.7, 1.0)]
    for replicate, correct in enumerate(recorded):
        store.students.add(replace(_student(store, replicate), test_correct=correct))
    found = store.students.of([HASH], "search")[HASH]
    for student, correct in zip(found, recorded, strict=True):
        assert student.test_correct is not None
        assert student.test_correct.dtype == np.bool_
        np.testing.assert_array_equal(student.test_correct, correct)
        assert student.test_accuracy == correct.mean()


def test_what_was_correct_takes_one_bit_an_image(store: Store) -> None:
    store.students.add(replace(_student(store), test_correct=np.ones(2500, np.bool_)))
    with store.database.session() as session:
        row = session.scalars(select(StudentRow)).one()
    assert row.test_accuracy == 1.0
    assert row.test_correct is not None
    assert len(row.test_correct) < 2500 / 8 + 8


# -- removal ----------------------------------------------------------------------------------------------------------


def test_deleting_removes_the_students_and_their_weights(store: Store) -> None:
    gone, kept = [_student(store, 0), _student(store, 1)], _student(store, 0, OTHER)
    for student in (*gone, replace(gone[0], purpose="confirm"), kept):
        store.students.add(student)
    store.students.delete([HASH])
    assert store.students.of([HASH, OTHER], "search") == {OTHER: [kept]}
    assert store.students.of([HASH], "confirm") == {}
    assert [_is_there(store, s.weights) for s in gone] == [False, False]
    assert _is_there(store, kept.weights)
    store.students.delete([HASH])
    store.students.delete([])


def test_weights_that_another_student_uses_stay(store: Store) -> None:
    store.students.add(_student(store, 0, HASH, "alike"))
    kept = _student(store, 0, OTHER, "alike")
    store.students.add(kept)
    store.students.delete([HASH])
    assert _is_there(store, kept.weights)
    store.students.delete([OTHER])
    assert not _is_there(store, kept.weights)


# -- students that train ----------------------------------------------------------------------------------------------


def _checkpoint(store: Store, replicate: int, epoch: int, distillation: str = HASH) -> Checkpoint:
    run = student_run(distillation, "search", replicate)
    return Checkpoint(run, epoch, 3, store.artifacts.put(f"{run} {epoch}".encode()), {"losses": [1 / 3]})


def test_a_checkpoint_replaces_the_one_before_it_and_goes_with_the_student(store: Store) -> None:
    first, second, other = _checkpoint(store, 0, 1), _checkpoint(store, 0, 2), _checkpoint(store, 1, 1)
    for checkpoint in (first, other, second):
        store.students.save_checkpoint(checkpoint)
    assert store.students.checkpoint(first.run) == second
    assert [_is_there(store, c.state) for c in (first, second, other)] == [False, True, True]
    store.students.add(_student(store, 0))
    assert store.students.checkpoint(first.run) is None
    assert store.students.checkpoint(other.run) == other
    assert [_is_there(store, c.state) for c in (second, other)] == [False, True]


def test_a_deleted_distillation_takes_its_checkpoints_along(store: Store) -> None:
    mine, other = _checkpoint(store, 0, 1), _checkpoint(store, 0, 1, OTHER)
    for checkpoint in (mine, other):
        store.students.save_checkpoint(checkpoint)
    store.students.delete([HASH])
    assert store.trajectories.checkpoints() == [other]
    assert [_is_there(store, c.state) for c in (mine, other)] == [False, True]


def test_a_checkpoint_that_is_further_on_stays(store: Store) -> None:
    """Two workers train the same student: the slower one takes nothing away."""
    further, earlier = _checkpoint(store, 0, 2), _checkpoint(store, 0, 1)
    store.students.save_checkpoint(further)
    store.students.save_checkpoint(earlier)
    assert store.students.checkpoint(further.run) == further


def test_two_workers_save_the_first_checkpoint_of_a_student_at_once(
    store: Store, open_store: Callable[[], Store]
) -> None:
    stores = [store, *(open_store() for _ in range(3))]
    for replicate in range(5):
        checkpoint = _checkpoint(store, replicate, 1)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda each, c=checkpoint: each.students.save_checkpoint(c), stores))
        assert store.students.checkpoint(checkpoint.run) == checkpoint
        assert _is_there(store, checkpoint.state)
