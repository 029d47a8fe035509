"""What a study will cost: by hand where that can be counted, and against one that has run."""

from pathlib import Path

import pytest
import torch
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study import estimate
from sweetspot.study.estimate import Shape, Work, disk_bytes, expected_work, teacher_bytes
from sweetspot.study.search import CONFIRM, create_or_continue, load
from sweetspot.workers import worker

NEEDED = ["student_alone", "most_accurate_teacher"]
SHAPE = Shape(classes=10, channels=1, image_size=8, train_images=1000, validation_images=100)


def work(**values: object) -> tuple[Work, Work]:
    """The plain way and the shared one; no confirmation unless one is asked for."""
    return expected_work(tiny_config(**{"confirm__seeds": 0, **values}))


# -- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [
        ("constant", 10),
        ("wsd", 8 + (2 + 1)),  # a trunk of 8, and decays over a fifth of 10 and of 5
        ("cosine", 15),
    ],
)
def test_trials_of_a_batch_size_share_what_their_schedule_shares(schedule: str, epochs: int) -> None:
    plain, shared = work(
        search__batch_size=[32, 64], search__epochs=[5, 10], search__trials=4, teacher__schedule={"name": schedule}
    )
    assert (plain.teacher_epochs, shared.teacher_epochs) == (2 * 15, 2 * epochs)
    assert (plain.teachers, shared.teachers) == (4, 4)
    assert (plain.students, shared.students) == (8, 8)


def test_a_point_that_is_visited_twice_is_trained_twice_the_plain_way() -> None:
    plain, shared = work(search__batch_size=[64], search__epochs=[5, 10], search__trials=4)
    assert (plain.teacher_epochs, shared.teacher_epochs) == (30, 10)


def test_a_tables_teachers_share_within_each_seed_and_its_baselines_count() -> None:
    plain, shared = work(
        search__batch_size=[32, 64], search__epochs=[5, 10], search__trials=12, search__teacher__seeds=3,
        student__replicates={"min": 1, "max": 2},
    )  # fmt: skip
    assert (plain.teacher_epochs, shared.teacher_epochs) == (6 * 15, 6 * 10)
    assert plain.students == shared.students == 12 * 2 + 2 * 3 * 2  # nothing is raced in a table


def test_teachers_of_other_networks_share_with_their_own_kind() -> None:
    plain, shared = work(
        search__batch_size=[64], search__epochs=[5, 10], search__trials=4, search__teacher__model=["convnet", "mlp"]
    )
    assert (plain.teacher_epochs, shared.teacher_epochs) == (30, 20)


def test_where_each_trial_has_a_learning_rate_of_its_own_nothing_is_shared() -> None:
    plain, shared = work(
        search__batch_size=[64], search__epochs=[5, 10], search__trials=4, search__teacher__lr={"low": 0.1, "high": 1}
    )
    assert plain.teacher_epochs == shared.teacher_epochs == 30


def test_a_third_of_the_points_is_raced_to_the_end() -> None:
    plain, shared = work(search__batch_size=[16, 32, 64], search__trials=9, student__replicates={"min": 1, "max": 4})
    assert (plain.students, shared.students) == (9 * 4, 6 * 1 + 3 * 4)


# -- the confirmation -----------------------------------------------------------------------------------------------


def test_the_teachers_of_the_search_are_there_already_but_for_the_longest() -> None:
    only = {"search__batch_size": [64], "search__epochs": [4, 8], "search__trials": 2, "confirm__seeds": 3}
    plain, shared = work(**only, confirm__arms=NEEDED)
    assert (plain.teacher_epochs, shared.teacher_epochs) == (12 + 12, 8)
    assert plain.students == shared.students == 2 * 2 + 3 * 3
    one = only | {"search__trials": 1}
    plain, shared = work(**one, confirm__arms=[*NEEDED, "longest_teacher"])
    assert shared.teacher_epochs == 8  # whichever the search has visited
    assert 4 + 4 < plain.teacher_epochs < 8 + 8 + 8
    assert plain.students == 2 + 4 * 3


def test_fresh_teachers_are_trained_once_for_all_arms_of_a_point() -> None:
    plain, shared = work(
        search__batch_size=[64], search__epochs=[4, 8], search__trials=2,
        confirm__teachers=5, confirm__seeds=3, confirm__arms=[*NEEDED, "temperature"],
    )  # fmt: skip
    # The choices are made with teachers of the search, which the plain way trains again.
    assert shared.teacher_epochs == 8 + 5 * 8
    assert plain.teacher_epochs == 12 + 12 + 5 * 12
    arms = 5
    choices = 2 * 2 * 3 + 2  # four temperatures for both, of which the search has made the best point's at its own
    assert shared.students == 2 * 2 + choices + arms * 5 * 3


def test_each_finalist_is_another_point() -> None:
    space = {"search__batch_size": [32, 64], "search__epochs": [4, 8], "search__trials": 4, "confirm__arms": NEEDED}
    one, three = (work(**space, confirm__teachers=5, confirm__seeds=3, confirm__finalists=count)[1] for count in (1, 3))
    assert three.students - one.students == 2 * 5 * 3
    assert one.teacher_epochs < three.teacher_epochs <= 2 * 8 + 5 * (2 * 8)


def test_a_check_of_the_learning_rate_trains_teachers_that_share_nothing() -> None:
    space = {"search__batch_size": [32, 64], "search__epochs": [4], "search__trials": 2, "confirm__seeds": 3}
    without, checked = (work(**space, confirm__arms=NEEDED, confirm__lr_check=check)[1] for check in (False, True))
    assert checked.teacher_epochs - without.teacher_epochs == 4 * 4
    assert checked.students - without.students == 4 * 2
    one = space | {"search__batch_size": [32], "search__trials": 1, "confirm__arms": NEEDED}
    assert work(**one, confirm__lr_check=True) == work(**one)  # no runner-up


def test_an_arm_that_is_left_out_costs_nothing() -> None:
    arms = [*NEEDED, "label_smoothing"]
    fewer, more = (work(confirm__seeds=3, confirm__arms=chosen)[1].students for chosen in (NEEDED, arms))
    assert more - fewer == 3 * 2 + 3  # the choice of its amount, and the arm


# -- disk -----------------------------------------------------------------------------------------------------------


def test_fresh_teachers_take_room() -> None:
    here, fresh = (tiny_config(confirm__teachers=count, confirm__seeds=2) for count in (0, 5))
    assert disk_bytes(fresh, SHAPE) > disk_bytes(here, SHAPE) > teacher_bytes(here, SHAPE)
    assert teacher_bytes(fresh, SHAPE) == teacher_bytes(here, SHAPE)


def test_each_teacher_of_a_table_takes_room() -> None:
    one = tiny_config(confirm__seeds=0, search__trials=6)
    five = tiny_config(confirm__seeds=0, search__trials=30, search__teacher__seeds=5)
    assert teacher_bytes(five, SHAPE) == 5 * teacher_bytes(one, SHAPE)


# -- all of it ------------------------------------------------------------------------------------------------------


def test_an_estimate_says_both_ways_and_the_shared_one_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_MEASURE_SECONDS", 0.0)
    config = tiny_config(student__replicates={"min": 1, "max": 3}, search__trials=6)
    one, two = (estimate.estimate(config, SHAPE, torch.device("cpu"), workers).to_dict() for workers in (1, 2))
    keys = {"teacher_epochs", "student_epochs", "disk_bytes", "seconds"}
    assert one["plain"].keys() == one["shared"].keys() == keys
    assert {key: one[key] for key in keys} == one["shared"]
    assert one["teacher_epochs_unshared"] == one["plain"]["teacher_epochs"] > one["teacher_epochs"]
    assert one["plain"]["student_epochs"] > one["student_epochs"]
    assert {key: one[key] for key in keys - {"seconds"}} == {key: two[key] for key in keys - {"seconds"}}
    assert min(one["per_teacher_epoch"], one["per_student_epoch"], one["seconds"]) > 0


@pytest.mark.parametrize("teachers", [0, 5])
def test_a_study_that_has_run_has_trained_what_was_expected(tmp_path: Path, teachers: int) -> None:
    config = tiny_config(
        search__trials=6, search__sampler="grid", student__epochs=1, student__replicates={"min": 1, "max": 2},
        confirm__teachers=teachers, confirm__seeds=1 if teachers else 2,
        confirm__arms=[*NEEDED, "label_smoothing", "temperature", "longest_teacher", "economy"],
    )  # fmt: skip
    url = f"sqlite:///{tmp_path}/study.db"
    data = load_study_data(config, data_folder(), torch.device("cpu"))
    with Store(url) as store:
        create_or_continue(store, "tiny", config, data)
        worker.work("tiny", storage=url, device="cpu")
        trials = [*load(store, "tiny").trials, *load(store, "tiny" + CONFIRM).trials]
        teacher_epochs, students = (
            sum(trial.user_attrs[name] for trial in trials) for name in ("epochs_trained", "student_epochs")
        )
        taken = sum(file.size for file in store.artifacts.files())
    plain, shared = expected_work(config)
    # Arms that turn out to be one point have the same students and teachers.
    assert 0.5 * shared.students <= students <= plain.students
    assert 0.5 * shared.teacher_epochs <= teacher_epochs < plain.teacher_epochs
    most = disk_bytes(config, Shape.of(data))
    assert 0.3 * most <= taken <= 1.05 * most  # small networks have files of which the heads count, too
    if not teachers:
        assert teacher_epochs == shared.teacher_epochs == 2 * 3
