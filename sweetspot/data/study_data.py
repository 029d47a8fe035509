"""A study's images on the device: split, normalised, with the views and probes that training and measuring need."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sweetspot.config import StudyConfig
from sweetspot.data.images import DataSet, content_hash
from sweetspot.data.memory import Memory, check_memory, device_memory
from sweetspot.data.registry import open_dataset
from sweetspot.data.seeding import seed_of
from sweetspot.data.split import held_out_images, split
from sweetspot.data.views import EpochViews, Normalisation, normalise, padded_size, padding_of, placement_of
from sweetspot.errors import UserError


@dataclass(frozen=True, eq=False)
class Labelled:
    """Normalised images ready for a network.

    Attributes:
        images: float32 (N, C, H, W), channels_last.
        labels: int64 (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class StudyData:
    """The training and validation splits of a study's data set, on one device. Read-only.

    Attributes:
        classes: names of the classes.
        hash: SHA-256 of the whole training set's content, which identifies the data in recipes.
        labels: of the training images, int64 (N,).
        image_size: height and width in pixels.
        normalisation: of the training images.
    """

    def __init__(
        self,
        dataset: DataSet,
        config: StudyConfig,
        device: torch.device,
        workers: Mapping[torch.device, int] | None = None,
        memory: Memory = device_memory,
    ) -> None:
        """
        Args:
            workers: how many hold the images, on which device; None: one, on this.
            memory: how much a device has altogether.

        Raises:
            UserError: if the images cannot be read, do not fit the configuration, or take too much of the device.
        """

        def check(total: int, pixels: int, padded: int) -> None:
            held_out = min(held_out_images(config.data.validation, total), total)
            holders = {device: 1} if workers is None else workers
            check_memory(dataset.name, total - held_out, held_out, pixels, padded, device, holders, memory)

        total, pixels = dataset.at_least()
        check(total, pixels, pixels)  # before a long reading
        images = dataset.train()
        padded = images.channels * padded_size(images.image_size, config.data.augmentation) ** 2
        check(len(images), images.images[0].numel(), padded)
        self.classes = dataset.classes
        self.hash = content_hash(images, dataset.classes)
        train, validation = split(images.labels, config.data.validation, seed_of(config.seed, "split"))
        check_batch_sizes(config, len(train), dataset.name)
        self._dataset = dataset
        self._augmentation = config.data.augmentation
        self._probe_seed = seed_of(config.seed, "probe")
        self._validation = images.subset(validation).to(device)
        self.image_size = images.image_size
        training = images.subset(train)
        self.normalisation = Normalisation.of(training)
        self.labels = training.labels.to(device)
        padding = padding_of(self.image_size, self._augmentation)
        self._padded = F.pad(training.images.to(device), (padding,) * 4)

    @property
    def train_images(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self._padded.shape[1]

    @property
    def views_differ(self) -> bool:
        """Whether an epoch's views differ from another's; without augmentation they do not."""
        return bool(self._augmentation)

    def views(self, seed: int, epoch: int) -> EpochViews:
        """The training images as shown in one epoch, in the order of :attr:`labels`."""
        return self._views_of(self._padded, seed, epoch)

    def _views_of(self, padded: Tensor, seed: int, epoch: int) -> EpochViews:
        draws = placement_of(len(padded), self.image_size, self._augmentation, seed, epoch, padded.device)
        return EpochViews(padded, self.image_size, draws, self.normalisation)

    @cached_property
    def validation(self) -> Labelled:
        return Labelled(self._normalised(self._validation.images), self._validation.labels)

    @cached_property
    def train_probe(self) -> Labelled:
        """A fixed, seeded sample of augmented training images, as many as the validation split has.

        Where that is more than there are, all are drawn before any is drawn again, and then as another view.
        """
        generator = torch.Generator().manual_seed(self._probe_seed)
        rounds = math.ceil(len(self._validation) / self.train_images)
        orders = [torch.randperm(self.train_images, generator=generator) for _ in range(rounds)]
        chosen = torch.cat(orders)[: len(self._validation)].sort().values.to(self.labels.device)
        return Labelled(self._views_of(self._padded[chosen], self._probe_seed, 0)[:], self.labels[chosen])

    def test(self) -> Labelled:
        """The test split. For the confirmation alone: each call is a look at it."""
        images = self._dataset.test().to(self.labels.device)
        return Labelled(self._normalised(images.images), images.labels)

    @cached_property
    def test_hash(self) -> str:
        """SHA-256 of the test split's content. For the confirmation alone."""
        return content_hash(self._dataset.test(), self.classes)

    def _normalised(self, images: Tensor) -> Tensor:
        return normalise(images, self.normalisation)


def load_study_data(
    config: StudyConfig, root: Path, device: torch.device, workers: Mapping[torch.device, int] | None = None
) -> StudyData:
    """Open the study's data set and put it on the device.

    Args:
        root: as for :func:`~sweetspot.data.open_dataset`.
        workers: as for :class:`StudyData`.

    Raises:
        UserError: if there is no such data set, it cannot be read, or it does not fit the configuration.
    """
    return StudyData(open_dataset(config.data.dataset, root, config.data.image_size), config, device, workers)


def check_batch_sizes(config: StudyConfig, train_images: int, dataset: str) -> None:
    """Refuse a batch size that an epoch has no full batch of.

    Raises:
        UserError: if one is above the number of training images.
    """
    largest = max(config.search.batch_size[-1], config.student.batch_size)
    if largest > train_images:
        raise UserError(
            f"batch size {largest} is above the {train_images} training images of {dataset} that validation leaves: "
            "lower search.batch_size or student.batch_size"
        )
