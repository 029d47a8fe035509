"""Distilling students, on real digits: what they depend on, and what they leave alone."""

import copy
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot import config
from sweetspot.config import StudyConfig
from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.models import build
from sweetspot.store import Store
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.students import StudentStore
from sweetspot.store.url import data_folder
from sweetspot.student import checkpoints as checkpoints_module
from sweetspot.student import distillation as distillation_module
from sweetspot.student.checkpoints import StudentCheckpoints
from sweetspot.student.distillation import DistillationRecipe, TrainedStudent, correctness, distill
from sweetspot.student.responses import ResponseCache
from sweetspot.training.engine import DivergedError, Training, epoch_order, recompute_batchnorm
from sweetspot.training.optimizers import optimizer
from sweetspot.training.weights import to_bytes

CPU = torch.device("cpu")
SEARCH = "search"


def study(augmentation: tuple[str, ...] = ("crop",), seed: int = 0, **student: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "seed": seed,
            "data": {"dataset": "digits", "validation": 200, "augmentation": augmentation},
            "search": {"batch_size": [64], "epochs": [1, 2]},
            "student": {"model": "mlp", "epochs": 2, "batch_size": 32, "precision": "float32"} | student,
        }
    )


@pytest.fixture(scope="module")
def digits() -> StudyData:
    torch.set_num_threads(1)
    return load_study_data(study(), data_folder(), CPU)


@pytest.fixture(scope="module")
def teacher(digits: StudyData) -> nn.Module:
    """A network with BatchNorm that has been trained for three epochs."""
    return taught(digits, seed=0, epochs=3)


def taught(digits: StudyData, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = build("convnet", classes=10, channels=1, image_size=8)
    optim = optimizer(model, config.SGD())
    training = Training(model, optim, F.cross_entropy, batch_size=64, precision="float32", seed=seed)
    for epoch in range(epochs):
        views = digits.views(seed, epoch)
        training.epoch(views, (digits.labels,), [0.1] * 18, epoch)
    recompute_batchnorm(model, views, torch.arange(len(views)), 64, "float32")
    model.zero_grad()
    return model.requires_grad_(False)


def students(
    study: StudyConfig,
    digits: StudyData,
    teacher: nn.Module | None,
    *replicates: int,
    purpose: Any = SEARCH,
) -> list[TrainedStudent]:
    return distill(study, digits, teacher, "float32", replicates, purpose, CPU)


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "convnet"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "distilled"])
def test_a_student_learns(digits: StudyData, teacher: nn.Module, model: str, alone: bool) -> None:
    (student,) = students(study(model=model, epochs=6), digits, None if alone else teacher, 0)
    assert student.accuracy > 0.8
    assert student.losses[-1] < student.losses[0] / 2
    assert student.accuracy == correctness(student.model, digits.validation, "float32").double().mean().item()


def test_a_student_of_the_teacher_alone_learns_without_seeing_a_label(digits: StudyData, teacher: nn.Module) -> None:
    (student,) = students(study(epochs=6, alpha=1.0), digits, teacher, 0)
    assert student.accuracy > 0.8


def test_a_student_reports_every_epoch(digits: StudyData, teacher: nn.Module) -> None:
    seen: list[tuple[str, int, float | None]] = []
    trained = distill(
        study(epochs=3), digits, teacher, "float32", (4, 7), SEARCH, CPU, lambda *event: seen.append(event)
    )
    assert [student.replicate for student in trained] == [4, 7]
    assert all(len(student.losses) == len(student.accuracies) == 3 for student in trained)
    assert all(student.accuracy == student.accuracies[-1] for student in trained)
    assert all(student.seconds > 0 for student in trained)
    assert seen == [("student", epoch, None) for epoch in (1, 1, 2, 2, 3, 3)]


def test_the_last_epoch_counts_and_not_the_best(digits: StudyData) -> None:
    """Reporting the best epoch adds accuracy that is not there."""
    unsteady = study(epochs=5, schedule={"name": "constant"}, optimizer={"lr": 0.5})
    trained = students(unsteady, digits, None, *range(4))
    assert any(student.accuracy < max(student.accuracies) for student in trained)
    assert all(student.accuracy == student.accuracies[-1] for student in trained)


def test_a_students_weights_are_those_of_its_network(digits: StudyData) -> None:
    (student,) = students(study(), digits, None, 0)
    assert student.weights == to_bytes(student.model.state_dict())


def test_a_student_that_diverges_says_so(digits: StudyData, teacher: nn.Module) -> None:
    with pytest.raises(DivergedError, match="loss not finite in epoch 1"):
        students(study(optimizer={"lr": 1e30}), digits, teacher, 0)


def test_a_student_may_be_stopped_at_every_epoch(digits: StudyData) -> None:
    def stop(phase: str, epoch: int, entropy: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(study(), digits, None, "float32", (0, 1), SEARCH, CPU, stop)


# -- the teacher ------------------------------------------------------------------------------------------------------


def test_the_teacher_never_changes(digits: StudyData, teacher: nn.Module) -> None:
    before = copy.deepcopy(teacher.state_dict())
    students(study(), digits, teacher, 0, 1)
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(("augmentation", "passes"), [(("crop",), 3), ((), 1)])
def test_each_view_is_shown_to_the_teacher_once_whatever_the_number_of_students(
    teacher: nn.Module, augmentation: tuple[str, ...], passes: int
) -> None:
    class Untraceable(nn.Module):
        """As the teacher; what it is shown is known."""

        def forward(self, x: Tensor) -> Tensor:
            shown.append(len(x))
            logits: Tensor = teacher(x)
            return logits

    chosen = study(augmentation, epochs=3)
    data = load_study_data(chosen, data_folder(), CPU)
    shown: list[int] = []
    students(chosen, data, Untraceable(), 0, 1, 2)
    assert sum(shown) == passes * data.train_images


def test_a_student_is_trained_as_plain_pytorch_would(teacher: nn.Module) -> None:
    """The loop that asks the teacher anew for every batch, in the order that the replicate's seed gives."""
    gentle = {"name": "sgd", "lr": 0.02}  # with a large one, rounding grows to differences that depend on the processor
    chosen = study((), schedule={"name": "constant"}, alpha=0.7, temperature=2.0, epochs=3, optimizer=gentle)
    data = load_study_data(chosen, data_folder(), CPU)
    (student,) = students(chosen, data, teacher, 5)

    seed = seed_of(0, "student", "search", 5)
    torch.manual_seed(seed_of(seed, "weights"))
    model = build("mlp", classes=10, channels=1, image_size=8)
    sgd = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    views = data.views(0, 0)
    for epoch in range(3):
        for batch in epoch_order(len(views), 32, seed, epoch, CPU).split(32):
            logits, response = model(views[batch]), teacher(views[batch])
            divergence = F.kl_div(
                F.log_softmax(logits / 2, 1), F.log_softmax(response / 2, 1), log_target=True, reduction="batchmean"
            )
            loss = 0.3 * F.cross_entropy(logits, data.labels[batch]) + 0.7 * 2**2 * divergence
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    for mine, plain in zip(student.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)


# -- what a student depends on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "convnet-narrow"])
def test_a_replicate_does_not_depend_on_which_others_run_beside_it(
    digits: StudyData, teacher: nn.Module, model: str
) -> None:
    chosen = study(model=model)
    together = {s.replicate: s for s in students(chosen, digits, teacher, 0, 1, 2)}
    turned = {s.replicate: s for s in students(chosen, digits, teacher, 2, 0)}
    (alone,) = students(chosen, digits, teacher, 1)
    assert alone.weights == together[1].weights
    assert alone.losses == together[1].losses
    assert turned[0].weights == together[0].weights
    assert turned[2].weights == together[2].weights
    assert len({student.weights for student in together.values()}) == 3


def test_equal_seeds_give_equal_students_whatever_was_drawn_before(digits: StudyData, teacher: nn.Module) -> None:
    torch.manual_seed(1)
    (first,) = students(study(), digits, teacher, 0)
    torch.manual_seed(2)
    (second,) = students(study(), load_study_data(study(), data_folder(), CPU), teacher, 0)
    assert first.weights == second.weights
    assert first.accuracies == second.accuracies


def test_a_confirmation_has_seeds_that_no_search_has_seen(digits: StudyData, teacher: nn.Module) -> None:
    searched = students(study(), digits, teacher, 0, 1, 2)
    confirmed = students(study(), digits, teacher, 0, 1, 2, purpose="confirm")
    assert len({student.weights for student in searched + confirmed}) == 6


def test_another_study_seed_gives_other_students(digits: StudyData, teacher: nn.Module) -> None:
    (one,), (other,) = students(study(), digits, teacher, 0), students(study(seed=1), digits, teacher, 0)
    assert one.weights != other.weights


def test_equal_replicates_of_two_teachers_are_a_pair(digits: StudyData, teacher: nn.Module) -> None:
    """The same initial weights, order and views: where the teacher has no say, the students are equal."""
    other = taught(digits, seed=1, epochs=1)
    without_a_say = study(alpha=0.0)
    (one,), (two,) = (students(without_a_say, digits, t, 0) for t in (teacher, other))
    (alone,) = students(study(), digits, None, 0)
    assert one.weights == two.weights == alone.weights
    (one,), (two,) = (students(study(), digits, t, 0) for t in (teacher, other))
    assert one.weights != two.weights


def test_the_student_alone_depends_on_neither_temperature_nor_alpha(digits: StudyData) -> None:
    (one,) = students(study(temperature=4.0, alpha=0.9), digits, None, 0)
    (other,) = students(study(temperature=1.0, alpha=0.1), digits, None, 0)
    assert one.weights == other.weights


@pytest.mark.parametrize("values", [{"temperature": 2.0}, {"alpha": 0.5}])
def test_a_distilled_student_depends_on_temperature_and_alpha(
    digits: StudyData, teacher: nn.Module, values: dict[str, float]
) -> None:
    (one,), (other,) = students(study(), digits, teacher, 0), students(study(**values), digits, teacher, 0)
    assert one.weights != other.weights


# -- identity ---------------------------------------------------------------------------------------------------------

TEACHER = ("a" * 64, 20)


def identity(teacher: tuple[str, int] | None = TEACHER, data_hash: str = "d" * 64, **values: Any) -> str:
    return DistillationRecipe(StudyConfig.model_validate(values), data_hash, teacher).hash


@pytest.mark.parametrize(
    "values",
    [
        {"teacher": ("b" * 64, 20)},
        {"teacher": ("a" * 64, 21)},
        {"teacher": None},
        {"data_hash": "e" * 64},
        {"seed": 1},
        {"data": {"validation": 4000}},
        {"data": {"augmentation": []}},
        {"student": {"model": "resnet8"}},
        {"student": {"epochs": 61}},
        {"student": {"batch_size": 64}},
        {"student": {"optimizer": {"lr": 0.05}}},
        {"student": {"schedule": {"name": "constant"}}},
        {"student": {"temperature": 2.0}},
        {"student": {"alpha": 0.5}},
        {"student": {"precision": "float32"}},
    ],
    ids=str,
)
def test_whatever_changes_a_student_makes_another_distillation(values: dict[str, Any]) -> None:
    assert identity(**values) != identity()


@pytest.mark.parametrize(
    "values",
    [
        {"data": {"dataset": "npz:/elsewhere/the-same-images.npz"}},
        {"student": {"replicates": {"min": 2, "max": 9}}},
        {"search": {"trials": 3, "epochs": [1, 2]}},
        {"pruner": {"name": "none"}},
        {"confirm": {"seeds": 9}},
        {"run": {"checkpoint_seconds": 1.0}},
    ],
    ids=str,
)
def test_whatever_does_not_change_a_student_leaves_the_distillation(values: dict[str, Any]) -> None:
    assert identity(**values) == identity()


def test_how_a_teacher_was_made_is_told_by_its_recipe_alone() -> None:
    configs = [StudyConfig.model_validate({"teacher": {"model": model}}) for model in ("resnet56", "resnet110")]
    assert len({DistillationRecipe(each, "d" * 64, TEACHER).hash for each in configs}) == 1


@pytest.mark.parametrize("values", [{"temperature": 2.0}, {"alpha": 0.5}])
def test_the_student_alone_is_the_same_at_any_temperature_and_alpha(values: dict[str, float]) -> None:
    assert identity(None, student=values) == identity(None)
    assert identity(None, student=values | {"epochs": 61}) != identity(None)


# -- interrupted ------------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


class Killing(StudentCheckpoints):
    """Checkpoints that are due after every step, in a process that is killed after so many."""

    def __init__(self, store: StudentStore, left: int) -> None:
        super().__init__(store, "d" * 64, SEARCH, seconds=0.0)
        self._left = left

    def is_due(self) -> bool:
        self._left -= 1
        if self._left == 0:
            raise KilledError
        return True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


# the pairs of an optimiser, a schedule, a precision and an augmentation
INTERRUPTED = [
    ({"name": "sgd"}, {"name": "cosine"}, "float32", ("crop",)),
    pytest.param({"name": "sgd"}, {"name": "constant"}, "bfloat16", (), marks=pytest.mark.slow),
    ({"name": "adamw"}, {"name": "cosine"}, "bfloat16", ("crop", "flip")),
    pytest.param({"name": "adamw"}, {"name": "multistep"}, "float32", ("flip",), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("optimizer_", "schedule", "precision", "augmentation"), INTERRUPTED)
@pytest.mark.parametrize("alone", [False], ids=["distilled"])
def test_students_killed_at_random_steps_equal_those_that_were_not(
    store: Store, teacher: nn.Module, alone: bool,
    optimizer_: dict[str, Any], schedule: dict[str, Any], precision: str, augmentation: tuple[str, ...],
) -> None:  # fmt: skip
    options = study(
        augmentation, epochs=3, optimizer=optimizer_, schedule=schedule, precision=precision, model="convnet"
    )
    data = load_study_data(options, data_folder(), CPU)
    by = None if alone else teacher
    whole = students(options, data, by, 0, 3, 4)
    rng = random.Random(precision)
    steps = 3 * 3 * (data.train_images // 32)
    taken = kills = 0
    while True:
        left = rng.randint(1, steps // 2)
        torch.manual_seed(kills)
        checkpoints = Killing(store.students, left)
        try:
            trained = distill(options, data, by, "float32", (0, 3, 4), SEARCH, CPU, checkpoints=checkpoints)
        except KilledError:
            taken, kills = taken + left, kills + 1
        else:
            taken += left - checkpoints._left
            break
    assert kills >= 2
    assert taken <= steps + 2 * kills, "at every kill one step is lost, two at the end of an epoch"
    for mine, theirs in zip(trained, whole, strict=True):
        assert (mine.losses, mine.accuracies) == (theirs.losses, theirs.accuracies)
        assert mine.weights == theirs.weights


def test_a_student_goes_on_whichever_others_run_beside_it(store: Store, digits: StudyData, teacher: nn.Module) -> None:
    whole = students(study(), digits, teacher, 0, 1, 2)
    with pytest.raises(KilledError):
        distill(study(), digits, teacher, "float32", (0, 1), SEARCH, CPU, checkpoints=Killing(store.students, 60))
    again = Killing(store.students, 10**9)
    trained = distill(study(), digits, teacher, "float32", (1, 2), SEARCH, CPU, checkpoints=again)
    assert [student.weights for student in trained] == [student.weights for student in whole[1:]]
    assert [student.losses for student in trained] == [student.losses for student in whole[1:]]


def test_students_are_saved_when_it_is_time_and_not_before(
    store: Store, digits: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoints_module.time, "monotonic", lambda: now[0])
    checkpoints = StudentCheckpoints(store.students, "d" * 64, SEARCH, seconds=60)
    saved: list[tuple[float, tuple[int, int]]] = []
    inner = store.students.save_checkpoint

    def save(checkpoint: Checkpoint) -> None:
        saved.append((now[0], checkpoint.position))
        inner(checkpoint)

    def tick(loss: torch.Tensor) -> torch.Tensor:
        now[0] += 1
        return loss

    monkeypatch.setattr(store.students, "save_checkpoint", save)
    monkeypatch.setattr(
        distillation_module, "CrossEntropy", lambda smoothing: lambda z, t, y: {"loss": tick(F.cross_entropy(z, y))}
    )
    distill(study(epochs=5), digits, None, "float32", (0,), SEARCH, CPU, checkpoints=checkpoints)
    steps = digits.train_images // 32
    assert saved == [(61.0, divmod(61, steps)), (122.0, divmod(122, steps)), (183.0, divmod(183, steps))]


@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_damaged_checkpoint_is_not_gone_on_from(
    store: Store, digits: StudyData, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    (whole,) = students(study(), digits, None, 0)
    with pytest.raises(KilledError):
        distill(study(), digits, None, "float32", (0,), SEARCH, CPU, checkpoints=Killing(store.students, 30))
    (file,) = store.artifacts.files()
    Path(file.path).unlink() if how == "missing" else Path(file.path).write_bytes(b"weights")
    again = Killing(store.students, 10**9)
    (trained,) = distill(study(), digits, None, "float32", (0,), SEARCH, CPU, checkpoints=again)
    assert f"blob {file.name[:12]} is" in caplog.text
    assert trained.weights == whole.weights


def test_without_room_for_a_checkpoint_students_train_on(
    store: Store, digits: StudyData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    never = Killing(store.students, 10**9)
    (trained,) = distill(study(), digits, None, "float32", (0,), SEARCH, CPU, checkpoints=never)
    assert trained.losses == students(study(), digits, None, 0)[0].losses
    assert "No space left on device" in caplog.text


# -- responses that are kept ------------------------------------------------------------------------------------------


def test_responses_that_are_kept_are_never_misaligned(digits: StudyData, teacher: nn.Module) -> None:
    """Asked for by students in other orders, of other replicates, at other temperatures, in between by another one."""
    other = taught(digits, seed=1, epochs=1)
    cache = ResponseCache()

    def trained(snapshot: nn.Module, name: str, *replicates: int, temperature: float = 4.0) -> list[bytes]:
        chosen = study(temperature=temperature)
        kept = distill(chosen, digits, snapshot, "float32", replicates, SEARCH, CPU, responses=cache.of((name, 3)))
        assert [s.weights for s in kept] == [s.weights for s in students(chosen, digits, snapshot, *replicates)]
        return [s.weights for s in kept]

    first = trained(teacher, "one", 0, 1)
    assert trained(teacher, "one", 1, 0) == first[::-1]
    assert trained(teacher, "one", 2) != first[:1]
    trained(teacher, "one", 0, temperature=2.0)
    assert trained(other, "other", 0) != first[:1]
    assert trained(teacher, "one", 0) == first[:1]


def test_a_snapshot_that_teaches_again_is_not_asked_again(digits: StudyData, teacher: nn.Module) -> None:
    class Asked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(len(x))
            logits: Tensor = teacher(x)
            return logits

    shown: list[int] = []
    cache = ResponseCache()
    for replicates, purpose in (((0, 1), SEARCH), ((2,), SEARCH), ((0,), "confirm")):
        distill(study(), digits, Asked(), "float32", replicates, purpose, CPU, responses=cache.of("it"))  # type: ignore[arg-type]
    assert sum(shown) == 2 * 2 * digits.train_images  # two epochs of the search's views, two of the confirmation's
