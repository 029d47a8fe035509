"""What every arm of ``benchmarks.throughput`` is given: a teacher and a student, and images for both."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sweetspot.data.images import DataSet, Images
from sweetspot.data.registry import NPZ, open_dataset
from sweetspot.data.seeding import seed_of
from sweetspot.data.split import split
from sweetspot.errors import UserError
from sweetspot.models import build

CLASSES = 100
SHAPE = (3, 32, 32)
LR = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
TEMPERATURE = 4.0
ALPHA = 0.9
"""Those that plain distillation on CIFAR-100 is published with; see DESIGN.md."""


@dataclass(frozen=True)
class Job:
    """What is trained, on what.

    Attributes:
        teacher, student: names of networks.
        batch_size: images per step, of teachers and students.
        images: of an epoch, as each process has them.
        data: an ``.npz`` file, or a folder of them; None: noise.
        device: "cpu" or "cuda:0".
        cores: threads of the reference loop, and its loader's workers.
        seconds: after which a round of the reference ends within its epoch.
    """

    teacher: str
    student: str
    batch_size: int
    images: int
    data: Path | None
    device: str
    cores: int
    seconds: float

    @property
    def is_cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    @property
    def workers(self) -> int:
        """Processes of the engine that keep the machine busy."""
        return 1 if self.is_cuda else self.cores


class Sample(DataSet):
    """Images of CIFAR-100's shape that lie in memory; there is no test set."""

    def __init__(self, name: str, images: Images, classes: tuple[str, ...]) -> None:
        self.name, self.classes, self._images = name, classes, images

    def train(self) -> Images:
        return self._images

    def test(self) -> Images:
        raise NotImplementedError("the throughput of training is measured without a test set")

    @property
    def training_images(self) -> Images:
        """Those that a study with this data and the seed 0 trains on: without the one of each class it holds out."""
        train, _ = split(self._images.labels, len(self.classes), seed_of(0, "split"))
        return self._images.subset(train)


def sample(data: Path | None, images: int) -> Sample:
    """So many training images, and one of each class for validation.

    Args:
        data: as for :class:`Job`; the classes have as many images each, as far as there are so many.

    Raises:
        UserError: the file cannot be read, its images have another shape, or it has too few.
    """
    if data is None:
        return _noise(images)
    found = open_dataset(f"{NPZ}{data}", Path())
    everything, wanted = found.train(), images + len(found.classes)
    if tuple(everything.images.shape[1:]) != SHAPE:
        raise UserError(f"{data}: images of shape {tuple(everything.images.shape[1:])}; needed are {SHAPE}")
    if len(everything) < wanted:
        raise UserError(f"{data}: {len(everything)} images; needed are {wanted}: lower --images")
    return Sample(found.name, everything.subset(_in_turn(everything.labels)[:wanted]), found.classes)


def _noise(images: int) -> Sample:
    generator = torch.Generator().manual_seed(0)
    count = images + CLASSES
    pixels = torch.randint(256, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    return Sample("noise", Images(pixels, torch.arange(count) % CLASSES), tuple(map(str, range(CLASSES))))


def _in_turn(labels: Tensor) -> Tensor:
    """An order in which the first images of all classes come first, then the second ones, and so on."""
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    return rank.argsort(stable=True)


def network(name: str, classes: int, seed: int) -> nn.Module:
    """The network with weights that follow from the seed."""
    torch.manual_seed(seed)
    return build(name, classes=classes, channels=SHAPE[0], image_size=SHAPE[1])


@torch.no_grad()
def untrained_teacher(name: str, classes: int) -> nn.Module:
    """A teacher, in evaluation mode: untrained, but its BatchNorms know what comes to them.

    With the statistics that they are built with, the values of a deep network grow from block to block.
    """
    teacher = network(name, classes, seed=0)
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    teacher.train()(torch.randn(64, *SHAPE))
    return teacher.eval()
