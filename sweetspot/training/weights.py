"""Weights and optimiser state as safetensors bytes: nothing that is read back is executed."""

import torch
from safetensors.torch import load, save
from torch import Tensor, nn


def to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as a safetensors file in memory."""
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """What :func:`to_bytes` was given, on the CPU."""
    return load(content)


def load_weights(model: nn.Module, content: bytes) -> None:
    """Load a state dict's bytes into ``model``; names and shapes must match exactly."""
    with torch.no_grad():
        model.load_state_dict(from_bytes(content), strict=True)
