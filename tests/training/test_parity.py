"""The engine changes nothing of the science: its losses are those of a loop that anybody would write.

Held against plain PyTorch with torchvision's transforms, one image at a time, and the teacher in the loop.
"""

import itertools
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import functional as tv

from sweetspot.config import Precision, StudyConfig
from sweetspot.data.digits import Digits
from sweetspot.data.seeding import seed_of
from sweetspot.data.split import split
from sweetspot.data.study_data import StudyData
from sweetspot.models import build
from sweetspot.store.url import data_folder
from sweetspot.student.distillation import distill
from sweetspot.student.losses import Distillation
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.training import TeacherTraining

CPU = torch.device("cpu")
TEACHER = "convnet"
BATCH = 64
EPOCHS = 2


def study(student: str, precision: Precision = "float32", epochs: int = EPOCHS) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "data": {"dataset": "digits", "validation": 200, "augmentation": ["crop", "flip"]},
            "teacher": {
                "model": TEACHER,
                "precision": precision,
                "schedule": {"name": "constant"},
                "lr_rule": {"name": "none"},
                "optimizer": {"lr": 0.05},
            },
            "search": {"batch_size": [BATCH], "epochs": [1, EPOCHS]},
            "student": {
                "model": student,
                "epochs": epochs,
                "batch_size": BATCH,
                "precision": precision,
                "schedule": {"name": "constant"},
                "optimizer": {"lr": 0.05},
                "temperature": 3.0,
                "alpha": 0.8,
            },
        }
    )


@pytest.fixture(scope="module")
def data() -> StudyData:
    torch.set_num_threads(1)
    return StudyData(Digits(data_folder()), study("mlp"), CPU)


class PlainLoop:
    """A training run as a tutorial writes it; what is random in it is drawn as the engine documents it."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model = model
        self.seed = seed
        self.sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        images = Digits(data_folder()).train()
        train, _ = split(images.labels, 200, seed_of(0, "split"))
        self.images, self.labels = images.images[train], images.labels[train]
        pixels = self.images.double() / 255
        self.mean, self.std = pixels.mean().item(), pixels.std(correction=0).item()

    def batches(self, view_seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, augmented and normalised one at a time, and labels."""
        count = len(self.images)
        draws = torch.Generator()
        top, left = torch.randint(
            3, (2, count), generator=draws.manual_seed(seed_of(view_seed, epoch, "crop"))
        ).tolist()
        mirrored = torch.randint(2, (count,), generator=draws.manual_seed(seed_of(view_seed, epoch, "flip"))).tolist()
        order = torch.randperm(count, generator=draws.manual_seed(seed_of(self.seed, "order", epoch))).tolist()
        for first in range(0, count - BATCH + 1, BATCH):
            chosen = order[first : first + BATCH]
            views = []
            for i in chosen:
                image = tv.crop(tv.pad(self.images[i], [1]), top[i], left[i], 8, 8)
                image = tv.hflip(image) if mirrored[i] else image
                views.append(tv.normalize(image / 255, [self.mean], [self.std]))
            yield torch.stack(views), self.labels[chosen]

    def step(self, loss: Tensor) -> float:
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        return loss.item()


def plain_teacher() -> tuple[nn.Module, list[float]]:
    torch.manual_seed(seed_of(0, "teacher", "weights"))
    loop = PlainLoop(build(TEACHER, classes=10, channels=1, image_size=8), seed_of(0, "teacher"))
    loop.model.train()
    losses = [
        loop.step(F.cross_entropy(loop.model(images), labels))
        for epoch in range(EPOCHS)
        for images, labels in loop.batches(loop.seed, epoch)
    ]
    return loop.model.eval(), losses


def engine_teacher(data: StudyData) -> tuple[nn.Module, list[float]]:
    training = TeacherTraining.fresh(Recipe(study("mlp"), data.hash, BATCH), data, CPU)
    losses: list[float] = []
    for _ in range(EPOCHS):
        sums = [0.0]
        training.train_epoch(EPOCHS, lambda step, total, sums=sums: sums.append(float(total)))  # type: ignore[misc]
        losses += [after - before for before, after in itertools.pairwise(sums)]
    return training.model.eval(), losses


def assert_same(losses: list[float], expected: list[float]) -> None:
    """Equal but for rounding, which a training run amplifies: a ReLU that turns over is enough."""
    assert losses[:10] == pytest.approx(expected[:10], rel=1e-5)
    assert losses == pytest.approx(expected, rel=1e-2)


def test_a_teachers_losses_are_those_of_a_plain_loop_step_by_step(data: StudyData) -> None:
    plain, expected = plain_teacher()
    engine, losses = engine_teacher(data)
    assert len(losses) == EPOCHS * (data.train_images // BATCH) == 36
    assert losses[-1] < 0.9 * losses[0]
    assert_same(losses, expected)
    with torch.no_grad():
        difference = engine(data.validation.images) - plain(data.validation.images)
    assert difference.abs().mean() < 0.02


def plain_student(
    student: str, teacher: nn.Module, replicate: int, epochs: int = EPOCHS
) -> tuple[nn.Module, list[float]]:
    seed = seed_of(0, "student", "search", replicate)
    torch.manual_seed(seed_of(seed, "weights"))
    loop = PlainLoop(build(student, classes=10, channels=1, image_size=8), seed)
    losses = []
    for epoch in range(epochs):
        for images, labels in loop.batches(seed_of(0, "student", "views", "search"), epoch):
            with torch.no_grad():
                response = teacher(images)
            logits = loop.model(images)
            divergence = F.kl_div(F.log_softmax(logits / 3, 1), F.softmax(response / 3, 1), reduction="batchmean")
            losses.append(loop.step(0.2 * F.cross_entropy(logits, labels) + 0.8 * 9 * divergence))
    return loop.model.eval(), losses


def test_students_losses_are_those_of_a_plain_loop_step_by_step(
    data: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that share the teacher's responses, each in its own order."""
    teacher, _ = plain_teacher()
    seen: list[float] = []
    call = Distillation.__call__

    def watched(self: Distillation, *arguments: Any) -> dict[str, Tensor]:
        terms = call(self, *arguments)
        seen.append(terms["loss"].item())
        return terms

    monkeypatch.setattr(Distillation, "__call__", watched)
    students = distill(study("convnet-narrow"), data, teacher, "float32", (0, 1), "search", CPU)
    steps = data.train_images // BATCH
    by_epoch = [seen[first : first + steps] for first in range(0, len(seen), steps)]
    for replicate, student in enumerate(students):
        plain, expected = plain_student("convnet-narrow", teacher, replicate)
        losses = [loss for epoch in by_epoch[replicate::2] for loss in epoch]
        assert len(losses) == EPOCHS * steps
        assert_same(losses, expected)
        with torch.no_grad():
            difference = student.model(data.validation.images) - plain(data.validation.images)
        assert difference.abs().mean() < 0.02


@pytest.mark.ci
def test_in_bfloat16_students_are_as_accurate_as_a_plain_loops_within_the_noise_of_seeds(data: StudyData) -> None:
    """Of five seeds, each with the weights and the order that it has in the plain loop."""
    teacher, _ = plain_teacher()
    epochs = 6
    students = distill(study("convnet", "bfloat16", epochs), data, teacher, "bfloat16", range(5), "search", CPU)
    gains = []
    for replicate, student in enumerate(students):
        plain, _ = plain_student("convnet", teacher, replicate, epochs)
        with torch.no_grad():
            correct = plain(data.validation.images).argmax(1) == data.validation.labels
        assert student.accuracy > 0.3  # far above chance
        gains.append(student.accuracy - correct.float().mean().item())
    assert abs(statistics.mean(gains)) < 3 * statistics.stdev(gains) / 5**0.5 + 0.005
