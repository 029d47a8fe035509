"""Exported networks: what ``sweetspot export`` has written, as modules that take images as they are.

Loading needs the folder alone: no database, no study, no data set. Nothing in the folder is executed: the weights are
safetensors, the rest is JSON, and a network's name is looked up among the models that are installed.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from sweetspot.errors import UserError, one_line
from sweetspot.models.registry import ENTRY_POINT_GROUP, build

Kind = Literal["teacher", "student"]

FORMAT = "sweetspot-export"
FORMAT_VERSION = 1
"""Rises with every change after which an older Sweetspot could not load an export."""
CONFIG = "config.json"
CARD = "README.md"
WEIGHTS: dict[Kind, str] = {"teacher": "teacher.safetensors", "student": "student.safetensors"}
FILES = frozenset({CONFIG, CARD, *WEIGHTS.values()})
"""All that an export consists of."""

_OURS = "sweetspot"
_LARGEST_CONFIG = 2**26
_AGAIN = "export again with sweetspot export"


class ExportedNetwork(nn.Module):
    """A network in evaluation mode, from images as they are to logits.

    The images are float (N, C, H, W) from 0 to 1, or uint8 (N, C, H, W), of the size that the network was trained on;
    they are normalised inside. The logits are (N, K).

    Attributes:
        network: the bare network, from normalised images to logits, as for further training.
        classes: their names; logit k is that of class k.
        channels, image_size: of the images.
        precision: "float32" or "bfloat16": how the study has trained the network, and measured its accuracies (with
            ``torch.autocast`` for bfloat16). Loaded, it computes in float32 unless autocast says otherwise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, images: "ImagesPart", precision: str) -> None:
        super().__init__()
        self.network = network
        self.classes = tuple(images.classes)
        self.channels = images.channels
        self.image_size = images.size
        self.precision = precision
        # In float64 as far as possible, and of pixels from 0 to 255: exactly what the network was trained with.
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (images.mean, images.std)
        )
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K).

        Raises:
            ValueError: if the images have another shape, or are neither uint8 nor float.
        """
        wanted = (self.channels, self.image_size, self.image_size)
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(f"images must be (N, {', '.join(map(str, wanted))}), found {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            pixels = images.to(self.scale.dtype)
        elif images.is_floating_point():
            pixels = images.to(self.scale.dtype) * 255
        else:
            raise ValueError(f"images must be uint8, or float from 0 to 1; found {images.dtype}")
        normalised = (pixels * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(normalised)
        return logits


def load_student(folder: str | Path) -> ExportedNetwork:
    """The student of an export, on the CPU and in evaluation mode.

    Args:
        folder: what ``sweetspot export`` has written.

    Raises:
        UserError: if something of it is missing, damaged or of another version, or its network is not installed.

    Example::

        student = sweetspot.load_student("exported")
        name = student.classes[student(images).argmax(1)[0]]
    """
    return _load(Path(folder), "student")


def load_teacher(folder: str | Path) -> ExportedNetwork:
    """The teacher of an export, as :func:`load_student`: with the BatchNorm statistics with which it taught."""
    return _load(Path(folder), "teacher")


# -- config.json ------------------------------------------------------------------------------------------------------


class _Part(BaseModel):
    """What loading needs of a part of ``config.json``; what else is there is for people."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ImagesPart(_Part):
    """What the networks are shown: ``mean`` and ``std`` are of pixels from 0 to 1, one per channel."""

    classes: Annotated[list[str], Field(min_length=2, max_length=10**6)]
    channels: Annotated[int, Field(ge=1, le=1024)]
    size: Annotated[int, Field(ge=1, le=8192)]
    mean: list[float]
    std: list[PositiveFloat]

    @model_validator(mode="after")
    def _one_per_channel(self) -> "ImagesPart":
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError("mean and std must have one value per channel")
        return self


class Distribution(_Part):
    """The installed distribution that brings a network."""

    name: str
    version: str


class NetworkPart(_Part):
    model: str
    distribution: Distribution
    precision: Literal["float32", "bfloat16"]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: int


class _Config(_Part):
    images: ImagesPart
    teacher: NetworkPart
    student: NetworkPart


def distribution_of(model: str) -> Distribution:
    """Which distribution brings the model of this name here, and in which version."""
    name = model.partition(":")[0] if model.startswith(("torchvision:", "timm:")) else None
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=model):
        name = entry.dist.name if entry.dist is not None else entry.module
    name = name or _OURS
    return Distribution(name=name, version=_installed(name) or "unknown")


def is_export(folder: Path) -> bool:
    """Whether a folder is an export, of whatever version, and nothing else."""
    try:
        if {path.name for path in folder.iterdir()} - FILES:
            return False
        return bool(_values(folder)["format"] == FORMAT)
    except (OSError, UserError):
        return False


def _config(folder: Path) -> _Config:
    values = _values(folder)
    found = values.get("format_version")
    if found != FORMAT_VERSION:
        raise UserError(
            f"{folder / CONFIG} has format_version {found!r}, and Sweetspot {_installed(_OURS)} reads "
            f"{FORMAT_VERSION}: {_AGAIN} of this version, or install the one that wrote it"
        )
    try:
        return _Config.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{folder / CONFIG} is damaged ({where}: {first['msg']}): {_AGAIN}") from None


def _values(folder: Path) -> dict[str, object]:
    """The content of a folder's ``config.json``, as far as it is one of ours."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give one that sweetspot export has written")
    content = _content(path, largest=_LARGEST_CONFIG)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is no JSON: {_AGAIN}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{path} is not one that sweetspot export has written: give the folder of an export")
    return values


# -- networks ---------------------------------------------------------------------------------------------------------


def _load(folder: Path, kind: Kind) -> ExportedNetwork:
    folder = folder.expanduser()
    config = _config(folder)
    part: NetworkPart = getattr(config, kind)
    weights = _weights(folder / WEIGHTS[kind], part)
    network = _built(folder, part, config.images)
    try:
        with torch.no_grad():
            network.load_state_dict(weights, strict=True)
    except (RuntimeError, UserError) as error:  # a library's network says so itself
        raise UserError(
            f"the weights in {folder / WEIGHTS[kind]} do not fit the network {part.model!r} as it is built by "
            f"{_here(part.distribution.name)} ({_reason(error)}); {_advice(part.distribution)}"
        ) from None
    network.to(memory_format=torch.channels_last)
    return ExportedNetwork(network, config.images, part.precision).eval()


def _weights(path: Path, part: NetworkPart) -> dict[str, Tensor]:
    content = _content(path, size=part.bytes)
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise UserError(f"{path} is not what was exported (another SHA-256 than {CONFIG} says): {_AGAIN}")
    try:
        return load(content)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({_reason(error)}): {_AGAIN}") from None


def _built(folder: Path, part: NetworkPart, images: ImagesPart) -> nn.Module:
    """The network with initial weights; whoever draws random numbers beside it does not notice."""
    sizes = {"classes": len(images.classes), "channels": images.channels, "image_size": images.size}
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return build(part.model, **sizes)
    except Exception as error:  # what a network from outside raises can be anything
        raise UserError(
            f"the network {part.model!r} of {folder} cannot be built here ({_reason(error)}); "
            f"{_advice(part.distribution)}"
        ) from None


def _advice(wanted: Distribution) -> str:
    return f"the export was made with {wanted.name} {wanted.version}: install that"


def _here(name: str) -> str:
    found = _installed(name)
    return f"{name} {found}" if found else f"{name}, which is not installed here"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _content(path: Path, *, size: int | None = None, largest: int | None = None) -> bytes:
    """What a file holds, if it is one, and as large as it must be (bytes)."""
    try:
        if not path.exists():
            raise UserError(f"{path} is missing: {_AGAIN}")
        found = path.stat().st_size
        if not path.is_file() or (largest is not None and found > largest):
            raise UserError(f"{path} is not a file that sweetspot export has written: {_AGAIN}")
        if size is not None and found != size:
            raise UserError(f"{path} has {found:,} bytes where {size:,} were exported: {_AGAIN}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _reason(error: BaseException) -> str:
    """The first of what an error says, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines()]
    words = [line for line in lines if line and not line.startswith("Error(s) in loading")]
    return one_line(words[0])[:200] if words else type(error).__name__
