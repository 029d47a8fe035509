"""Devices and what they can do: chosen once per process, probed, not guessed."""

import os
import platform
from functools import cache

import torch

from sweetspot.config import Precision, RunConfig
from sweetspot.errors import UserError
from sweetspot.training.allocator import keep_freed_memory


def devices(text: str) -> list[str]:
    """The devices that ``--device`` names: auto (every GPU, else the CPU), cpu, cuda (every GPU), or cuda:0,cuda:2.

    Raises:
        UserError: if one is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return [f"cuda:{i}" for i in range(gpus)] or ["cpu"]
    if text == "cuda" and gpus:
        return [f"cuda:{i}" for i in range(gpus)]
    found = []
    for name in (part.strip() for part in text.split(",")):
        kind, _, index = name.partition(":")
        if kind not in ("cpu", "cuda") or (kind == "cpu" and index) or (index and not index.isdecimal()):
            raise UserError(f"--device {name!r}: give auto, cpu, cuda or cuda:0,cuda:1,…")
        if kind == "cuda" and int(index or 0) >= gpus:
            there = (
                f"this machine has {gpus} CUDA device{'s' * (gpus != 1)}" if gpus else "torch sees no CUDA device here"
            )
            raise UserError(f"--device {name}: {there}; use --device auto or --device cpu")
        found.append(name if kind == "cpu" else f"cuda:{index or 0}")
    return found


def prepare(device: str, run: RunConfig) -> torch.device:
    """Set this process up for one device: one intra-op thread, and deterministic kernels where they are asked for."""
    torch.set_num_threads(1)
    chosen = torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = not run.deterministic
    else:
        keep_freed_memory()
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return chosen


def resolve_precision(precision: Precision, device: str) -> Precision:
    """What "auto" means on a device: bfloat16 autocast where its arithmetic is in hardware, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if _has_bfloat16(torch.device(device)) else "float32"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe is not None)


def describe(device: str) -> str:
    """The device in words, for people."""
    chosen = torch.device(device)
    if chosen.type == "cuda":
        return str(torch.cuda.get_device_name(chosen))
    return f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


@cache
def build_of(device: torch.device) -> str:
    """What numbers repeat on to the bit: the torch build, and the device or the instruction set."""
    return f"torch {torch.__version__}, {describe(str(device))}"[:128]
