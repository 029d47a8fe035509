"""The validation split: stratified, seeded, the same on every machine."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweetspot.data.seeding import seed_of
from sweetspot.errors import UserError


def split(labels: Tensor, validation: int | float, seed: int) -> tuple[Tensor, Tensor]:
    """Divides a training set in two, each class in the same proportion.

    Classes get their share of the validation images by largest remainders, so that the total is exact, and every
    class keeps at least one image in training.

    Args:
        labels: int64 (N,).
        validation: images to hold out; below 1: the fraction of them, rounded to whole images.
        seed: which images; the numbers per class do not depend on it.

    Returns:
        The indices of the training images and of the validation images: int64, ascending, on the CPU.

    Raises:
        UserError: so many images cannot be held out; the message says how many can.
    """
    values = labels.cpu().numpy()
    total = len(values)
    held_out = held_out_images(validation, total)
    _, classes, counts = np.unique(values, return_inverse=True, return_counts=True)
    _check(validation, held_out, total, len(counts))

    # Raw words of the bit generator: unlike Generator's methods, NumPy keeps these the same in all versions.
    keys = np.random.PCG64(seed_of("split", seed)).random_raw(total)
    order = np.lexsort((keys, classes))  # class by class, shuffled within each
    rank = np.empty(total, np.int64)
    rank[order] = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    out = rank < _shares(counts, held_out)[classes]
    return torch.from_numpy(np.flatnonzero(~out)), torch.from_numpy(np.flatnonzero(out))


def held_out_images(validation: int | float, total: int) -> int:
    """How many of ``total`` images are asked for: ``validation`` of them, or below 1 this fraction, rounded."""
    return round(validation * total) if isinstance(validation, float) and validation < 1 else int(validation)


def _check(validation: int | float, held_out: int, total: int, classes: int) -> None:
    most = total - classes
    if most < classes:
        raise UserError(f"{total} training images of {classes} classes are too few to hold out one of each class")
    if not classes <= held_out <= most:
        raise UserError(
            f"validation = {validation} holds out {held_out} of {total} training images: allowed are {classes} "
            f"(one per class) to {most} (one of each class is left for training)"
        )


def _shares(counts: NDArray[np.int64], held_out: int) -> NDArray[np.int64]:
    """Validation images of each class: largest remainders, ties to the lower label, never all of a class."""
    quota = counts * held_out
    shares: NDArray[np.int64] = quota // counts.sum()
    by_remainder = np.argsort(-(quota % counts.sum()), kind="stable")
    while missing := held_out - int(shares.sum()):  # more than one round only where classes are down to one image
        open_classes = by_remainder[shares[by_remainder] < counts[by_remainder] - 1]
        shares[open_classes[:missing]] += 1
    return shares
