"""Names of data sets, and how each is opened. Imports neither torch nor what reads the images until one is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from sweetspot.config import RESIZED, check_image_size
from sweetspot.errors import UserError, unknown_name

if TYPE_CHECKING:
    from sweetspot.data.images import DataSet

ENTRY_POINTS = "sweetspot.datasets"
"""Entry points by which other packages add data sets: each a callable ``(root: Path) -> DataSet``."""

IMAGE_FOLDER = RESIZED
NPZ = "npz:"
BY_PATH = {
    f"{IMAGE_FOLDER}PATH": "your own image files: a folder with one folder per class, or with train and val or test",
    f"{NPZ}PATH": "your own images: a NumPy .npz file, or a folder of such parts",
}
"""The forms by which a data set of the user's own is named, with a line about each."""


@dataclass(frozen=True)
class DataSetInfo:
    """What can be said of a built-in data set without opening it.

    Attributes:
        line: one line for people.
        image_size: height and width in pixels.
        train_images: before a validation split is taken from them.
    """

    name: str
    line: str
    classes: int
    channels: int
    image_size: int
    train_images: int
    test_images: int


_BUILT_IN = {
    "digits": (
        DataSetInfo("digits", "handwritten digits of scikit-learn, no download", 10, 1, 8, 1397, 400),
        "sweetspot.data.digits:Digits",
    ),
    "mnist": (
        DataSetInfo("mnist", "MNIST, handwritten digits", 10, 1, 28, 60_000, 10_000),
        "sweetspot.data.torchvision_sets:mnist",
    ),
    "fashion_mnist": (
        DataSetInfo("fashion_mnist", "Fashion-MNIST, articles of clothing", 10, 1, 28, 60_000, 10_000),
        "sweetspot.data.torchvision_sets:fashion_mnist",
    ),
    "cifar10": (
        DataSetInfo("cifar10", "CIFAR-10, photographs", 10, 3, 32, 50_000, 10_000),
        "sweetspot.data.torchvision_sets:cifar10",
    ),
    "cifar100": (
        DataSetInfo("cifar100", "CIFAR-100, photographs", 100, 3, 32, 50_000, 10_000),
        "sweetspot.data.torchvision_sets:cifar100",
    ),
    "svhn": (
        DataSetInfo("svhn", "SVHN, photographs of house numbers", 10, 3, 32, 73_257, 26_032),
        "sweetspot.data.torchvision_sets:svhn",
    ),
    "stl10": (
        DataSetInfo("stl10", "STL-10, photographs", 10, 3, 96, 5_000, 8_000),
        "sweetspot.data.torchvision_sets:stl10",
    ),
    "tiny_imagenet": (
        DataSetInfo("tiny_imagenet", "Tiny ImageNet, photographs, no download", 200, 3, 64, 100_000, 10_000),
        "sweetspot.data.tiny_imagenet:TinyImageNet",
    ),
}


def names() -> list[str]:
    """All data sets: the built-in ones, those that other packages add, and the forms with a ``PATH``."""
    return [*_BUILT_IN, *sorted(_added()), *BY_PATH]


def describe(name: str) -> str:
    """One line about a data set, without opening it.

    Raises:
        UserError: there is no data set of this name.
    """
    if name in _BUILT_IN:
        about = _BUILT_IN[name][0]
        size = f"{about.image_size}x{about.image_size} {'grey' if about.channels == 1 else 'colour'}"
        return f"{about.line}: {about.classes} classes, {about.train_images:,} + {about.test_images:,} images, {size}"
    if (form := _form(name)) is not None:
        return BY_PATH[form]
    return f"added by {_added_named(name).value}"


def info(name: str) -> DataSetInfo | None:
    """What is known of a data set before it is opened; None where nothing is: by path, and added ones.

    Raises:
        UserError: there is no data set of this name.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name][0]
    if _form(name) is None:
        _added_named(name)
    return None


def open_dataset(name: str, root: Path, image_size: int | None = None) -> "DataSet":
    """Opens a data set, and downloads it into ``root`` if it is not there.

    Args:
        name: one of :func:`names`, with a path in place of ``PATH``.
        root: folder of downloaded data sets, and of the resized images of ``imagefolder:PATH``; made when it is needed.
        image_size: height and width to which the images of ``imagefolder:PATH`` are brought; None: 64. All other
            data sets have a size of their own.

    Raises:
        UserError: there is no data set of this name, or it cannot be opened; the message says what to do.
    """
    root = root.expanduser()
    if name.startswith(IMAGE_FOLDER):
        from sweetspot.data.imagefolder import ImageFolder

        return ImageFolder(name.removeprefix(IMAGE_FOLDER), root, image_size)
    try:
        check_image_size(name, image_size)
    except ValueError as error:
        raise UserError(f"data.image_size = {image_size}: {error}") from None
    if name in _BUILT_IN:
        opener: Callable[[Path], DataSet] = resolve_name(_BUILT_IN[name][1])
        return opener(root)
    if name.startswith(NPZ):
        from sweetspot.data.npz import NpzDataSet

        return NpzDataSet(name.removeprefix(NPZ))
    return _open_added(_added_named(name), root)


def _form(name: str) -> str | None:
    """The key of :data:`BY_PATH` for a data set that is named by its path."""
    return next((form for form in BY_PATH if name.startswith(form.removesuffix("PATH"))), None)


def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in _BUILT_IN}


def _added_named(name: str) -> EntryPoint:
    added = _added()
    if name in added:
        return added[name]
    if ":" in name:
        forms = " and ".join(f"{form} ({line})" for form, line in BY_PATH.items())
        raise UserError(f"unknown data set {name!r}: the forms with a colon are {forms}")
    raise unknown_name("data set", name, names())


def _open_added(entry: EntryPoint, root: Path) -> "DataSet":
    from sweetspot.data.images import DataSet

    try:
        opener = entry.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"data set {entry.name!r} could not be loaded from {entry.value}: {error}") from error
    dataset = opener(root)
    if not isinstance(dataset, DataSet):
        raise UserError(
            f"data set {entry.name!r}: {entry.value} returned a {type(dataset).__name__}, "
            "not a sweetspot.data.images.DataSet"
        )
    return dataset
