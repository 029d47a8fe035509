"""What a study will cost on a device, from a short measurement, before it starts."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot.config import Precision, StudyConfig
from sweetspot.data.study_data import StudyData
from sweetspot.models import build, count_parameters
from sweetspot.student.losses import Distillation
from sweetspot.study.confirmation import ARMS
from sweetspot.study.space import Point, distributions
from sweetspot.training.engine import autocast, respond
from sweetspot.training.inference import folded
from sweetspot.training.optimizers import optimizer
from sweetspot.training.schedules import schedule
from sweetspot.training.steps import step_for

_MEASURE_SECONDS = 1.0
_MOST_CALLS = {"cpu": 20, "cuda": 10_000}
"""On a GPU so many that a step is recorded as a graph meanwhile, as it is in a run."""
_DRAWS = 100


@dataclass(frozen=True)
class Shape:
    """What an estimate needs to know of a data set."""

    classes: int
    channels: int
    image_size: int
    train_images: int
    validation_images: int

    @classmethod
    def of(cls, data: StudyData) -> "Shape":
        return cls(len(data.classes), data.channels, data.image_size, data.train_images, len(data.validation))


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a study, its confirmation included; nothing pruned.

    Attributes:
        teacher_epochs: trained, with sharing.
        teacher_epochs_unshared: what the same trials would train without it.
        student_epochs: of all students together.
        disk_bytes: of snapshots and students.
        seconds: on all workers together, wall time.
        per_teacher_epoch, per_student_epoch: seconds of one worker.
    """

    teacher_epochs: int
    teacher_epochs_unshared: int
    student_epochs: int
    disk_bytes: int
    seconds: float
    per_teacher_epoch: float
    per_student_epoch: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def estimate(config: StudyConfig, shape: Shape, device: torch.device, workers: int) -> Estimate:
    """Time a few steps of teacher and student on made-up images of the right shape, and add up.

    Args:
        config: with every "auto" resolved.
        workers: that will share the work.
    """
    teacher, student = (
        build(name, classes=shape.classes, channels=shape.channels, image_size=shape.image_size)
        .to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name in (config.teacher.model, config.student.model)
    )  # fmt: skip
    sizes = config.search.batch_size
    middle = sizes[len(sizes) // 2]
    teacher_step = _step_seconds(
        teacher, config.teacher.optimizer, config.teacher.precision, middle, shape, device, None
    )
    student_step = _step_seconds(
        student, config.student.optimizer, config.student.precision, config.student.batch_size, shape, device,
        Distillation(config.student.temperature, config.student.alpha),
    )  # fmt: skip
    response = _response_seconds(teacher, config.teacher.precision, shape, device)
    # Each teacher epoch measures both probes; every epoch of students shows the teacher one epoch of views.
    per_teacher_epoch = teacher_step * (shape.train_images // middle) + 2 * shape.validation_images * response
    per_student_epoch = student_step * (shape.train_images // config.student.batch_size)
    replicates, arms = config.student.replicates.max, len(ARMS)
    shared, unshared = expected_teacher_epochs(config)
    trials, seeds = config.search.trials, config.confirm.seeds
    shared += config.search.ladder[-1] // 2 if seeds else 0
    unshared += 3 * config.search.ladder[-1] // 2 if seeds else 0
    student_epochs = config.student.epochs * (trials * replicates + arms * seeds)
    passes = config.student.epochs * (trials + (arms - 1) * bool(seeds)) if config.data.augmentation else trials + arms
    seconds = shared * per_teacher_epoch + student_epochs * per_student_epoch + passes * shape.train_images * response
    size = disk_bytes(config, shape)
    return Estimate(shared, unshared, student_epochs, size, seconds / workers, per_teacher_epoch, per_student_epoch)


def with_trials(config: StudyConfig, trials: int) -> StudyConfig:
    """The configuration of a study that has so many trials left."""
    return config.model_copy(update={"search": config.search.model_copy(update={"trials": trials})})


def disk_bytes(config: StudyConfig, shape: Shape) -> int:
    """The most that a study's networks take: its teachers, and its students."""
    students = config.search.trials * config.student.replicates.max + len(ARMS) * config.confirm.seeds
    return teacher_bytes(config, shape) + 4 * students * _parameters(config.student.model, shape)


def teacher_bytes(config: StudyConfig, shape: Shape) -> int:
    """The most that snapshots take: of every rung, and of where its branch hangs, with the optimisers' states."""
    search = config.search
    states = 2 if config.teacher.optimizer.name == "adamw" else 1
    teacher = max(_parameters(name, shape) for name in search.teacher.model or (config.teacher.model,))
    rule = schedule(config.teacher.schedule, search.ladder[0])
    branch_points = {rule.shared_epochs(rung) for rung in search.ladder} - {0}
    kept = len(branch_points | set(search.ladder)) + sum(rule.shared_epochs(rung) < rung for rung in search.ladder)
    own = any(name.startswith("teacher.") for name in distributions(config))  # every trial may have its own recipe
    recipes = search.trials if own else min(len(search.batch_size), search.trials)
    return 4 * recipes * (kept + states * len(branch_points)) * teacher


def _parameters(name: str, shape: Shape) -> int:
    model = build(name, classes=shape.classes, channels=shape.channels, image_size=shape.image_size)
    return count_parameters(model)


def expected_teacher_epochs(config: StudyConfig) -> tuple[int, int]:
    """Teacher epochs of ``trials`` points drawn at random without repetition: with sharing, and without."""
    plan = schedule(config.teacher.schedule, config.search.ladder[0])
    others = [name for name in distributions(config) if name.startswith("teacher.")]
    grid = [Point(b, e) for b in config.search.batch_size for e in config.search.ladder]
    shared = unshared = 0
    for draw in range(_DRAWS):
        rng = random.Random(draw)
        rounds, rest = divmod(config.search.trials, len(grid))
        chosen = grid * rounds + rng.sample(grid, rest)
        unshared += sum(p.epochs for p in chosen)
        if others:  # another teacher at every trial: nothing can be shared
            shared += sum(p.epochs for p in chosen)
            continue
        trunks: dict[int, int] = {}
        for point in set(chosen):
            trunk = plan.shared_epochs(point.epochs)
            trunks[point.batch_size] = max(trunks.get(point.batch_size, 0), trunk)
            shared += point.epochs - trunk
        shared += sum(trunks.values())
    return round(shared / _DRAWS), round(unshared / _DRAWS)


def _step_seconds(
    model: nn.Module,
    options: object,
    precision: Precision,
    batch_size: int,
    shape: Shape,
    device: torch.device,
    distillation: Distillation | None,
) -> float:
    images = _images(batch_size, shape, device)
    labels = torch.arange(batch_size, device=device) % shape.classes
    taught = torch.randn(batch_size, shape.classes, device=device)

    def loss(logits: Tensor, labels: Tensor, taught: Tensor) -> Tensor:
        return distillation(logits, taught, labels)["loss"] if distillation else F.cross_entropy(logits, labels)

    model.train()
    step = step_for(model, optimizer(model, options), loss)  # type: ignore[arg-type]
    with autocast(device, precision):
        return _timed(lambda: step(images, (labels, taught), 0.0), device)


def _response_seconds(model: nn.Module, precision: Precision, shape: Shape, device: torch.device) -> float:
    """Seconds per image."""
    images = _images(min(256, shape.train_images), shape, device)
    quick = folded(model.eval(), images[:8], precision)
    return _timed(lambda: respond(quick, images, precision), device) / len(images)


def _images(count: int, shape: Shape, device: torch.device) -> torch.Tensor:
    images = torch.randn(count, shape.channels, shape.image_size, shape.image_size, device=device)
    return images.contiguous(memory_format=torch.channels_last)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: the fastest of a few after a first one, within about a second altogether."""
    call()
    best, began = float("inf"), time.perf_counter()
    for _ in range(_MOST_CALLS[device.type]):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() - began > _MEASURE_SECONDS:
            break
    return best
