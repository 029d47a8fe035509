"""How a network made for photographs of 224 pixels begins, and how it begins when the images are small.

A change of what is done here is a change of the networks that names stand for: teachers and students that are stored
would no longer be theirs, and the ``FORMAT`` of their recipes must rise with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 64
"""Images of fewer pixels a side are small: a stem that shrinks them by four would leave little to see."""
_FURTHER_CONVOLUTIONS = 2
"""So many convolutions a stem has at most between its first one and its pool (as ResNet-D and Inception)."""
_SIDE = 3
"""Of the kernel of an adapted convolution."""


@dataclass(frozen=True)
class Stem:
    """The modules of a network that shrink an image before its first block, by name.

    Attributes:
        convolutions: those with a stride that see the image itself; several, where a block has parallel branches.
        pool: the pool that follows; None: there is none.
        shrinks: by how much these make the image smaller, a side.
    """

    convolutions: tuple[str, ...] = ()
    pool: str | None = None
    shrinks: int = 1


@dataclass(frozen=True, eq=False)
class _Call:
    """A module at work, and the tensor that it was given."""

    name: str
    module: nn.Module
    given: Any


@torch.no_grad()
def find_stem(network: nn.Module, image: Tensor) -> Stem:
    """The stem of ``network``, found by showing it ``image``, (N, C, S, S); a network that then fails has one, too.

    A network whose first convolution has no stride (VGG) has no stem to adapt.
    """
    calls: list[_Call] = []

    def note(name: str) -> Any:
        return lambda module, arguments: calls.append(_Call(name, module, arguments[0] if arguments else None))

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in network.named_modules() if name]
    network.eval()
    try:
        network(image)
    except Exception:  # whether it works is asked once it is adapted
        pass
    finally:
        for hook in hooks:
            hook.remove()
    first = {call.name: call for call in calls if _is_strided(call, nn.Conv2d) and call.given is image}
    if not first:
        return Stem()
    shrinks = max(_stride(call.module) for call in first.values())
    pool = _pool_after(list(first.values()), calls)
    if pool is None:
        return Stem(tuple(first), None, shrinks)
    return Stem(tuple(first), pool.name, shrinks * _stride(pool.module))


def adapt_stem(network: nn.Module, stem: Stem) -> None:
    """Let ``network`` see small images whole: 3x3 convolutions of stride 1, and no pool, in place.

    The kernel is the middle of the one that the library has initialised, scaled so that the variance of what it gives
    stays the same.
    """
    for name in stem.convolutions:
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        height, width = conv.kernel_size
        top, left = (height - _SIDE) // 2, (width - _SIDE) // 2
        # Where a kernel is smaller than 3x3 this pads it with zeros.
        middle = F.pad(conv.weight.detach(), (-left, left + _SIDE - width, -top, top + _SIDE - height))
        scale = (max(height, _SIDE) * max(width, _SIDE)) ** 0.5 / _SIDE
        conv.weight = nn.Parameter(middle * scale)
        conv.kernel_size, conv.stride, conv.dilation = (_SIDE, _SIDE), (1, 1), (1, 1)
        conv.padding = (1, 1)
        conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    if stem.pool is not None:
        network.set_submodule(stem.pool, nn.Identity())


def accept_channels(network: nn.Module, channels: int) -> None:
    """Let the first convolution of ``network``, made for colour images, see images of so many channels, in place."""
    conv = first_convolution(network)
    if conv is None or conv.in_channels == channels:
        return
    planes = torch.arange(channels, device=conv.weight.device) % conv.in_channels
    conv.weight = nn.Parameter(conv.weight.detach()[:, planes] * (conv.in_channels / channels) ** 0.5)
    conv.in_channels = channels


def first_convolution(network: nn.Module) -> nn.Conv2d | None:
    """The convolution that was made first, which is the one that sees the image."""
    return next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)


def patch_for(image_size: int, own: int) -> int:
    """The side of the patches that a transformer cuts small images into, in pixels.

    A quarter of the library's ``own`` or less, so that there are at least seven a side, and their number is whole.
    """
    most = max(1, min(own // 4, image_size // 7))
    return next(side for side in range(most, 0, -1) if image_size % side == 0)


def _pool_after(first: list[_Call], calls: list[_Call]) -> _Call | None:
    """The pool that follows the ``first`` convolutions, if it belongs to the stem.

    One that more than two further convolutions come before, or whose image goes elsewhere, too, belongs to a block.
    """
    after = calls[calls.index(first[0]) :]
    pool = next((call for call in after if _is_strided(call, nn.MaxPool2d, nn.AvgPool2d)), None)
    if pool is None:
        return None
    before = after[: after.index(pool)]
    if sum(isinstance(call.module, nn.Conv2d) for call in before) > len(first) + _FURTHER_CONVOLUTIONS:
        return None
    branches = [call for call in calls if call.given is pool.given and not f"{pool.name}.".startswith(f"{call.name}.")]
    return None if any(list(call.module.parameters()) for call in branches) else pool


def _is_strided(call: _Call, *kinds: type[nn.Module]) -> bool:
    return isinstance(call.module, kinds) and _stride(call.module) > 1


def _stride(module: nn.Module) -> int:
    stride: int | Sequence[int] = module.stride  # type: ignore[assignment]
    return stride if isinstance(stride, int) else max(stride)
