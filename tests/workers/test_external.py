"""A teacher that was trained elsewhere: registered, measured, and an arm of the confirmation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_study import tiny_config

from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import UserError
from sweetspot.models import build
from sweetspot.report.result import StudyResult, read_result
from sweetspot.store import Store
from sweetspot.store.artifacts import Artifacts
from sweetspot.store.url import data_folder
from sweetspot.study.arms import ALONE, BEST, YOURS
from sweetspot.study.deletion import delete_study
from sweetspot.study.housekeeping import collect, usage, verify
from sweetspot.study.search import create_or_continue, load
from sweetspot.workers.external import AddedTeacher, add_teacher, remove_teacher
from sweetspot.workers.worker import work

CONFIG = tiny_config(search__trials=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "mine.safetensors"
    save_file(build("convnet", classes=10, channels=1, image_size=8).state_dict(), path)
    return path


def add(url: str, file: Path, config: StudyConfig = CONFIG, epochs: int = 240, name: str | None = None) -> AddedTeacher:
    return add_teacher(file, config, epochs, name=name, storage=url, device="cpu")


def run(store: Store, url: str, config: StudyConfig = CONFIG, name: str = "tiny") -> StudyResult:
    create_or_continue(store, name, config, load_study_data(config, data_folder(), torch.device("cpu")))
    work(name, storage=url, device="cpu")
    return read_result(store, name)


def test_it_joins_the_next_confirmation_and_nothing_else_is_trained_again(store: Store, url: str, file: Path) -> None:
    first = run(store, url)
    added = add(url, file)
    assert (added.teacher.name, added.teacher.epochs, added.studies) == ("mine", 240, ("tiny",))
    assert set(added.measured) == {"train", "validation"}
    second = run(store, url)
    assert first.confirmation is not None
    assert second.confirmation is not None
    assert second.confirmation.plan.looks == first.confirmation.plan.looks + 1
    for arm in (BEST, ALONE):
        assert second.confirmation.accuracies[arm] == first.confirmation.accuracies[arm]
    assert len(second.confirmation.accuracies[YOURS]) == 2
    assert second.cost.student_epochs == first.cost.student_epochs + 2 * 2
    assert second.cost.teacher_epochs_trained == first.cost.teacher_epochs_trained
    answer = second.to_dict()
    assert answer["baselines"][YOURS].items() >= {"name": "mine", "model": "convnet", "epochs": 240}.items()
    gain = second.confirmation.gains[YOURS]
    assert gain is not None
    assert answer["gain"][f"over_{YOURS}"]["mean"] == gain.mean
    assert "over your teacher mine is" in answer["verdict"]


def test_one_that_was_there_before_the_study_takes_part_and_so_does_a_second_one(
    store: Store, url: str, file: Path
) -> None:
    assert add(url, file).studies == ()
    torch.manual_seed(8)
    save_file(build("mlp", classes=10, channels=1, image_size=8).state_dict(), file)
    add(url, file, tiny_config(teacher__model="mlp"), name="a <b>small</b> one")
    confirmed = run(store, url).confirmation
    assert confirmed is not None
    assert list(confirmed.accuracies)[-2:] == [YOURS, f"{YOURS}_2"]
    assert confirmed.accuracies[YOURS] != confirmed.accuracies[f"{YOURS}_2"]


def test_it_is_kept_whatever_is_freed_and_whichever_study_goes(store: Store, url: str, file: Path) -> None:
    teacher = add(url, file).teacher
    run(store, url)
    freed = collect(store, 0)
    assert teacher.weights not in {item.what for item in freed.freed}
    assert "it was trained elsewhere" in freed.needed
    record = store.studies.get("tiny")
    assert record is not None
    delete_study(store, record)
    assert store.artifacts.get(teacher.weights)
    assert usage(store).teachers == len(store.artifacts.get(teacher.weights))
    remove_teacher(store, "mine")
    assert usage(store).teachers == 0


def test_one_that_was_removed_takes_no_part_any_more(store: Store, url: str, file: Path) -> None:
    weights = add(url, file).teacher.weights
    with pytest.raises(UserError, match=r"no teacher is called 'min'.*mine \("):
        remove_teacher(store, "min")
    remove_teacher(store, weights[:8])
    assert store.external_teachers.all() == []
    confirmed = run(store, url).confirmation
    assert confirmed is not None
    assert YOURS not in confirmed.accuracies


def test_one_that_is_lost_costs_the_other_arms_nothing(store: Store, url: str, file: Path) -> None:
    weights = add(url, file).teacher.weights
    Artifacts(store.artifacts.url).discard(weights)
    result = run(store, url)
    assert result.confirmation is not None
    assert YOURS not in result.confirmation.accuracies
    assert "Your teacher mine could not teach." in result.verdict
    errors = [t.user_attrs["error"] for t in load(store, "tiny/confirm").trials if "error" in t.user_attrs]
    assert len(errors) == 3
    assert all("give them again, with sweetspot teacher add" in error for error in errors)
    (damage,) = [d for d in verify(store).damaged if d.blob == weights]
    assert damage.what == "your teacher mine"
    assert store.external_teachers.all() == []


def test_half_precision_and_missing_counters_are_taken(store: Store, url: str, file: Path) -> None:
    state = build("convnet", classes=10, channels=1, image_size=8).state_dict()
    save_file({key: value.half() for key, value in state.items() if not key.endswith("num_batches_tracked")}, file)
    add(url, file)
    (teacher,) = store.external_teachers.all()
    assert teacher.model == "convnet"


def test_what_is_not_such_a_network_is_refused_and_nothing_is_recorded(store: Store, url: str, file: Path) -> None:
    def refused(match: str, config: StudyConfig = CONFIG) -> None:
        with pytest.raises(UserError, match=match):
            add(url, file, config)
        assert store.external_teachers.all() == []
        assert store.trajectories.recipes() == {}

    refused(r"mine.safetensors does not hold a mlp for 10 classes and 1x8x8 images: it lacks 1.bias, 1.weight, 3.bias "
            r"and 1 more, has bn1.bias, .* and \d+ more", tiny_config(teacher__model="mlp"))  # fmt: skip
    state = build("convnet", classes=10, channels=1, image_size=8).state_dict()
    save_file(state | {"classifier.bias": torch.zeros(9)}, file)
    refused("has another shape of classifier.bias")
    save_file(state | {"classifier.bias": torch.full((10,), float("nan"))}, file)
    refused("not finite")
    file.write_bytes(b"\x80\x04K\x01.")
    refused("is not a safetensors file")
    file.unlink()
    refused("cannot read .*mine.safetensors: No such file")


def test_what_was_trained_elsewhere_was_not_saved_by_sharing(store: Store, url: str, file: Path) -> None:
    add(url, file, epochs=100_000)
    cost = run(store, url).cost
    assert cost.teacher_epochs_requested < 100


def test_a_name_means_one_teacher_and_a_new_name_is_no_new_one(store: Store, url: str, file: Path) -> None:
    add(url, file)
    looks = run(store, url).record.test_looks
    add(url, file, name="renamed")
    assert [t.name for t in store.external_teachers.all()] == ["renamed"]
    assert run(store, url).record.test_looks == looks
    torch.manual_seed(9)
    save_file(build("convnet", classes=10, channels=1, image_size=8).state_dict(), file)
    with pytest.raises(UserError, match=r"another teacher is called 'renamed' \(\w{8}\): give this one another --name"):
        add(url, file, name="renamed")


def test_a_network_that_this_worker_cannot_build_costs_the_other_arms_nothing(
    store: Store, url: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = add(url, file).teacher
    store.external_teachers.remove(teacher)
    store.external_teachers.add(replace(teacher, model="of-a-plug-in"))
    result = run(store, url)
    assert result.confirmation is not None
    assert "could not teach" in result.verdict
    assert "failed: unknown model 'of-a-plug-in'" in caplog.text
    assert "Traceback" not in caplog.text
