"""MNIST, Fashion-MNIST, CIFAR, SVHN and STL-10 through torchvision's own classes: its formats, checksums and addresses.

What is on the disk is used without the network. What is not is downloaded into a folder of its own and moved into
place file by file when it is whole: torchvision takes any file of the right name for a whole one, so that a download
that was cut off would never be mended.
"""

import os
import pickle
import shutil
import socket
import sys
import tarfile
import textwrap
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sweetspot.data.images import DataSet, Images
from sweetspot.errors import UserError

_STALLED_SECONDS = 60.0
"""A server that sends nothing for so long has failed; torchvision alone would wait for ever."""

_DOWNLOAD_ERRORS = (RuntimeError, OSError, EOFError, HTTPException, tarfile.TarError, zlib.error)
# torchvision unpickles CIFAR's own files, whose checksums it compares first; a damaged one is told by this error.
_DAMAGE = (*_DOWNLOAD_ERRORS, AssertionError, ValueError, TypeError, KeyError, pickle.UnpicklingError)


class TorchvisionDataSet(DataSet):
    """A data set that torchvision reads; opening it downloads it if need be, and reads the training set."""

    def __init__(self, name: str, class_name: str, root: Path) -> None:
        self.name = name
        self._root = root
        self._reader = getattr(_torchvision_datasets(), class_name)
        reader = self._read_if_there()
        if reader is None:
            self._download()
            reader = self._read(train=True)
        self.classes = self._classes_of(reader)
        self._train = self._images(reader)

    def train(self) -> Images:
        return self._train

    def test(self) -> Images:
        return self._images(self._read(train=False))

    # -- what differs between the families --------------------------------------------------------------------------

    @abstractmethod
    def _read_if_there(self) -> Any | None:
        """Torchvision's reader of the training set; None if not all files of both splits are on the disk."""

    @abstractmethod
    def _archives(self) -> list[str]:
        """Names of the files as they are published."""

    @abstractmethod
    def _page(self) -> str:
        """The address under which they are published."""

    @abstractmethod
    def _folder(self, root: Path) -> Path:
        """Where torchvision looks for them."""

    def _open(self, root: Path, *, train: bool, download: bool = False) -> Any:
        """Torchvision's reader of one split."""
        return self._reader(root, train=train, download=download)

    def _fetch(self, work: Path) -> None:
        """Download both splits into an empty folder."""
        self._open(work, train=True, download=True)

    def _leftovers(self) -> list[str]:
        """What is not needed once it is unpacked."""
        return self._archives()

    def _classes_of(self, reader: Any) -> tuple[str, ...]:
        return tuple(reader.classes)

    def _labels_of(self, reader: Any) -> Any:
        return reader.targets

    def _pixels_of(self, reader: Any) -> torch.Tensor:
        """uint8 (N, C, H, W)."""
        pixels = torch.as_tensor(reader.data)
        return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)

    # -- reading ----------------------------------------------------------------------------------------------------

    def _read(self, *, train: bool) -> Any:
        try:
            return self._open(self._root, train=train)
        except _DAMAGE as error:
            raise self._damaged(_one_line(error)) from error

    def _images(self, reader: Any) -> Images:
        labels = torch.as_tensor(np.asarray(self._labels_of(reader)), dtype=torch.int64)
        try:
            images = Images(self._pixels_of(reader).contiguous(), labels)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise self._damaged(f"labels up to {int(labels.max())}, {len(self.classes)} classes")
        return images

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self.name} in {self._folder(self._root)} is damaged ({reason}): "
            "delete its files there, and they are downloaded again"
        )

    # -- downloading ------------------------------------------------------------------------------------------------

    def _download(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".download-", dir=self._root) as work:
                self._download_into(Path(work))
        except _DOWNLOAD_ERRORS as error:
            raise UserError(
                f"{self.name} could not be downloaded ({_one_line(error)}): put {', '.join(self._archives())} of "
                f"{self._page()} under {self._folder(self._root)}, or give the folder that has the data with --data"
            ) from error

    def _download_into(self, work: Path) -> None:
        here, there = self._folder(self._root), self._folder(work)
        there.mkdir(parents=True, exist_ok=True)
        for archive in self._archives():  # put there by hand; torchvision checks them before it uses them
            if (here / archive).is_file():
                shutil.copyfile(here / archive, there / archive)
        with redirect_stdout(sys.stderr), _stalls_are_errors():
            self._fetch(work)
        for file_name in self._leftovers():
            (there / file_name).unlink(missing_ok=True)
        for file in [path for path in work.rglob("*") if path.is_file()]:
            target = self._root / file.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


class MnistFamily(TorchvisionDataSet):
    """One compressed file each for the images and the labels of each split; unpacked, they have no checksum."""

    def _read_if_there(self) -> Any | None:
        raw = self._folder(self._root)
        there = all((raw / Path(archive).stem).is_file() for archive in self._archives())
        return self._read(train=True) if there else None

    def _archives(self) -> list[str]:
        return [name for name, _ in self._reader.resources]

    def _page(self) -> str:
        return str(self._reader.mirrors[0])

    def _folder(self, root: Path) -> Path:
        return Path(root, self._reader.__name__, "raw")


class CifarFamily(TorchvisionDataSet):
    """One archive; torchvision compares what is in it with checksums every time, before anything is unpickled."""

    def _read_if_there(self) -> Any | None:
        try:
            return self._open(self._root, train=True)
        except RuntimeError:
            return None

    def _archives(self) -> list[str]:
        return [self._reader.filename]

    def _page(self) -> str:
        return str(self._reader.url).rpartition("/")[0]

    def _folder(self, root: Path) -> Path:
        return root


class _BySplit(TorchvisionDataSet):
    """What SVHN and STL-10 have in common: torchvision gives their images as (N, C, H, W), and names the split."""

    def _open(self, root: Path, *, train: bool, download: bool = False) -> Any:
        return self._reader(root, split="train" if train else "test", download=download)

    def _labels_of(self, reader: Any) -> Any:
        return reader.labels

    def _pixels_of(self, reader: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(reader.data))

    def _folder(self, root: Path) -> Path:
        return root


class Svhn(_BySplit):
    """A MATLAB file for each split, whose checksum torchvision compares every time; the digits from 0 to 9."""

    def _read_if_there(self) -> Any | None:
        if not all((self._root / name).is_file() for name in self._archives()):
            return None
        try:
            return self._open(self._root, train=True)
        except RuntimeError:
            return None

    def _archives(self) -> list[str]:
        return [self._reader.split_list[split][1] for split in ("train", "test")]

    def _page(self) -> str:
        return str(self._reader.split_list["train"][0]).rpartition("/")[0]

    def _fetch(self, work: Path) -> None:
        for train in (True, False):
            self._open(work, train=train, download=True)

    def _leftovers(self) -> list[str]:
        return []

    def _classes_of(self, reader: Any) -> tuple[str, ...]:
        return tuple("0123456789")


class Stl10(_BySplit):
    """One archive; torchvision compares what is in it with checksums every time, here without the unlabelled images."""

    def _open(self, root: Path, *, train: bool, download: bool = False) -> Any:
        labelled = [entry for entry in self._reader.train_list if not entry[0].startswith("unlabeled")]
        reader = type(self._reader.__name__, (self._reader,), {"train_list": labelled})
        return reader(root, split="train" if train else "test", download=download)

    def _read_if_there(self) -> Any | None:
        if not (self._root / self._reader.base_folder / self._reader.class_names_file).is_file():
            return None
        try:
            return self._open(self._root, train=True)
        except RuntimeError:
            return None

    def _archives(self) -> list[str]:
        return [self._reader.filename]

    def _leftovers(self) -> list[str]:
        base = self._reader.base_folder
        return [
            *self._archives(),
            *(f"{base}/{name}" for name, _ in self._reader.train_list if name.startswith("unlabeled")),
        ]

    def _page(self) -> str:
        return str(self._reader.url).rpartition("/")[0]


mnist = partial(MnistFamily, "mnist", "MNIST")
fashion_mnist = partial(MnistFamily, "fashion_mnist", "FashionMNIST")
cifar10 = partial(CifarFamily, "cifar10", "CIFAR10")
cifar100 = partial(CifarFamily, "cifar100", "CIFAR100")
svhn = partial(Svhn, "svhn", "SVHN")
stl10 = partial(Stl10, "stl10", "STL10")


def _torchvision_datasets() -> Any:
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # all four have been seen of a wrong build
        raise UserError(
            f"torchvision cannot be imported ({_one_line(error)}): the builds of torch ({torch.__version__}) and "
            "torchvision do not match; reinstall both from the same index with `uv sync --reinstall`"
        ) from error
    return torchvision.datasets


@contextmanager
def _stalls_are_errors() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 300)
