"""The best point's networks as files: whole or not at all, the very ones that the numbers are about."""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sqlalchemy import update
from tiny_study import tiny_config

from sweetspot.data import open_dataset
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import UserError
from sweetspot.models.exported import FILES, load_student, load_teacher
from sweetspot.report.result import read_result
from sweetspot.store import Leases, Store, Student
from sweetspot.store.schema import StudentRow
from sweetspot.store.url import data_folder
from sweetspot.student.distillation import correctness
from sweetspot.study.search import create_or_continue
from sweetspot.study.visit import Visit
from sweetspot.study.workplace import Workplace
from sweetspot.training.weights import load_weights
from sweetspot.workers import export as module
from sweetspot.workers.export import chosen_student, export
from sweetspot.workers.whole_folder import whole_folder
from sweetspot.workers.worker import work

CONFIG = tiny_config(confirm__seeds=3, teacher__model="convnet-narrow")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> StudyData:
    return load_study_data(CONFIG, data_folder(), CPU)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, digits: StudyData) -> str:
    """A storage with a study that is confirmed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('export')}/study.db"
    with Store(url) as store:
        create_or_continue(store, "tiny", CONFIG, digits)
    work("tiny", storage=url, device="cpu")
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened


@pytest.fixture
def said() -> Console:
    return Console(record=True, file=StringIO(), width=200)


@pytest.fixture
def exported(url: str, tmp_path: Path, said: Console) -> Callable[..., dict[str, Any]]:
    """Exports into ``out``; the values of its config."""

    def run(name: str = "tiny", **options: Any) -> dict[str, Any]:
        out = tmp_path / "out"
        found = export(name, out, said, storage=url, device="cpu", **options)
        assert {path.name for path in out.iterdir()} == FILES
        assert {path.name for path in tmp_path.iterdir()} == {"out"}
        values: dict[str, Any] = json.loads((out / "config.json").read_text())
        assert values == found.values
        return values

    return run


def chosen(store: Store) -> Student:
    result = read_result(store, "tiny")
    assert result.best is not None
    return chosen_student(store, result, result.best)


def blob(store: Store, name: str) -> Path:
    return Path(store.artifacts_url, "blobs", name[:2], name)


def test_the_student_is_the_one_in_the_store_and_its_test_accuracy_the_recorded_one(
    exported: Callable[..., dict[str, Any]], store: Store, digits: StudyData, tmp_path: Path
) -> None:
    values = exported()
    student = load_student(tmp_path / "out")
    row = chosen(store)
    images, labels = (value[:] for value in vars(open_dataset("digits", data_folder()).test()).values())
    with torch.no_grad():
        correct = (student(images).argmax(1) == labels).numpy()
    assert np.array_equal(correct, row.test_correct)
    assert values["student"]["test_accuracy"]["value"] == row.test_accuracy == correct.mean()
    assert values["student"]["accuracy"]["value"] == row.accuracy

    with torch.no_grad():
        logits = student(images)
        load_weights(student.network, store.artifacts.get(row.weights))
        assert torch.equal(student.network(digits.test().images), logits)


def test_the_student_is_chosen_by_validation_accuracy_among_fresh_ones(
    exported: Callable[..., dict[str, Any]], store: Store
) -> None:
    result = read_result(store, "tiny")
    assert result.confirmation is not None
    row = chosen(store)
    fresh = store.students.of([row.distillation], "confirm", row.test_hash)[row.distillation]
    assert len(fresh) == 3
    assert row.accuracy == max(student.accuracy for student in fresh)
    about = exported()
    assert (about["student"]["purpose"], about["student"]["replicate"]) == ("confirm", row.replicate)
    assert about["student"]["chosen_among"] == 3
    assert about["students"]["test"]["mean"] == pytest.approx(result.to_dict()["test_accuracy"]["mean"])
    gains = {each["arm"]: each["gain_of_best"] for each in about["comparison"]}
    assert gains["student_alone"] == result.to_dict()["gain"]["over_student_alone"]
    assert about["verdict"] == result.verdict


def test_the_teacher_is_as_it_taught(
    exported: Callable[..., dict[str, Any]], store: Store, digits: StudyData, tmp_path: Path
) -> None:
    exported()
    result = read_result(store, "tiny")
    assert result.best is not None
    workplace = Workplace("tiny", store, Leases(store.database, "me", 60), digits, CPU)
    taught = Visit(CONFIG, result.best.point, workplace).teacher()
    teacher = load_teacher(tmp_path / "out")
    images = open_dataset("digits", data_folder()).test()
    with torch.no_grad():
        assert torch.equal(teacher(images.images), taught(digits.test().images))
    correct = correctness(teacher.network, digits.validation, "float32")
    assert correct.double().mean().item() == pytest.approx(result.best_measures["teacher_accuracy"])


@pytest.mark.parametrize("how", ["damaged", "forgotten"])
def test_a_student_that_was_lost_is_trained_again_and_put_back(
    exported: Callable[..., dict[str, Any]], store: Store, said: Console, how: str
) -> None:
    before = exported()["student"]
    row = chosen(store)
    path = blob(store, row.weights)
    if how == "forgotten":
        store.students.forget_weights(row.weights)
    else:
        path.write_bytes(path.read_bytes()[:-1])
    after = exported()
    assert after["student"] == before | {"trained_again": True}
    assert after["notes"] == [
        "The student's weights were lost: it was trained again for this export; it came out as it was."
    ]
    assert "the student's weights are not in the store any more: training it again" in said.export_text()
    assert chosen(store).weights == row.weights
    assert store.artifacts.get(row.weights)
    assert not store.trajectories.checkpoints()
    assert exported()["student"] == before  # nothing is lost any more


def test_a_student_that_comes_out_otherwise_is_not_given_the_others_test_accuracy(
    exported: Callable[..., dict[str, Any]], store: Store
) -> None:
    row = chosen(store)
    elsewhere = {"loss": [1.0, 1.0], "accuracy": [0.5, row.accuracy + 1 / 300]}
    with store.database.session.begin() as session:  # as another processor might have trained it
        key = StudentRow.weights == row.weights
        session.execute(update(StudentRow).where(key).values(curve=elsewhere, accuracy=elsewhere["accuracy"][-1]))
    store.students.forget_weights(row.weights)
    try:
        about = exported()
        assert about["student"]["test_accuracy"] is None
        assert about["student"]["accuracy"]["value"] == row.accuracy
        assert "it came out otherwise" in about["notes"][0]
        assert chosen(store).weights == ""
    finally:
        with store.database.session.begin() as session:
            key = StudentRow.weights == ""
            session.execute(
                update(StudentRow).where(key).values(curve=row.curve, accuracy=row.accuracy, weights=row.weights)
            )


@pytest.mark.parametrize("how", ["damaged", "freed"])
def test_a_teacher_that_was_lost_is_trained_again(
    exported: Callable[..., dict[str, Any]], store: Store, said: Console, how: str
) -> None:
    before = exported()["teacher"]
    for snapshot in store.trajectories.least_recently_used():
        if how == "freed":
            store.trajectories.drop(snapshot)
        else:
            path = blob(store, snapshot.weights)
            path.write_bytes(path.read_bytes()[:-1])
    after = exported()
    assert after["teacher"] == before | {"trained_again": True}
    assert after["notes"][0].startswith("The teacher's weights were lost: it was trained again for this export; its ")
    assert "the teacher's weights are not in the store any more: training it again" in said.export_text()


def test_without_a_confirmation_it_is_one_of_the_searchs_and_nothing_tells_where_the_data_lies(
    tmp_path: Path, url: str, said: Console
) -> None:
    here = tmp_path / "secret-place"
    here.mkdir()
    digits = open_dataset("digits", data_folder())
    train, test = digits.train(), digits.test()
    arrays = {"train_x": train.images, "train_y": train.labels, "test_x": test.images, "test_y": test.labels}
    np.savez(
        here / "mine.npz", **{k: np.moveaxis(v.numpy(), 1, -1) if v.ndim == 4 else v.numpy() for k, v in arrays.items()}
    )
    config = tiny_config(
        data__dataset=f"npz:{here}/mine.npz", search__trials=1, confirm__seeds=0, search__min_steps=10**6
    )
    with Store(url) as store:
        create_or_continue(store, "mine", config, load_study_data(config, data_folder(), CPU))
    work("mine", storage=url, device="cpu")
    about = export("mine", tmp_path / "out", said, storage=url, device="cpu").values
    assert about["student"]["purpose"] == "search"
    assert about["student"]["test_accuracy"] is None
    assert about["students"]["test"] is None
    assert about["dataset"]["name"] == about["config"]["data"]["dataset"] == "npz:mine.npz"
    assert [note.partition(":")[0] for note in about["notes"]] == [
        "The best point is not confirmed",
        "The teacher is under-trained",
        "The student is one of the search's; it has not been looked at on the test split.",
    ]
    for path in (tmp_path / "out").iterdir():
        assert b"secret-place" not in path.read_bytes()
    assert "one of the search's 2 students" in (tmp_path / "out" / "README.md").read_text()


# -- the folder -------------------------------------------------------------------------------------------------------


def test_what_fails_in_the_midst_leaves_the_earlier_export_as_it_was(
    exported: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def interrupted(values: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "card", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            exported()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_export_is_replaced_as_a_whole_and_nothing_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def write(*names: str) -> None:
        with whole_folder(folder, "-o") as partial:
            for name in names:
                (partial / name).write_text('{"format": "sweetspot-export"}')

    write("config.json", "README.md")
    write("config.json")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    (folder / "mine.txt").touch()
    with pytest.raises(UserError, match=r"-o \S+/out holds what is no export \(mine.txt\): name a folder"):
        write("config.json")
    assert {path.name for path in folder.iterdir()} == {"config.json", "mine.txt"}


def test_what_has_come_there_meanwhile_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def write() -> None:
        with whole_folder(folder, "-o"):
            folder.mkdir()
            (folder / "mine.txt").touch()

    with pytest.raises(UserError, match="holds what is no export"):
        write()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_folder(tmp_path / "link", "-o") as partial:
        (partial / "config.json").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "config.json").exists()
