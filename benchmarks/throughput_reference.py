"""The reference of ``benchmarks.throughput``: training as the widely used distillation repositories write it.

After the CIFAR-100 code of RepDistiller (Tian et al. 2020, arXiv 1910.10699) and what was made of it since: each image
is a PIL image that torchvision's transforms crop, flip and turn into a tensor, in a DataLoader's worker processes; the
networks are NCHW and float32; a distillation step runs the teacher on the student's batch; the loss is read with
``.item()`` at every step, and top-1 and top-5 accuracy are computed. One process; its threads are all cores (on a
GPU: ``.cuda()``, with cuDNN's benchmark mode and PyTorch's own choice of TF32).
"""

import multiprocessing
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.throughput_arms import Runner, Span
from benchmarks.throughput_job import (
    ALPHA,
    LR,
    MOMENTUM,
    SHAPE,
    TEMPERATURE,
    WEIGHT_DECAY,
    Job,
    network,
    sample,
    untrained_teacher,
)
from sweetspot.data.images import Images

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

_START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
"""Of the loader's workers: Linux's own, which is quick. This process was itself spawned, and would spawn them."""

_FEWEST_STEPS = 2
"""That are timed in a round, however slow they are."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's ``CIFAR100`` gives them, with the usual transforms of training."""

    def __init__(self, images: Images) -> None:
        self._pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = images.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(SHAPE[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


class Meter:
    """A running average."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.count = 0

    def update(self, value: Any, count: int) -> None:
        self.total += value * count
        self.count += count


@torch.no_grad()
def top_accuracies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Per cent of the batch whose label is the most probable class, and among the five most probable."""
    hits = logits.topk(5, dim=1).indices.t() == labels[None]
    return tuple(hits[:k].float().sum() * (100 / len(labels)) for k in (1, 5))  # type: ignore[return-value]


def kd_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy and the softened divergence, each with its weight."""
    log_student = F.log_softmax(student / TEMPERATURE, dim=1)
    softened = F.softmax(teacher / TEMPERATURE, dim=1)
    divergence = F.kl_div(log_student, softened, reduction="sum") * TEMPERATURE**2 / len(student)
    return (1 - ALPHA) * F.cross_entropy(student, labels) + ALPHA * divergence


def distillation_steps(
    batches: Iterable[tuple[Tensor, Tensor]], student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[float]:
    """Train the student; the loss of each step when it is done."""
    student.train()
    teacher.eval()
    losses, top1, top5 = Meter(), Meter(), Meter()
    device = next(student.parameters()).device
    for images, labels in batches:
        if device.type == "cuda":
            images, labels = images.cuda(), labels.cuda()
        logits = student(images)
        with torch.no_grad():
            taught = teacher(images)
        loss = kd_loss(logits, taught, labels)
        yield _step(loss, logits, labels, optimizer, losses, top1, top5)


def teacher_steps(
    batches: Iterable[tuple[Tensor, Tensor]], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[float]:
    """Train a network from labels; the loss of each step when it is done."""
    model.train()
    losses, top1, top5 = Meter(), Meter(), Meter()
    device = next(model.parameters()).device
    for images, labels in batches:
        if device.type == "cuda":
            images, labels = images.cuda(), labels.cuda()
        logits = model(images)
        yield _step(F.cross_entropy(logits, labels), logits, labels, optimizer, losses, top1, top5)


def _step(
    loss: Tensor,
    logits: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    losses: Meter,
    top1: Meter,
    top5: Meter,
) -> float:
    acc1, acc5 = top_accuracies(logits, labels)
    value = loss.item()
    losses.update(value, len(labels))
    top1.update(acc1, len(labels))
    top5.update(acc5, len(labels))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


class _Reference(Runner):
    """A round is an epoch, or what ``job.seconds`` allow of it; it is timed from the end of its first step.

    Until then the loader's workers are started, which an epoch of 50,000 images hardly feels. What they have prepared
    meanwhile (two batches each) is the reference's gain.
    """

    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job)
        torch.set_num_threads(job.cores)
        if job.is_cuda:
            torch.cuda.set_device(self.device)  # where .cuda() goes
            torch.backends.cudnn.benchmark = True
        found = sample(job.data, job.images)
        self.classes = len(found.classes)
        self.loader = DataLoader(
            Pictures(found.training_images),
            job.batch_size,
            shuffle=True,
            num_workers=job.cores,
            drop_last=True,
            multiprocessing_context=_START_METHOD,
        )

    def steps(self) -> Iterator[float]:
        """Of one epoch."""
        raise NotImplementedError

    def run(self, epochs: int) -> Span:
        steps = self.steps()
        next(steps)
        begin = end = time.monotonic()
        count = 0
        for _ in steps:
            end = time.monotonic()
            count += 1
            if count >= _FEWEST_STEPS and end - begin >= self.job.seconds:
                break
        return Span(begin, end, count * self.job.batch_size, self.peak_memory())


class ReferenceDistillation(_Reference):
    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job, index)
        self._teacher = untrained_teacher(job.teacher, self.classes).to(self.device)
        self._student = network(job.student, self.classes, seed=1).to(self.device)
        self._optimizer = sgd(self._student)

    def steps(self) -> Iterator[float]:
        return distillation_steps(self.loader, self._student, self._teacher, self._optimizer)


class ReferenceTeacher(_Reference):
    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job, index)
        self._model = network(job.teacher, self.classes, seed=0).to(self.device)
        self._optimizer = sgd(self._model)

    def steps(self) -> Iterator[float]:
        return teacher_steps(self.loader, self._model, self._optimizer)
