"""The epoch engine: straight loops over an epoch that lies on the device."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sweetspot.config import Precision
from sweetspot.data.seeding import seed_of

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits of a batch, indices of its images) -> scalar loss."""

OnStep = Callable[[int, Tensor], None]
"""(steps of the epoch that are done, the sum of their losses on the device) after each step; may raise to stop."""

_NO_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

EVALUATION_BATCH = 1000
BATCHNORM_BATCHES = 100


@dataclass(frozen=True)
class MidEpoch:
    """Where an epoch goes on that was interrupted.

    Attributes:
        step: steps that are done.
        loss: the sum of their losses, float32 ().
        random: the state of the device's random generator, uint8.
    """

    step: int
    loss: Tensor
    random: Tensor


class DivergedError(Exception):
    """The loss of an epoch, or the response after it, is not finite."""

    def __init__(self, epoch: int, lr: float, what: str = "loss") -> None:
        super().__init__(f"{what} not finite in epoch {epoch} at learning rate {lr:g}")
        self.epoch = epoch
        self.lr = lr


class OutOfMemoryError(Exception):
    """The device, or the machine, has no memory for a step of this size."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns torch's several errors for want of memory into :class:`OutOfMemoryError`, and releases what it cached."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_memory = not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError)
        if not (is_memory or any(words in str(error) for words in _NO_MEMORY)):
            raise
        first_line = (str(error).splitlines() or ["out of memory"])[0]
    else:
        return
    # Only here, where the error with its traceback and the tensors in its frames is gone, can they be freed.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemoryError(first_line)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def epoch_order(images: int, batch_size: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """The order of an epoch's images: int64 (steps * batch_size,); the last partial batch is dropped."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    steps = images // batch_size
    return torch.randperm(images, generator=generator)[: steps * batch_size].to(device)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    loss_of: Loss,
    lrs: Sequence[float],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    precision: Precision,
    start: MidEpoch | None = None,
    on_step: OnStep = lambda step, loss: None,
) -> float:
    """Train one epoch of ``len(lrs)`` steps; the mean loss.

    All that is random in it (order, dropout) follows from ``seed`` and ``epoch`` alone. An epoch that was interrupted
    and goes on from ``start``, with model and optimiser as they were then, equals one that was not.

    Args:
        model: in any mode; left in training mode.
        optimizer: of the model's parameters.
        images: float (N, C, H, W), the epoch's views, normalised, on the model's device.
        loss_of: the loss of a batch, from its float32 or bfloat16 logits and its images' indices.
        lrs: the learning rate of each step.
        batch_size: images per step.
        seed: of the run.
        epoch: counted from 0.
        precision: "float32", or "bfloat16" for autocast.
        start: where to go on in the epoch; None: at its first step.

    Raises:
        DivergedError: if the mean loss is not finite.
    """
    order = epoch_order(len(images), batch_size, seed, epoch, images.device)
    shuffled = images[order]
    torch.manual_seed(seed_of(seed, "dropout", epoch))
    if start is not None:
        set_random_state(images.device, start.random)
    model.train()
    parameters = list(model.parameters())
    first = 0 if start is None else start.step
    total = torch.zeros((), device=images.device) if start is None else start.loss.to(images.device, copy=True)
    with autocast(images.device, precision):
        for step in range(first, len(lrs)):
            batch = slice(step * batch_size, (step + 1) * batch_size)
            for group in optimizer.param_groups:
                group["lr"] = lrs[step]
            loss = loss_of(model(shuffled[batch]), order[batch])
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            optimizer.step()
            total += loss.detach()
            on_step(step + 1, total)
    mean = float(total) / len(lrs)
    if not math.isfinite(mean):
        raise DivergedError(epoch + 1, max(lrs))
    return mean


def random_state(device: torch.device) -> Tensor:
    """The state of the random generator that a network on ``device`` draws from (dropout): uint8, on the CPU."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Put back what :func:`random_state` gave."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


@torch.no_grad()
def respond(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """The model's logits on normalised images in evaluation mode: float32 (N, K)."""
    model.eval()
    with autocast(images.device, precision):
        return torch.cat([model(batch).float() for batch in images.split(EVALUATION_BATCH)])


@torch.no_grad()
def recompute_batchnorm(model: nn.Module, images: Tensor, batch_size: int, precision: Precision) -> None:
    """Replace BatchNorm's running statistics by their average over batches of ``images``, in place.

    At most :data:`BATCHNORM_BATCHES` batches are used, in the order given; the model is left in evaluation mode. A
    model without BatchNorm is left as it is.
    """
    model.eval()
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average
        layer.train()
    batches = max(1, min(BATCHNORM_BATCHES, len(images) // batch_size))
    with autocast(images.device, precision):
        for batch in images[: batches * batch_size].split(batch_size):
            model(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
