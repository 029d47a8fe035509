"""Views of images: what a network is shown of a data set in one epoch.

A whole epoch is made at once, on the device, one independent draw per image. The draws are made on the CPU from
(seed, epoch, name of the augmentation) alone, so that a CPU and a GPU, and a run that was interrupted, see the same.
Crops are one indexing of a strided view: on one CPU thread 7 µs per 3x32x32 image, a third of what indexing with
separate row and column numbers takes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sweetspot.data.images import Images
from sweetspot.data.seeding import seed_of
from sweetspot.errors import unknown_name

# -- augmentation -----------------------------------------------------------------------------------------------------


def augment(images: Tensor, augmentation: tuple[str, ...], seed: int, epoch: int) -> Tensor:
    """The views of one epoch.

    Args:
        images: uint8 (N, C, H, W) on any device.
        augmentation: names in :data:`AUGMENTATIONS`, applied in this order; empty: the images themselves.

    Returns:
        uint8 (N, C, H, W) on the device of ``images``: view i is made of image i.

    Raises:
        UserError: an augmentation of this name does not exist.
    """
    for name in augmentation:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, name))
        images = AUGMENTATIONS[name](images, generator)
    return images


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moves each image by up to an eighth of its size (4 pixels at 32, 1 at 8) up, down, left and right."""
    padding = images.shape[-1] // 8
    top, left = torch.randint(2 * padding + 1, (2, len(images)), generator=generator).to(images.device)
    return crop_at(images, padding, top, left)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image, left to right, with probability one half."""
    mirrored = torch.randint(2, (len(images),), generator=generator).to(images.device)
    return flip_where(images, mirrored == 1)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "crop": crop,
    "flip": flip,
}
"""Each takes images and a generator on the CPU, and returns as many images of the same shape."""


def crop_at(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """From each image, padded with zeros, the window of the old size at its own offset.

    Args:
        top, left: int64 (N,), 0 to ``2 * padding``, on the device of ``images``.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, top, left, H, W): a view, nothing is copied
    each = torch.arange(len(images), device=images.device)
    return windows[each, :, top, left]


def flip_where(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirrors the images for which ``mirrored`` (bool (N,)) holds."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


# -- normalisation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, of pixels from 0 to 1: what torchvision's ``Normalize`` takes."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Images) -> Self:
        """Of the training images, in float64 from exact integer sums: the same on every device.

        A channel that never changes has a standard deviation of 1.
        """
        mean, std = [], []
        for channel in images.images.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).tolist()
            n = sum(counts)
            total = sum(value * count for value, count in enumerate(counts))
            squares = sum(value**2 * count for value, count in enumerate(counts))
            mean.append(total / (255 * n))
            std.append(sqrt((n * squares - total**2) / (255 * n) ** 2) or 1.0)
        return cls(tuple(mean), tuple(std))


def normalise(images: Tensor, normalisation: Normalisation, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a network is given: ``(images / 255 - mean) / std``, computed in float32.

    Args:
        images: uint8 (N, C, H, W).

    Returns:
        ``dtype`` (N, C, H, W) in channels_last memory format, on the device of ``images``.
    """
    scale, shift = _affine(normalisation, images.device)
    values = images.to(torch.float32, memory_format=torch.channels_last)
    return values.mul_(scale).add_(shift).to(dtype)


@lru_cache(maxsize=64)
def _affine(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept on the device: to copy them there for every batch would wait for the device every time."""
    mean = torch.tensor(normalisation.mean, dtype=torch.float64)
    std = torch.tensor(normalisation.std, dtype=torch.float64)
    scale, shift = 1 / (255 * std), -mean / std
    return tuple(t.float().view(1, -1, 1, 1).to(device) for t in (scale, shift))  # type: ignore[return-value]
