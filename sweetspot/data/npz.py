"""Your own images: ``npz:PATH``, a NumPy file or a folder of parts."""

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from sweetspot.data.images import DataSet, Images
from sweetspot.errors import UserError

_OURS = {"train": [("train_x", "train_y")], "test": [("test_x", "test_y")]}
_MEDMNIST = {
    "train": [("train_images", "train_labels"), ("val_images", "val_labels")],
    "test": [("test_images", "test_labels")],
}
_KEYS_ALLOWED = (
    "allowed are train_x, train_y, test_x, test_y (and classes), or MedMNIST's train_images, train_labels, …"
)

_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class NpzDataSet(DataSet):
    """Images in one ``.npz`` file, or in a folder of them: parts of one data set, joined in the order of their names.

    Each file holds ``train_x`` and ``test_x`` (uint8 (N, H, W, C) or (N, H, W); square, one or three channels),
    ``train_y`` and ``test_y`` (integers (N,) or (N, 1)) and, if it likes, ``classes`` (str (K,)). Without ``classes``,
    there are as many as the highest training label says, and their names are their numbers.

    MedMNIST's files are read as they are. They have a validation split of their own (``val_images``), which is joined
    to the training images, because Sweetspot draws its own.

    Shapes and dtypes of all arrays are checked on opening, from their headers, and the labels of both sets, so that a
    wrong one is not found out only when a search is over. No image of the test set is read before :meth:`test`.
    """

    def __init__(self, path: str) -> None:
        self.name = f"npz:{path}"
        self._parts = [_Part.open(file) for file in _files(path)]
        for part in self._parts[1:]:
            part.must_agree_with(self._parts[0])
        self.classes = self._classes()
        for part in self._parts:
            for _, y in part.pairs["train"] + part.pairs["test"]:
                part.labels(y, len(self.classes))

    def train(self) -> Images:
        return self._read("train")

    def test(self) -> Images:
        return self._read("test")

    def _classes(self) -> tuple[str, ...]:
        first = self._parts[0]
        names = first.classes
        if names is None:
            highest = max(int(part.array(y).max()) for part in self._parts for _, y in part.pairs["train"])
            images = sum(part.count(x) for part in self._parts for x, _ in part.pairs["train"])
            if highest >= images:
                raise UserError(
                    f"{first.path}: labels up to {highest} for {images} training images; allowed are 0 to K - 1 "
                    "for K classes, whose names can be given as classes"
                )
            names = tuple(str(label) for label in range(highest + 1))
        if len(names) < 3:
            raise UserError(
                f"{first.path}: {len(names)} classes; allowed are 3 or more (similarity is between the classes "
                "that are not the label, and with two there is only one)"
            )
        return names

    def _read(self, which: str) -> Images:
        pairs = [(part, x, y) for part in self._parts for x, y in part.pairs[which]]
        first = self._parts[0]
        size, channels = first.image_shape
        images = np.empty((sum(part.count(x) for part, x, _ in pairs), channels, size, size), np.uint8)
        labels = np.empty(len(images), np.int64)
        start = 0
        for part, x, y in pairs:
            end = start + part.count(x)
            images[start:end] = part.array(x).reshape(-1, size, size, channels).transpose(0, 3, 1, 2)
            labels[start:end] = part.labels(y, len(self.classes))
            start = end
        return Images(torch.from_numpy(images), torch.from_numpy(labels))


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{'pickled objects' if self.dtype.hasobject else self.dtype} of shape {self.shape}"


@dataclass(frozen=True)
class _Part:
    """One file: the headers of its arrays, checked; the arrays are read when they are asked for.

    Attributes:
        pairs: the keys of images and labels of each split.
        image_shape: (size, channels).
        classes: the names that the file has, if it has any.
    """

    path: Path
    headers: dict[str, _Header]
    pairs: dict[str, list[tuple[str, str]]]
    image_shape: tuple[int, int]
    classes: tuple[str, ...] | None

    @classmethod
    def open(cls, path: Path) -> "_Part":
        headers = _headers(path)
        pairs = _pairs(path, headers)
        shapes = {x: _image_shape(path, x, headers[x]) for split in pairs.values() for x, _ in split}
        for split in pairs.values():
            for x, y in split:
                _check_labels(path, x, y, headers)
        (first, shape), *others = shapes.items()
        for x, other in others:
            if other != shape:
                raise UserError(f"{path}: {x} has {_described(other)} images, {first} {_described(shape)}; must agree")
        classes = None
        if "classes" in headers:
            header = headers["classes"]
            if header.dtype.kind != "U" or len(header.shape) != 1:
                raise UserError(f"{path}: classes is {header}; allowed is str of shape (K,)")
            classes = tuple(str(name) for name in _array(path, "classes"))
        return cls(path, headers, pairs, shape, classes)

    def must_agree_with(self, first: "_Part") -> None:
        if self.image_shape != first.image_shape:
            mine, other = _described(self.image_shape), _described(first.image_shape)
            raise UserError(f"{self.path}: {mine} images, {first.path.name} has {other}; parts must agree")
        if self.classes != first.classes:
            raise UserError(f"{self.path}: classes differ from those of {first.path.name}; parts must agree")

    def count(self, x: str) -> int:
        return self.headers[x].shape[0]

    def array(self, key: str) -> NDArray[Any]:
        return _array(self.path, key)

    def labels(self, key: str, classes: int) -> NDArray[np.int64]:
        labels = self.array(key).reshape(-1)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise UserError(
                f"{self.path}: {key} has labels from {low} to {high}; "
                f"allowed are 0 to {classes - 1}, as there are {classes} classes"
            )
        return labels.astype(np.int64)


def _files(path: str) -> list[Path]:
    if not path:
        raise UserError("npz: is followed by a path: npz:PATH, a .npz file or a folder of such parts")
    place = Path(os.path.expanduser(path))  # Path's own raises where there is no such user
    if place.is_dir():
        files = sorted(file for file in place.glob("*.npz") if not file.name.startswith("."))
        if not files:
            raise UserError(f"{place}: no .npz file in this folder; npz:PATH is a .npz file or a folder of such parts")
        return files
    if not place.exists():
        raise UserError(f"{place}: no such file; npz:PATH is a .npz file or a folder of such parts")
    return [place]


def _headers(path: Path) -> dict[str, _Header]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _header(archive, name)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _header(archive: zipfile.ZipFile, name: str) -> _Header:
    with archive.open(name) as file:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = npy.read_array_header_2_0(file)
        else:
            raise ValueError(f"{name} has version {version} of the format")
    return _Header(shape, dtype)


def _array(path: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[key]
    except _UNREADABLE as error:
        raise _unreadable(path, error, key) from error
    return array


def _unreadable(path: Path, error: BaseException, key: str | None = None) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    what = "cannot be read as a .npz file" if key is None else f"{key} cannot be read"
    return UserError(f"{path}: {what} ({reason}); write it again with numpy.savez")


def _pairs(path: Path, headers: dict[str, _Header]) -> dict[str, list[tuple[str, str]]]:
    """The keys of the file's arrays; MedMNIST's validation split may be missing, nothing else may."""
    if not headers.keys() & {"train_x", "train_images"}:
        raise UserError(f"{path}: no training images; found {_found(headers)}; {_KEYS_ALLOWED}")
    pairs = _OURS if "train_x" in headers else _MEDMNIST
    pairs = {
        which: [pair for pair in of if pair[0] != "val_images" or _any(pair, headers)] for which, of in pairs.items()
    }
    missing = [key for split in pairs.values() for pair in split for key in pair if key not in headers]
    if missing:
        raise UserError(f"{path}: no {' and no '.join(missing)}; found {_found(headers)}; {_KEYS_ALLOWED}")
    return pairs


def _any(pair: tuple[str, str], headers: dict[str, _Header]) -> bool:
    return any(key in headers for key in pair)


def _found(headers: dict[str, _Header]) -> str:
    return ", ".join(headers) or "no arrays"


def _image_shape(path: Path, key: str, header: _Header) -> tuple[int, int]:
    """(size, channels) of images that are as they must be."""
    shape = header.shape
    allowed = "allowed is uint8 (N, H, W, C) or (N, H, W) with H = W and C = 1 or 3, and N of at least 1"
    channels = shape[3] if len(shape) == 4 else 1
    if (
        header.dtype != np.uint8
        or len(shape) not in (3, 4)
        or shape[1] != shape[2]
        or 0 in shape
        or channels not in (1, 3)
    ):
        raise UserError(f"{path}: {key} is {header}; {allowed}")
    return shape[1], channels


def _described(image_shape: tuple[int, int]) -> str:
    size, channels = image_shape
    return f"{size}x{size}x{channels}"


def _check_labels(path: Path, x: str, y: str, headers: dict[str, _Header]) -> None:
    header = headers[y]
    count = header.shape[:1]
    if header.dtype.kind not in "iu" or not count or header.shape not in (count, (*count, 1)):
        raise UserError(f"{path}: {y} is {header}; allowed are integers of shape (N,) or (N, 1), one label per image")
    if header.shape[0] != headers[x].shape[0]:
        raise UserError(f"{path}: {x} has {headers[x].shape[0]} images, {y} {header.shape[0]} labels; must be as many")
