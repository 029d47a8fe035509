"""What a machine could do: the floating-point operations of a network, and the rate of matrix products."""

import time
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.throughput_job import CLASSES, SHAPE, network
from sweetspot.config import Precision

_CPU_SIZE, _CUDA_SIZE = 1024, 8192


@dataclass(frozen=True)
class Flops:
    """Floating-point operations for one image: of convolutions and matrix products alone, a multiplication and an
    addition counted as two.

    Attributes:
        forward: of a pass in evaluation mode.
        training: of a forward and a backward pass.
    """

    forward: float
    training: float


@cache
def flops(name: str, images: int = 2) -> Flops:
    """Of a network of 100 classes on an image of CIFAR-100's shape, as torch's ``FlopCounterMode`` counts them.

    Args:
        images: of the batch that is counted.
    """
    model, batch = network(name, CLASSES, seed=0), torch.zeros(images, *SHAPE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(batch)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.train()(batch).sum().backward()
    return Flops(forward / images, counter.get_total_flops() / images)


def matmul_rate(device: torch.device, precision: Precision, seconds: float) -> float:
    """FLOP per second of products of square matrices, repeated for about so many seconds."""
    size = _CUDA_SIZE if device.type == "cuda" else _CPU_SIZE
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    if precision == "bfloat16":
        a, b = a.bfloat16(), b.bfloat16()
    a @ b
    _finish(device)
    began, products = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(10 if device.type == "cuda" else 1):
            a @ b
            products += 1
        _finish(device)
    return 2 * size**3 * products / spent


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
