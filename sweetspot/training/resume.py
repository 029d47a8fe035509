"""A training run in the middle of an epoch, as safetensors bytes: what a crash must not cost."""

import torch
from torch import Tensor, nn

from sweetspot.training.engine import MidEpoch
from sweetspot.training.optimizers import load_state_tensors, state_tensors
from sweetspot.training.weights import from_bytes, to_bytes


class StoppedError(Exception):
    """A training was asked to stop, and has saved its place."""


_MODEL, _OPTIMIZER = "model/", "optimizer/"


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, random: Tensor) -> bytes:
    """All that a run needs to go on from a step of an epoch, but which step that is.

    Args:
        loss: the sum of the epoch's losses so far, float32 ().
        random: the state of the device's random generator, uint8.
    """
    tensors = {f"{_MODEL}{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"{_OPTIMIZER}{name}": value for name, value in state_tensors(optimizer, model).items()}
    return to_bytes(tensors | {"loss": loss, "random": random})


def load_training_state(content: bytes, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> MidEpoch:
    """Put back what :func:`training_state` gave; where the epoch goes on, at ``step``."""
    tensors = from_bytes(content)
    with torch.no_grad():
        model.load_state_dict(_under(tensors, _MODEL), strict=True)
    load_state_tensors(optimizer, model, _under(tensors, _OPTIMIZER))
    return MidEpoch(step, tensors["loss"], tensors["random"])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
