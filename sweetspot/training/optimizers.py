"""Optimisers by name, and their state as named tensors."""

import torch
from torch import Tensor, nn

from sweetspot import config


def optimizer(model: nn.Module, options: config.SGD | config.AdamW) -> torch.optim.Optimizer:
    """The fused optimiser that ``options`` describe; its learning rate is set anew at every step."""
    if isinstance(options, config.SGD):
        return torch.optim.SGD(
            model.parameters(),
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.nesterov,
            weight_decay=options.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(
        model.parameters(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, fused=True
    )


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as "<parameter>/<entry>" to CPU tensors, for safetensors."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{name}/{entry}"] = value.detach().cpu().contiguous()
    return tensors


def load_state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`state_tensors` gave, on the devices and in the layouts of the parameters."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)
        else:  # AdamW's step count: a scalar, which the fused kernels want where the parameter is
            value = value.to(parameter.device)
        optimizer.state[parameter][entry] = value
