"""The networks of torchvision and timm by name: never pretrained, and adapted where the images are small.

A network made for photographs of 224 pixels shrinks an image fourfold before its first block. Of images under 64
pixels that would leave little, so that there

- a first convolution with a stride becomes a 3x3 one of stride 1, and the pool that follows it is removed (ResNet,
  DenseNet, EfficientNet, ConvNeXt, ...);
- a transformer that is built for one size of images and cuts them into patches gets smaller patches: a quarter of its
  own or less, at least seven a side (ViT, and timm's Swin);

and whatever then does not give logits is refused. Nothing here imports torch before a network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sweetspot.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from sweetspot.models.stem import Stem

_ADAPTED = "never pretrained; its stem is adapted for images under 64 pixels"
_SOURCES = {
    "torchvision": "a classification network of torchvision, as torchvision:resnet18",
    "timm": "a network of timm, as timm:resnet10t",
}
FORMS = tuple(f"{library}:NAME" for library in _SOURCES)


def is_of_library(name: str) -> bool:
    """Whether a model's name is one of these forms."""
    return name.partition(":")[0] in _SOURCES and ":" in name


def describe(name: str) -> str:
    """One line about a form, or about a network of a library.

    Raises:
        UserError: the library is not installed, or has no such network.
    """
    library, _, network = name.partition(":")
    if name in FORMS:
        is_there = find_spec(library) is not None
        return f"{_SOURCES[library]}: {_ADAPTED}{'' if is_there else f' (not installed: {_extra(library)})'}"
    _check_name(library, network)
    return f"{network} of {library}, {_ADAPTED}"


def build(name: str, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """As :func:`sweetspot.models.build`, of a name with a library.

    Its state has the names that the library gives it. Weights that do not fit are refused with the library's version.

    Raises:
        UserError: the library is not installed, has no such network, or its network does not work on such images.
    """
    from sweetspot.models.contract import refuse_other_weights

    library, _, network = name.partition(":")
    _check_name(library, network)
    with _quiet():
        built = _plan(library, network, classes, channels, image_size).build()
    refuse_other_weights(built, name, library)
    return built


@dataclass(frozen=True)
class _Plan:
    """How a network is built: what the library makes, and the stem that is adapted afterwards."""

    make: Callable[[], nn.Module]
    stem: Stem | None = None

    def build(self) -> nn.Module:
        from sweetspot.models.stem import adapt_stem

        network = self.make()
        if self.stem is not None:
            adapt_stem(network, self.stem)
        return network


@cache
def _plan(library: str, network: str, classes: int, channels: int, image_size: int) -> _Plan:
    """How this network is built, once it is known to work."""
    import torch

    from sweetspot.models.contract import reason, try_out

    culprit = f"model '{library}:{network}'"
    what_to_do = f"use larger images or another model, such as '{library}:resnet18' or 'resnet20'"
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            plan = (_of_torchvision if library == "torchvision" else _of_timm)(network, classes, channels, image_size)
        except Exception as error:  # what a library raises can be anything
            size = f"{image_size}x{image_size}"
            raise UserError(f"{culprit} cannot be built for {size} images: {reason(error)}; {what_to_do}") from error
    try_out(plan.build, culprit, {"classes": classes, "channels": channels, "image_size": image_size}, what_to_do)
    return plan


def _of_torchvision(network: str, classes: int, channels: int, image_size: int) -> _Plan:
    from torchvision.models import VisionTransformer, get_model

    from sweetspot.models.stem import SMALL, accept_channels, patch_for

    heads = {"aux_logits": False, "init_weights": True} if network in ("googlenet", "inception_v3") else {}
    make = partial(get_model, network, weights=None, num_classes=classes, **heads)
    own, stem = make(), None
    if isinstance(own, VisionTransformer):
        make = partial(
            VisionTransformer,
            image_size=image_size,
            patch_size=patch_for(image_size, own.patch_size) if image_size < SMALL else own.patch_size,
            num_layers=len(own.encoder.layers),
            num_heads=own.encoder.layers[0].num_heads,
            hidden_dim=own.hidden_dim,
            mlp_dim=own.mlp_dim,
            num_classes=classes,
        )
    else:
        accept_channels(own, channels)
        stem = _stem(own, channels, image_size)

    def for_channels() -> nn.Module:  # torchvision knows colour images alone
        made: nn.Module = make()
        accept_channels(made, channels)
        return made

    return _Plan(for_channels, stem)


def _of_timm(network: str, classes: int, channels: int, image_size: int) -> _Plan:
    import timm

    from sweetspot.models.stem import SMALL, first_convolution, patch_for

    def making(**sizes: Any) -> Callable[[], nn.Module]:
        return partial(timm.create_model, network, pretrained=False, num_classes=classes, in_chans=channels, **sizes)

    if image_size >= SMALL:
        sizes = {"img_size": image_size}
        return _Plan(making(**(sizes if _takes(making, sizes) else {})))
    own = making()()
    first = first_convolution(own)
    sizes = {"img_size": image_size, "patch_size": patch_for(image_size, max(first.stride) if first else 1)}
    if _takes(making, sizes):
        return _Plan(making(**sizes))
    stem = _stem(own, channels, image_size)
    # What the library's own stem would bring down to the size at which the adapted one leaves the image.
    sizes = {"img_size": image_size * (stem.shrinks if stem else 1)}
    return _Plan(making(**(sizes if _takes(making, sizes) else {})), stem)


def _takes(making: Callable[..., Callable[[], nn.Module]], sizes: Mapping[str, int]) -> bool:
    """Whether a network can be built with these arguments; those that it has no name for are a TypeError."""
    try:
        making(**sizes)()
    except TypeError as error:
        if any(name in str(error) for name in sizes):
            return False
        raise
    return True


def _stem(network: nn.Module, channels: int, image_size: int) -> Stem | None:
    """What is to be adapted for such images; None: nothing."""
    import torch

    from sweetspot.models.stem import SMALL, find_stem

    if image_size >= SMALL:
        return None
    return find_stem(network, torch.zeros(2, channels, image_size, image_size))


def _check_name(library: str, network: str) -> None:
    if find_spec(library) is None:
        raise UserError(f"model '{library}:{network}' needs {library}, which is not installed: {_extra(library)}")
    known = _names(library)
    if network not in known:
        near = get_close_matches(network.partition(".")[0], known, n=1, cutoff=0.6)
        hint = f"did you mean '{library}:{near[0]}'? " if near else ""
        listed = "timm.list_models()" if library == "timm" else "torchvision.models.list_models(torchvision.models)"
        raise UserError(
            f"unknown model '{library}:{network}': {hint}the {len(known):,} names of {library} {version(library)} "
            f"are in {listed}"
        )


@cache
def _names(library: str) -> tuple[str, ...]:
    """The classification networks of a library."""
    if library == "timm":
        import timm

        return tuple(timm.list_models())
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))


def _extra(library: str) -> str:
    if library == "timm":
        return "in a clone ./uvw sync --extra timm, for another environment pip install '.[timm]' in it"
    return f"pip install {library}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that a library gives to those who wrote it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
