"""The values of this package: a data set, and its images with their labels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweetspot.config import canonical_json


class DataSet(ABC):
    """Labelled images of at least three classes, in a training set and a test set.

    A data set is opened by name (:func:`sweetspot.data.open_dataset`), and whatever the user has to mend (a missing
    file, no network, a wrong shape) is raised as :class:`~sweetspot.errors.UserError`, on opening if it can be known
    then. Every call of ``train`` returns the same images in the same order, on every machine: splits and hashes
    depend on it. The images are on the CPU and belong to the caller's device only after :meth:`Images.to`.

    The test set is for the confirmation alone. Nothing but :meth:`test` hands out any of its images or labels;
    opening and :meth:`train` may look at its shapes.

    Attributes:
        name: what it was opened by.
        classes: the names of the classes; a label is an index into it.
    """

    name: str
    classes: tuple[str, ...]

    @abstractmethod
    def train(self) -> "Images":
        """The whole training set; the validation split is taken from it."""

    @abstractmethod
    def test(self) -> "Images":
        """The test set."""

    def at_least(self) -> tuple[int, int]:
        """Images of the training set, and values of each (pixels in all channels): what is known before they are read.

        Never more than there are: what is surely too much for a device is refused by it without a long reading.
        """
        return 0, 0


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their labels, on one device.

    Attributes:
        images: uint8 (N, C, H, W), H = W.
        labels: int64 (N,), indices of classes.

    Raises:
        ValueError: a dtype, shape or device is not as above.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images must be uint8 (N, C, H, H), not {images.dtype} {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be int64 ({len(images)},), not {labels.dtype} {tuple(labels.shape)}")
        if images.device != labels.device:
            raise ValueError(f"images are on {images.device}, labels on {labels.device}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.images.shape[2]

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.images.to(device), self.labels.to(device))

    def subset(self, index: Tensor) -> "Images":
        """The images at ``index`` (int64), in its order."""
        index = index.to(self.device)
        return Images(self.images[index], self.labels[index])


def content_hash(images: Images, classes: Sequence[str]) -> str:
    """What identifies a set of images: SHA-256 (hex) of shapes, dtypes, pixels, labels and the names of the classes.

    Independent of name, path and device, so that the same images from another file are the same data.
    """
    pixels = images.images.cpu().contiguous().numpy()
    labels = images.labels.cpu().contiguous().numpy().astype("<i8", copy=False)
    head = {
        "images": [pixels.dtype.name, list(pixels.shape)],
        "labels": [labels.dtype.name, list(labels.shape)],
        "classes": list(classes),
    }
    digest = hashlib.sha256(canonical_json(head).encode())
    digest.update(pixels.data)
    digest.update(labels.data)
    return digest.hexdigest()
