"""Views of images: what a network is shown of a data set in one epoch.

An epoch's draws are made at once, one independent draw per image, on the CPU and from (seed, epoch, name of the
augmentation) alone, so that a CPU and a GPU, and a run that was interrupted, see the same. The views are made
where they are asked for, in any order: one gather from the padded uint8 images, the mirroring and the normalisation.
That takes about 15 µs per 3x32x32 image on one CPU thread, and an epoch's views never lie anywhere as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Self

import torch
from torch import Tensor

from sweetspot.data.images import Images
from sweetspot.data.seeding import seed_of
from sweetspot.errors import unknown_name

# -- augmentation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Placement:
    """Where each image's view lies in the padded image, and whether it is then mirrored, left to right.

    Attributes:
        top, left: int64 (N,), from 0 to twice the padding.
        mirrored: bool (N,).
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor

    @classmethod
    def centred(cls, images: int, padding: int) -> Self:
        """Each view is the image itself."""
        middle = torch.full((images,), padding)
        return cls(middle, middle, torch.zeros(images, dtype=torch.bool))

    def to(self, device: torch.device) -> "Placement":
        return Placement(self.top.to(device), self.left.to(device), self.mirrored.to(device))


def crop(placement: Placement, padding: int, generator: torch.Generator) -> Placement:
    """Moves each view by up to ``padding`` pixels up, down, left and right; what comes into sight is black."""
    top, left = torch.randint(2 * padding + 1, (2, len(placement.top)), generator=generator)
    # What is mirrored already is mirrored after the crop all the same: that is the crop at the other side.
    return Placement(top, torch.where(placement.mirrored, 2 * padding - left, left), placement.mirrored)


def flip(placement: Placement, padding: int, generator: torch.Generator) -> Placement:
    """Mirrors each view, left to right, with probability one half."""
    mirrored = torch.randint(2, (len(placement.top),), generator=generator) == 1
    return Placement(placement.top, placement.left, placement.mirrored ^ mirrored)


Augmentation = Callable[[Placement, int, torch.Generator], Placement]
"""(views so far, padding, generator) -> views; all on the CPU."""

AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": crop,
    "flip": flip,
}


def padding_of(image_size: int, augmentation: tuple[str, ...]) -> int:
    """By how many pixels images are padded on each side: an eighth of their size where they are cropped."""
    return image_size // 8 if "crop" in augmentation else 0


def padded_size(image_size: int, augmentation: tuple[str, ...]) -> int:
    """Height and width of a padded image, in pixels."""
    return image_size + 2 * padding_of(image_size, augmentation)


def placement_of(
    images: int, image_size: int, augmentation: tuple[str, ...], seed: int, epoch: int, device: torch.device
) -> Placement:
    """The draws of one epoch, on ``device``.

    Args:
        augmentation: names in :data:`AUGMENTATIONS`, applied in this order, each at most once.

    Raises:
        UserError: an augmentation of this name does not exist.
    """
    padding = padding_of(image_size, augmentation)
    placement = Placement.centred(images, padding)
    for name in augmentation:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, name))
        placement = AUGMENTATIONS[name](placement, padding, generator)
    return placement.to(device)


def view(padded: Tensor, placement: Placement, index: Tensor | slice, image_size: int) -> Tensor:
    """The views of the images at ``index``.

    Args:
        padded: uint8 (N, C, H + 2 * padding, W + 2 * padding), padded with zeros.
        placement: of all N images, on the same device.
        index: int64 (B,) on that device, or a slice.

    Returns:
        uint8 (B, C, H, W).
    """
    windows = padded.unfold(2, image_size, 1).unfold(3, image_size, 1)  # (N, C, top, left, H, W): nothing is copied
    chosen = index if isinstance(index, Tensor) else torch.arange(len(padded), device=padded.device)[index]
    views = windows[chosen, :, placement.top[chosen], placement.left[chosen]]
    return torch.where(placement.mirrored[chosen, None, None, None], views.flip(-1), views)


@dataclass(frozen=True, eq=False)
class EpochViews:
    """The views of one epoch, normalised, made as they are asked for: ``views[index]``, as of a tensor (N, C, H, W).

    Attributes:
        padded: uint8 (N, C, H + 2 * padding, W + 2 * padding), on the device on which the views are made.
        image_size: H = W of a view.
    """

    padded: Tensor
    image_size: int
    placement: Placement
    normalisation: "Normalisation"

    def __len__(self) -> int:
        return len(self.padded)

    @property
    def shape(self) -> torch.Size:
        images, channels = self.padded.shape[:2]
        return torch.Size((images, channels, self.image_size, self.image_size))

    @property
    def device(self) -> torch.device:
        return self.padded.device

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Of the images at ``index`` (int64 (B,), or a slice): float32 (B, C, H, W), channels_last."""
        return normalise(view(self.padded, self.placement, index, self.image_size), self.normalisation)

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them in their order, ``size`` at a time."""
        return (self[first : first + size] for first in range(0, len(self), size))


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
