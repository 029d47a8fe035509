"""The epoch engine: straight loops over an epoch whose images lie on the device."""

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
from sweetspot.data.views import EpochViews
from sweetspot.timing import span
from sweetspot.timing import step as step_ended
from sweetspot.training.steps import Loss, step_for

OnStep = Callable[[int, Tensor], None]
"""(steps of the epoch that are done, the sum of their losses on the device) after each step; may raise to stop."""

_NO_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

BATCHNORM_BATCHES = 100

_BLOCK_BYTES = {"cpu": 2**24, "cuda": 2**30}
"""Of views that are made at once, in float32: on a CPU little more than its caches hold, on a GPU few and large."""


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


class Training:
    """A network while it trains, an epoch at a time.

    Args:
        model: in any mode; left in training mode.
        optimizer: of the model's parameters.
        loss: of a batch, from its float32 or bfloat16 logits and what the targets have of its images.
        batch_size: images per step.
        precision: "float32", or "bfloat16" for autocast.
        seed: of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        *,
        batch_size: int,
        precision: Precision,
        seed: int,
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self._precision = precision
        self._seed = seed
        self._step = step_for(model, optimizer, loss)

    def epoch(
        self,
        images: Tensor | EpochViews,
        targets: Sequence[Tensor],
        lrs: Sequence[float],
        epoch: int,
        *,
        start: MidEpoch | None = None,
        on_step: OnStep = lambda step, loss: None,
    ) -> float:
        """Train one epoch of ``len(lrs)`` steps; the mean loss.

        All that is random in it (order, dropout) follows from the seed and ``epoch`` alone. An epoch that was
        interrupted and goes on from ``start``, with model and optimiser as they were then, equals one that was not.
        Nothing waits for the device before the epoch has ended, but what ``on_step`` does.

        Args:
            images: float32 (N, C, H, W), the epoch's views, normalised, on the model's device.
            targets: (N, ...), each with something for every image, on the same device.
            lrs: the learning rate of each step.
            epoch: counted from 0.
            start: where to go on in the epoch; None: at its first step.

        Raises:
            DivergedError: if the mean loss is not finite.
        """
        device = images.device
        order = epoch_order(len(images), self._batch_size, self._seed, epoch, device)
        torch.manual_seed(seed_of(self._seed, "dropout", epoch))
        if start is not None:
            set_random_state(device, start.random)
        self._model.train()
        first = 0 if start is None else start.step
        total = torch.zeros((), device=device) if start is None else start.loss.to(device, copy=True)
        batches = _batches(images, targets, order[first * self._batch_size :], self._batch_size)
        with autocast(device, self._precision):
            for step, (batch, batch_targets) in enumerate(batches, first):
                total += self._step(batch, batch_targets, lrs[step])
                step_ended()
                on_step(step + 1, total)
        mean = float(total) / len(lrs)
        if not math.isfinite(mean):
            raise DivergedError(epoch + 1, max(lrs))
        return mean


def _batches(
    images: Tensor | EpochViews, targets: Sequence[Tensor], order: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
    """Images and targets of each step, in this order; their views are made a block of steps at a time."""
    batch_bytes = 4 * math.prod(images.shape[1:]) * batch_size
    block = max(1, _BLOCK_BYTES[images.device.type] // batch_bytes) * batch_size
    for first in range(0, len(order), block):
        index = order[first : first + block]
        with span("views"):
            views = images[index]
            parts = [target[index].split(batch_size) for target in targets]
        yield from zip(views.split(batch_size), zip(*parts, strict=True), strict=True)


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
def respond(model: nn.Module, images: Tensor | EpochViews, precision: Precision) -> Tensor:
    """The model's logits on normalised images (N, C, H, W) in evaluation mode: float32 (N, K)."""
    model.eval()
    with autocast(images.device, precision):
        return torch.cat([model(batch).float() for batch in images.split(evaluation_batch(images))])


def evaluation_batch(images: Tensor | EpochViews) -> int:
    """How many images are responded to at once; on a GPU as many as keep it busy, fewer where they are large."""
    if images.device.type == "cpu":
        return 1000
    return max(100, 2**22 // math.prod(images.shape[2:]))


@torch.no_grad()
def recompute_batchnorm(
    model: nn.Module, images: Tensor | EpochViews, order: Tensor, batch_size: int, precision: Precision
) -> None:
    """Replace BatchNorm's running statistics by their average over batches of ``images``, in place.

    At most :data:`BATCHNORM_BATCHES` batches are used, in this order (int64, indices of images); the model is left in
    evaluation mode. A model without BatchNorm is left as it is.
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
    batches = max(1, min(BATCHNORM_BATCHES, len(order) // batch_size))
    with autocast(images.device, precision):
        for index in order[: batches * batch_size].split(batch_size):
            model(images[index])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
