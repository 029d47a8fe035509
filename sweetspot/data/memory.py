"""Whether a study's images fit on a device: all of them lie there."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import torch

from sweetspot.errors import UserError

MOST = 0.5
"""The share of a device's memory that images may take. The rest is for the networks and what these compute."""

Memory = Callable[[torch.device], int]
"""The bytes of memory that a device has altogether."""


def device_memory(device: torch.device) -> int:
    """The bytes of a GPU's memory; for the CPU, of the machine's or of what its container may have."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return min(int(psutil.virtual_memory().total), container_memory())


def needed_bytes(train: int, validation: int, pixels: int, padded: int) -> int:
    """What a study's images take: all of them in uint8, the validation images and as many views in float32, too.

    Args:
        train, validation: how many images.
        pixels: values of one image, in all channels.
        padded: values of one training image with the border that crops need.
    """
    return train * padded + validation * (1 + 4 + 4) * pixels


def check_memory(
    name: str,
    train: int,
    validation: int,
    pixels: int,
    padded: int,
    device: torch.device,
    workers: Mapping[torch.device, int],
    memory: Memory = device_memory,
) -> None:
    """Refuse images that take more than half of a device's memory.

    Args:
        name: of the data set.
        train, validation, pixels, padded: as for :func:`needed_bytes`.
        device: where the images alone are, of whoever only looks at them.
        workers: how many are on which device; each holds the images and the probes.

    Raises:
        UserError: says what is needed, what there is, and what to do.
    """
    if device not in workers:
        _check(name, train * padded + validation * pixels, "the images alone", 1, device, memory)
    needed = needed_bytes(train, validation, pixels, padded)
    for place, count in workers.items():
        _check(name, needed, "the images, and the probes in float32", count, place, memory)


def _check(name: str, needed: int, what: str, workers: int, device: torch.device, memory: Memory) -> None:
    there = memory(device)
    if workers * needed <= MOST * there:
        return
    each, fewer = (f" for each of {workers} workers", ", fewer workers") if workers > 1 else ("", "")
    where = "this machine" if device.type == "cpu" else str(device)
    raise UserError(
        f"the images of {name} need {_gigabytes(needed)} ({what}){each}, and {where} has {_gigabytes(there)}, of which "
        f"half may be used: lower data.image_size (imagefolder:PATH), use fewer images{fewer}, or a device of "
        f"{_gigabytes(workers * needed / MOST)} or more"
    )


def container_memory(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """The bytes that the control groups of this process may have, of either version; very many where none is set."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return _NO_LIMIT
    limits = [_NO_LIMIT]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, file = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        inner = Path(path.lstrip("/"))
        limits += [_limit(top / group / file) for group in (inner, *inner.parents)]
    return min(limits)


_NO_LIMIT = 2**63


def _limit(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max"
        return _NO_LIMIT


def _gigabytes(size: float) -> str:
    """Rounded up at the second digit, so that what is said to be enough is enough."""
    giga = size / 1e9
    return f"{math.ceil(giga * 100) / 100:.2f} GB" if giga < 1 else f"{math.ceil(giga * 10) / 10:,.1f} GB"
