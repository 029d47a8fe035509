"""What a study will cost on a device, from a short measurement, before it starts."""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from optuna.distributions import CategoricalDistribution
from torch import Tensor, nn

from sweetspot.config import Precision, StudyConfig
from sweetspot.data.study_data import StudyData
from sweetspot.models import build, count_parameters
from sweetspot.student.losses import Distillation
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, ECONOMY, LONGEST, SMOOTHED
from sweetspot.study.choices import choice_tasks, lr_tasks
from sweetspot.study.confirmation import FINALIST, TABLE_SMOOTHING, Plan
from sweetspot.study.racing import Race
from sweetspot.study.space import Alone, Point, Source, Trajectory, distributions
from sweetspot.study.tasks import Task
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
class Cost:
    """What one way of running a study takes.

    Attributes:
        disk_bytes: of what it keeps, at most.
        seconds: on all workers together, wall time.
    """

    teacher_epochs: int
    student_epochs: int
    disk_bytes: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a study, its confirmation included; nothing pruned.

    Attributes:
        plain: every trial trains its teacher from nothing and ``replicates.max`` students, and keeps these networks;
            nothing is measured. The confirmation is the same, and trains each of its teachers from nothing once.
        shared: as it is done here.
        per_teacher_epoch, per_student_epoch: seconds of one worker.
    """

    plain: Cost
    shared: Cost
    per_teacher_epoch: float
    per_student_epoch: float

    def to_dict(self) -> dict[str, Any]:
        """The cost as it is done here, that of both ways, and the seconds of an epoch."""
        unshared = {"teacher_epochs_unshared": self.plain.teacher_epochs}
        return asdict(self.shared) | unshared | asdict(self)


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
    training = teacher_step * (shape.train_images // middle)
    measured = training + 2 * shape.validation_images * response
    per_student_epoch = student_step * (shape.train_images // config.student.batch_size)
    per_pass = shape.train_images * response
    plain, shared = expected_work(config)

    def cost(work: Work, per_teacher_epoch: float, size: int) -> Cost:
        passes = work.responses * (config.student.epochs if config.data.augmentation else 1)
        student_epochs = work.students * config.student.epochs
        seconds = work.teacher_epochs * per_teacher_epoch + student_epochs * per_student_epoch + passes * per_pass
        return Cost(work.teacher_epochs, student_epochs, size, seconds / workers)

    networks = 4 * (plain.teachers * _teacher_parameters(config, shape) + plain.students * count_parameters(student))
    return Estimate(
        plain=cost(plain, training, networks),
        shared=cost(shared, measured, disk_bytes(config, shape)),
        per_teacher_epoch=measured,
        per_student_epoch=per_student_epoch,
    )


def with_trials(config: StudyConfig, trials: int) -> StudyConfig:
    """The configuration of a study that has so many trials left."""
    return config.model_copy(update={"search": config.search.model_copy(update={"trials": trials})})


# -- disk -------------------------------------------------------------------------------------------------------------


def disk_bytes(config: StudyConfig, shape: Shape) -> int:
    """The most that a study's networks take: its teachers, those of its confirmation, and all students they may have.

    Nothing is shared between the teachers that the confirmation trains.
    """
    points = [Point(number, config.search.ladder[-1]) for number in range(1, 4 + config.confirm.finalists)]
    after = _after(config, points)
    fresh: dict[Trajectory, set[int]] = {}
    for source in (task.source for task in after):
        if isinstance(source, Point):
            fresh.setdefault(source.trajectory, set()).add(source.epochs)
    for point in points:
        fresh.pop(point.trajectory, None)  # the search's
    students = config.search.trials * config.student.replicates.max + sum(task.count for task in after)
    return (
        teacher_bytes(config, shape)
        + sum(_trajectory_bytes(config, shape, len(epochs)) for epochs in fresh.values())
        + 4 * students * _parameters(config.student.model, shape)
    )


def teacher_bytes(config: StudyConfig, shape: Shape) -> int:
    """The most that snapshots take: of every rung, and of where its branch hangs, with the optimisers' states."""
    search = config.search
    trajectories = search.trials
    if "teacher.lr" not in distributions(config):  # else every trial has its own
        trajectories = min(trajectories, len({point.trajectory for point in _grid(config)}))
    return trajectories * _trajectory_bytes(config, shape, len(search.ladder))


def _trajectory_bytes(config: StudyConfig, shape: Shape, ends: int) -> int:
    """The most that a trajectory takes of which so many rungs are asked for."""
    ladder = config.search.ladder
    states = 2 if config.teacher.optimizer.name == "adamw" else 1
    rule = schedule(config.teacher.schedule, ladder[0])
    branch_points = {rule.shared_epochs(rung) for rung in ladder} - {0}
    branches = min(ends, sum(rule.shared_epochs(rung) < rung for rung in ladder))
    kept = len(branch_points | set(ladder)) + branches
    return 4 * (kept + states * len(branch_points)) * _teacher_parameters(config, shape)


def _teacher_parameters(config: StudyConfig, shape: Shape) -> int:
    """Of the largest teacher."""
    return max(_parameters(name, shape) for name in config.search.teacher.model or (config.teacher.model,))


def _parameters(name: str, shape: Shape) -> int:
    model = build(name, classes=shape.classes, channels=shape.channels, image_size=shape.image_size)
    return count_parameters(model)


# -- work -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What is trained.

    Attributes:
        teachers: different ones that students learn from.
        students: how many.
        responses: how often students of one teacher are trained together, which share its responses.
    """

    teacher_epochs: int
    teachers: int
    students: int
    responses: int


def expected_work(config: StudyConfig) -> tuple[Work, Work]:
    """The plain way and the shared one, for ``search.trials`` points drawn at random without repetition.

    The best point, the most accurate teacher, the cheapest one and further finalists are taken to be different points
    of these, any of them alike; the longest-trained teacher continues the best point's. Racing is taken to give a third
    of the points ``replicates.max`` students and the others ``replicates.min``. Teachers that were trained elsewhere,
    failures, and tasks whose students happen to be another one's are left out.
    """
    draws = [_drawn(config, random.Random(draw)) for draw in range(_DRAWS)]
    tasks = [_after(config, chosen) for chosen in draws]
    plain = [_plain(config, chosen, after) for chosen, after in zip(draws, tasks, strict=True)]
    shared = [_shared(config, chosen, after) for chosen, after in zip(draws, tasks, strict=True)]
    return _mean(plain), _mean(shared)


def _mean(works: Sequence[Work]) -> Work:
    return Work(*(round(fmean(figures)) for figures in zip(*map(astuple, works), strict=True)))


def _plain(config: StudyConfig, chosen: Sequence[Point], after: Sequence[Task]) -> Work:
    taught = _teachers(after)
    ends = [point.epochs for point in chosen] + [epochs for _, epochs in {(p.trajectory, p.epochs) for p in taught}]
    students = len(chosen) * config.student.replicates.max + sum(task.count for task in after)
    return Work(sum(ends), len(ends), students, len(chosen) + len(taught))


def _shared(config: StudyConfig, chosen: Sequence[Point], after: Sequence[Task]) -> Work:
    rule = schedule(config.teacher.schedule, config.search.ladder[0])
    taught = _teachers(after)
    lengths: dict[Trajectory, set[int]] = {}
    for point in [*chosen, *taught]:
        lengths.setdefault(point.trajectory, set()).add(point.epochs)
    epochs = sum(
        max(map(rule.shared_epochs, ends)) + sum(end - rule.shared_epochs(end) for end in ends)
        for ends in lengths.values()
    )
    race = Race.of(config)
    raced = math.ceil(len(chosen) / 3) if race.minimum < race.maximum else 0
    searched = len(chosen) * race.minimum + raced * (race.maximum - race.minimum)
    students = searched + sum(task.count for task in after)
    return Work(epochs, sum(map(len, lengths.values())), students, len(chosen) + raced + len(taught))


def _teachers(tasks: Iterable[Task]) -> list[Point]:
    """Of each task that has one."""
    return [task.source for task in tasks if isinstance(task.source, Point)]


def _grid(config: StudyConfig) -> list[Point]:
    """The points of all teachers that can be listed."""
    space = {name: d for name, d in distributions(config).items() if not name.startswith("student.")}
    listed = {name: d.choices for name, d in space.items() if isinstance(d, CategoricalDistribution)}
    return [Point.of(dict(zip(listed, values, strict=True))) for values in itertools.product(*listed.values())]


def _drawn(config: StudyConfig, rng: random.Random) -> list[Point]:
    """The points of a search's trials, of which the students' own parameters do not matter here."""
    grid = _grid(config)
    rounds, rest = divmod(config.search.trials, len(grid))
    chosen = grid * rounds + rng.sample(grid, rest)
    rng.shuffle(chosen)
    lr = config.search.teacher.lr
    return chosen if lr is None else [point.having(teacher__lr=rng.uniform(lr.low, lr.high)) for point in chosen]


def _after(config: StudyConfig, chosen: Sequence[Point]) -> list[Task]:
    """What follows a search: the tasks of its confirmation and of the choices before, or a table's baselines.

    Args:
        chosen: the search's points, from whose first ones come the best, the most accurate and so on.
    """
    confirm, seeds = config.confirm, config.search.teacher.seeds
    if seeds is not None:
        amounts, each = (0.0, TABLE_SMOOTHING), config.student.replicates.max
        return [Task(ALONE, Alone(amount), "search", 0, each) for amount in amounts for _ in range(seeds)]
    if confirm.seeds == 0:
        return []
    points = itertools.cycle(dict.fromkeys(chosen))
    best, accurate = next(points), next(points)
    tasks = [task for task in choice_tasks(config, best, accurate) if task.source != best]
    rival = next((point for point in chosen if point.batch_size != best.batch_size), None)
    if confirm.lr_check and rival is not None:
        tasks += lr_tasks(config, (best, rival))
    arms: dict[str, Source] = {BEST: best, ALONE: Alone(), ACCURATE: accurate}
    if "label_smoothing" in confirm.arms:
        arms[SMOOTHED] = Alone(TABLE_SMOOTHING)
    if "temperature" in confirm.arms:
        arms |= {BEST_T: best.having(student__temperature=1.0), ACCURATE_T: accurate.having(student__temperature=1.0)}
    if "longest_teacher" in confirm.arms:
        arms[LONGEST] = Point(best.batch_size, config.search.ladder[-1], best.others)
    if "economy" in confirm.arms:
        arms[ECONOMY] = next(points)
    for number in range(2, confirm.finalists + 1):
        arms[f"{FINALIST}_{number}"] = next(points)
    plan = Plan(arms, confirm.teachers, confirm.seeds, confirm.margin, test_hash="")
    return tasks + plan.all_tasks(config.teacher.seed)


# -- time -------------------------------------------------------------------------------------------------------------


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
