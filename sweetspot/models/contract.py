"""What a network that others have written must do: found out before anything is created, and as weights are loaded."""

import copy
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from sweetspot.errors import UserError

_LONGEST_REASON = 200
"""Characters of another's error that ours shows."""


def try_out(make: Callable[[], nn.Module], culprit: str, sizes: Mapping[str, int], what_to_do: str) -> None:
    """Build a network on the CPU, show it two images of these sizes, and throw it away.

    It must give finite logits, while it trains and while it responds, and its weights must be storable. torch's global
    random numbers are afterwards as they were before.

    Args:
        make: builds it.
        culprit: what the error calls it.
        sizes: ``classes``, ``channels`` and ``image_size``.
        what_to_do: how the error ends.

    Raises:
        UserError: if it is not such a network.
    """
    classes, channels, size = (sizes[key] for key in ("classes", "channels", "image_size"))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        images = torch.randn(2, channels, size, size)
        try:
            network = copy.deepcopy(make()).to(memory_format=torch.channels_last)
            problem = _problem(network, images, classes)
        except UserError:
            raise
        except Exception as error:  # what a network raises can be anything
            problem = reason(error)
    if problem:
        kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
        raise UserError(f"{culprit} does not work on {kind} {size}x{size} images: {problem}; {what_to_do}")


@torch.no_grad()
def _problem(network: nn.Module, images: Tensor, classes: int) -> str | None:
    for training in (True, False):
        network.train(training)
        logits = network(images)
        when = "in training" if training else "in evaluation"
        if not isinstance(logits, Tensor):
            return f"{when} it gives a {type(logits).__name__}, not a tensor of logits"
        if logits.shape != (len(images), classes):
            return f"{when} it gives {tuple(logits.shape)}, not {(len(images), classes)} logits"
        if not bool(logits.isfinite().all()):
            return f"{when} its logits are not finite"
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.numel()}
    if len({tensor.data_ptr() for tensor in state.values()}) < len(state):
        return "some of its layers share their weights, which a snapshot cannot hold"
    try:
        network.load_state_dict(dict(network.state_dict()))  # a snapshot holds tensors by name, and nothing else
    except Exception as error:  # MNASNet wants more
        return f"its weights alone cannot be loaded ({reason(error)})"
    return None


def reason(error: Exception) -> str:
    """What went wrong, as a part of a line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:_LONGEST_REASON] if words else type(error).__name__


def refuse_other_weights(network: nn.Module, name: str, distribution: str) -> None:
    """Let ``network`` say in words when weights are loaded that are not its own.

    A name is all that a study knows of a network, and another version of its distribution may build another one.
    """

    def check(module: nn.Module, state: Mapping[str, Any], prefix: str, *rest: object) -> None:
        mine = {f"{prefix}{key}": tuple(value.shape) for key, value in module.state_dict().items()}
        theirs = {key: tuple(value.shape) for key, value in state.items() if key.startswith(prefix)}
        if mine == theirs:
            return
        key = next(k for k in (*mine, *theirs) if mine.get(k) != theirs.get(k))
        raise UserError(
            f"these weights are not of the {name!r} that {release(distribution)} builds: {key} is "
            f"{_shown(theirs.get(key))} in them, and {_shown(mine.get(key))} in the network; install the version of "
            f"{distribution} that made them, or begin anew with another --storage"
        )

    network.register_load_state_dict_pre_hook(check)


def release(distribution: str) -> str:
    """A distribution with its version."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


def _shown(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else "x".join(map(str, shape)) or "a number"
