"""Optimisers by name, and their state as named tensors."""

from typing import Any

import torch
from torch import Tensor, nn

from sweetspot import config


def _plain(method: Any) -> Any:
    """The method under torch's wrappers for ``torch.compile``, which import its machinery at the first call.

    That import takes 3.5 s of a process that compiles nothing (torch 2.15, one core). The method itself where there is
    no wrapper.
    """
    return getattr(method, "__wrapped__", method)


class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` that starts at once."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(_plain(torch.optim.SGD.step))


class AdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` that starts at once."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))


def optimizer(model: nn.Module, options: config.SGD | config.AdamW) -> torch.optim.Optimizer:
    """The fused optimiser that ``options`` describe; its learning rate is set anew at every step."""
    if isinstance(options, config.SGD):
        return SGD(
            model.parameters(),
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.nesterov,
            weight_decay=options.weight_decay,
            fused=True,
        )
    return AdamW(model.parameters(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, fused=True)


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
