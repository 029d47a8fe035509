"""The machine: its devices, the precision of each, and how many workers its processors bear."""

import platform
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil

from sweetspot.errors import UserError, one_line
from sweetspot.workers.doctor.check import Check, import_error
from sweetspot.workers.machine import usable_cores

_LITTLE_MEMORY = 2e9
_DRIVER = Path("/proc/driver/nvidia/version")


def devices(asked: str) -> Iterator[Check]:
    """The devices that ``--device`` names, and the processor.

    Raises:
        UserError: if one of them is not there.
    """
    if import_error("torch") is not None:
        yield Check("device", "wrong", "not known, for torch cannot be imported", "see torch")
        return
    yield _cpu()
    if (unseen := _unseen_gpu()) is not None:
        yield unseen
    from sweetspot.training.device import devices

    for name in devices(asked):
        if name != "cpu":
            yield _gpu(name)


def _cpu() -> Check:
    import torch

    cores, kind = usable_cores(), torch.backends.cpu.get_cpu_capability()
    memory = psutil.virtual_memory()
    return Check(
        "cpu",
        "ok",
        f"{cores} core{'s' * (cores != 1)} usable, {platform.machine()} with {kind}, "
        f"{_size(memory.available)} of {_size(memory.total)} memory free",
    )


def _gpu(name: str) -> Check:
    import torch

    device = torch.device(name)
    found = "a GPU"
    try:
        major, minor = torch.cuda.get_device_capability(device)
        found = f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}"
        free, total = torch.cuda.mem_get_info(device)
        found += f", {_size(free)} of {_size(total)} memory free"
        works = float((torch.ones(8, device=device) * 2).sum()) == 16.0
    except RuntimeError as error:
        reason = one_line(str(error).splitlines()[0])
        return Check(
            name,
            "wrong",
            f"{found}; computing on it fails ({reason})",
            "is it used up by another process, or is this torch not built for it? See nvidia-smi, or use another "
            "--device",
        )
    if not works:
        return Check(name, "wrong", f"{found}; it computes wrongly", "use another --device")
    if free < _LITTLE_MEMORY:
        return Check(name, "advice", found, "another process holds its memory: see nvidia-smi")
    return Check(name, "ok", found)


def _unseen_gpu() -> Check | None:
    """A driver without a GPU that torch could use, and why."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available() or not _DRIVER.exists():
            return None
    if torch.version.cuda is None:
        advice = (
            "this torch is built for the CPU alone: uv pip install --reinstall torch torchvision --torch-backend=auto"
        )
    else:
        why = f" ({one_line(str(said[0].message).splitlines()[0])})" if said else ""
        advice = f"is the driver new enough for CUDA {torch.version.cuda}, and may you use the GPU?{why}"
    return Check("gpu", "advice", "there is an NVIDIA driver, and torch sees no GPU", advice)


def precision(asked: str) -> Iterator[Check]:
    """What precision "auto" means on each device; nothing where one is not there, which :func:`devices` says."""
    if import_error("torch") is not None:
        yield Check("precision", "wrong", "not known, for torch cannot be imported", "see torch")
        return
    from sweetspot.training.device import devices, resolve_precision

    chosen: dict[str, list[str]] = {}
    try:
        there = devices(asked)
    except UserError:
        return
    for name in there:
        chosen.setdefault(resolve_precision("auto", name), []).append(name)
    why = {"bfloat16": "its arithmetic is in hardware", "float32": "bfloat16 is not in hardware"}
    said = [f'"auto" is {kind} on {", ".join(names)}: {why[kind]}' for kind, names in chosen.items()]
    yield Check("precision", "ok", "; ".join(said))


def threads() -> Check:
    """How many workers the processors bear: each computes in one thread, whatever OMP_NUM_THREADS says."""
    cores, quota = usable_cores(), cpu_quota()
    found = "one per worker, OMP_NUM_THREADS need not be set"
    if quota is not None and quota < cores:
        return Check(
            "threads",
            "advice",
            f"{found}; {cores} cores, of which this container may use {quota:g}",
            f"--workers auto starts {cores} workers on the CPU: give --workers {max(1, int(quota))}",
        )
    return Check("threads", "ok", found)


def cpu_quota(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many processors' time the control groups of this process allow it; None: all there is."""
    try:
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    limits = []
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if not controllers:  # version 2
            limits += [_quota_of(folder / "cpu.max") for folder in _upward(root, path)]
        elif "cpu" in controllers.split(","):
            for top in (root / controllers, root / "cpu"):
                limits += [_quota_of(folder / "cpu.cfs_quota_us", "cpu.cfs_period_us") for folder in _upward(top, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upward(root: Path, path: str) -> list[Path]:
    """The folder of a control group and those of the groups that it is in. Containers see theirs as the root."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _quota_of(file: Path, period: str | None = None) -> float | None:
    try:
        words = file.read_text().split()
        if period is not None:
            words += file.with_name(period).read_text().split()
        quota, per = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):  # "max": none
        return None
    return quota / per if quota > 0 and per > 0 else None


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
