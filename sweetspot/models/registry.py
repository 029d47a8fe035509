"""The models by name. Listing them needs no torch: a network's module is imported when the network is built.

A model is added by writing one function ``(*, classes, channels, image_size, **options) -> nn.Module`` and one line of
``_BUILT_IN``. A model from outside is an entry point of the group ``sweetspot.models``: its name is the model's name,
its object a callable ``(classes, channels, image_size) -> nn.Module``, called with keywords. The networks of
torchvision and timm go by ``torchvision:NAME`` and ``timm:NAME`` (:mod:`sweetspot.models.libraries`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from sweetspot.errors import UserError, unknown_name
from sweetspot.models import libraries

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "sweetspot.models"


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model before torch is imported.

    Attributes:
        source: ``"module:function"``, imported when the model is built.
        description: one line for people.
        options: keyword arguments of the function beside ``classes``, ``channels`` and ``image_size``.
        smallest_image: side, in pixels, of the smallest image for which every weight of the network can act. A 3x3
            convolution that sees a single pixel uses one of its nine weights, and trains without any complaint.
        distribution: the installed distribution that brings the model; None for a built-in one.
    """

    source: str
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)
    smallest_image: int = 1
    distribution: str | None = None


def _resnet(depth: int, size: str) -> ModelSpec:
    description = f"CIFAR ResNet of {depth} layers, widths 16/32/64 ({size} parameters)"
    return ModelSpec("sweetspot.models.cifar_resnet:cifar_resnet", description, {"depth": depth}, smallest_image=5)


def _resnet_x4(depth: int, size: str) -> ModelSpec:
    description = f"CIFAR ResNet of {depth} layers, widths 64/128/256 ({size} parameters)"
    options = {"depth": depth, "stem": 32, "widths": (64, 128, 256)}
    return ModelSpec("sweetspot.models.cifar_resnet:cifar_resnet", description, options, smallest_image=5)


def _wrn(depth: int, factor: int, size: str) -> ModelSpec:
    description = f"wide ResNet of {depth} layers, {factor} times as wide ({size} parameters)"
    options = {"depth": depth, "factor": factor}
    return ModelSpec("sweetspot.models.wide_resnet:wide_resnet", description, options, smallest_image=5)


def _plain(depth: int, size: str, note: str = "") -> ModelSpec:
    description = f"resnet{depth} without its shortcuts{note} ({size} parameters)"
    return ModelSpec("sweetspot.models.plain:plain", description, {"depth": depth}, smallest_image=5)


def _convnet(widths: tuple[int, int, int], size: str) -> ModelSpec:
    description = f"three convolutions of {'/'.join(map(str, widths))} channels, for small images ({size} parameters)"
    return ModelSpec("sweetspot.models.small:convnet", description, {"widths": widths}, smallest_image=4)


def _mlp(hidden: int) -> ModelSpec:
    return ModelSpec("sweetspot.models.small:mlp", f"one hidden layer of {hidden} units", {"hidden": hidden})


# The order is the one that people read: by family, then by size. Sizes are for 100 classes and colour images.
_BUILT_IN: Mapping[str, ModelSpec] = {
    "resnet8": _resnet(8, "0.08 M"),
    "resnet14": _resnet(14, "0.18 M"),
    "resnet20": _resnet(20, "0.28 M"),
    "resnet32": _resnet(32, "0.47 M"),
    "resnet44": _resnet(44, "0.67 M"),
    "resnet56": _resnet(56, "0.86 M"),
    "resnet110": _resnet(110, "1.74 M"),
    "resnet8x4": _resnet_x4(8, "1.23 M"),
    "resnet32x4": _resnet_x4(32, "7.43 M"),
    "wrn-16-1": _wrn(16, 1, "0.18 M"),
    "wrn-16-2": _wrn(16, 2, "0.70 M"),
    "wrn-40-1": _wrn(40, 1, "0.57 M"),
    "wrn-40-2": _wrn(40, 2, "2.26 M"),
    "wrn-28-10": _wrn(28, 10, "36.54 M"),
    "plain8": _plain(8, "0.08 M"),
    "plain14": _plain(14, "0.18 M"),
    "plain20": _plain(20, "0.28 M"),
    "plain32": _plain(32, "0.47 M"),
    "plain44": _plain(44, "0.66 M"),
    "plain56": _plain(56, "0.86 M", ", hard to train"),
    "plain110": _plain(110, "1.73 M", ", very hard to train"),
    "convnet": _convnet((16, 32, 32), "18 k"),
    "convnet-narrow": _convnet((3, 6, 6), "1.3 k"),
    "mlp": _mlp(32),
    "mlp-8": _mlp(8),
}


_TRIED: dict[tuple[int, ...], Callable[..., Any]] = {}
"""The functions of others that gave a working network, by their ids and the sizes that they were given."""


def names() -> tuple[str, ...]:
    """All models: the built-in ones by family and size, the forms of the libraries, then other distributions' by name.

    Raises:
        UserError: an entry point bears a name that is taken.
    """
    specs = _specs()
    return (*_BUILT_IN, *libraries.FORMS, *(name for name in specs if name not in _BUILT_IN))


def describe(name: str) -> str:
    """One line for people; for a model from outside, which distribution brings it.

    Raises:
        UserError: there is no such model, or an entry point bears a name that is taken.
    """
    return libraries.describe(name) if libraries.is_of_library(name) else _spec(name).description


def build(name: str, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """The network, freshly initialised from torch's global random numbers, on torch's default device.

    Args:
        name: one of ``names()``, with a network's name in place of ``NAME``.
        classes: width of the response, at least 2.
        channels: of an image: 1 for grey, 3 for colour.
        image_size: side of the square images, in pixels.

    Returns:
        A module from normalised images, float (N, channels, image_size, image_size), to logits (N, classes).

    Raises:
        UserError: there is no such model, the images are too small for it, or a model from outside is not what it
            should be.
        ValueError: a size makes no sense.
    """
    if classes < 2 or channels < 1 or image_size < 1:
        raise ValueError(f"no network for {classes=}, {channels=}, {image_size=}")
    if libraries.is_of_library(name):
        return libraries.build(name, classes=classes, channels=channels, image_size=image_size)
    spec = _spec(name)
    if image_size < spec.smallest_image:
        raise UserError(
            f"model {name!r} needs images of at least {spec.smallest_image}x{spec.smallest_image} pixels, and these "
            f"are {image_size}x{image_size}: use larger images, or a model for small ones such as 'mlp'"
        )
    sizes = {"classes": classes, "channels": channels, "image_size": image_size}
    if spec.distribution is None:
        return _load(name, spec)(**sizes, **spec.options)  # type: ignore[no-any-return]
    return _build_from_outside(name, spec, sizes)


def count_parameters(model: nn.Module) -> int:
    """How many numbers are trained; running statistics and frozen parameters do not count."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _spec(name: str) -> ModelSpec:
    specs = _specs()
    if name not in specs:
        raise unknown_name("model", name, names())
    return specs[name]


def _specs() -> dict[str, ModelSpec]:
    """The built-in models and the entry points; a name that is taken twice is refused, for it would name neither."""
    return _specs_found_in(tuple(sys.path))


@lru_cache(maxsize=1)
def _specs_found_in(path: tuple[str, ...]) -> dict[str, ModelSpec]:
    """As :func:`_specs`; distributions are looked for on ``path``, which is that of imports, once."""
    specs = dict(_BUILT_IN)
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value)):
        distribution = entry.dist.name if entry.dist is not None else entry.module
        if entry.name in specs:
            owner = specs[entry.name].distribution or "sweetspot itself"
            raise UserError(
                f"model {entry.name!r} of the distribution {distribution!r} clashes with the one of {owner}: "
                f"rename its entry point (group {ENTRY_POINT_GROUP}) or uninstall {distribution!r}"
            )
        description = f"from the distribution {distribution} ({entry.value})"
        specs[entry.name] = ModelSpec(entry.value, description, distribution=distribution)
    return specs


def _load(name: str, spec: ModelSpec) -> Callable[..., Any]:
    return EntryPoint(name=name, value=spec.source, group=ENTRY_POINT_GROUP).load()  # type: ignore[no-any-return]


def _build_from_outside(name: str, spec: ModelSpec, sizes: Mapping[str, int]) -> nn.Module:
    """As ``build``, for code that is not ours: whatever does not keep the contract is named with its distribution."""
    culprit = f"model {name!r} of the distribution {spec.distribution!r}"
    try:
        function = _load(name, spec)
    except Exception as error:  # what a module raises while it is imported can be anything
        reason = " ".join(str(error).split())
        raise UserError(f"{culprit} cannot be imported ({reason}): mend or uninstall {spec.distribution!r}") from error
    try:
        inspect.signature(function).bind(**sizes)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{culprit} cannot be called with classes, channels and image_size ({error}): mend {spec.source!r}"
        ) from error
    from sweetspot.models.contract import refuse_other_weights, try_out

    def make() -> nn.Module:
        return _made(function, culprit, spec, sizes)

    # Tried once in a process; the function is kept, so that no other is ever taken for it.
    key = id(function), *sizes.values()
    if key not in _TRIED:
        try_out(make, culprit, sizes, f"mend {spec.source!r}")
        _TRIED[key] = function
    network = make()
    refuse_other_weights(network, name, str(spec.distribution))
    return network


def _made(function: Callable[..., Any], culprit: str, spec: ModelSpec, sizes: Mapping[str, int]) -> nn.Module:
    from torch import nn

    model = function(**sizes)
    if not isinstance(model, nn.Module):
        raise UserError(f"{culprit} is a {type(model).__name__}, not a torch.nn.Module: mend {spec.source!r}")
    return model
