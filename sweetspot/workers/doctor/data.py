"""The data sets: what is in their folder, and whether it can be read. Nothing is downloaded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweetspot.data import info, names, open_dataset
from sweetspot.errors import UserError
from sweetspot.workers.doctor.check import Check, import_error
from sweetspot.workers.doctor.folders import unwritable

if TYPE_CHECKING:
    from sweetspot.data.images import DataSet


class _NotThereError(Exception):
    """The data set would have to be downloaded."""


def data(folder: Path, dataset: str | None) -> Iterator[Check]:
    """The folder of the data sets with the built-in ones that are there; and one data set, opened.

    Raises:
        UserError: if there is no such data set.
    """
    broken = next((name for name in ("torch", "torchvision") if import_error(name) is not None), None)
    if broken is not None:
        yield Check("data", "wrong", f"{folder}: nothing in it can be read without {broken}", f"see {broken}")
    else:
        yield from _built_in(folder, dataset)
    if dataset is not None and broken != "torch":
        yield _one(dataset, folder)


def _built_in(folder: Path, dataset: str | None) -> Iterator[Check]:
    """The folder with what is there, and what cannot be read of it but for one data set that has a check of its own."""
    from sweetspot.data.tiny_imagenet import FOLDER

    there, damaged = [], []
    unpacked = ["tiny_imagenet"] if (folder / FOLDER).is_dir() else []
    for name in [*filter(_is_downloaded, names()), *unpacked]:
        try:
            _opened(name, folder)
            there.append(name)
        except _NotThereError:
            continue
        except UserError as error:
            damaged.append((name, Check("data set", "advice", f"{name}: in {folder}, and cannot be read", str(error))))
    yield _folder(folder, there)
    yield from (check for name, check in damaged if name != dataset)


def _folder(folder: Path, there: list[str]) -> Check:
    has = f"has {', '.join(there)}" if there else "has none of the built-in data sets yet"
    if (why := unwritable(folder)) is None:
        return Check("data", "ok", f"{folder} {has}" if folder.is_dir() else f"{folder} will be made by a download")
    if there:  # as where it was downloaded for everybody
        return Check("data", "ok", f"{folder} {has}; others cannot be downloaded ({why})")
    advice = "only digits and data by path can be used: give --data a folder that you may write in, or one with data"
    return Check("data", "advice", f"{folder}: {why}", advice)


def _one(name: str, folder: Path) -> Check:
    try:
        opened = _opened(name, folder)
    except _NotThereError:
        if (why := unwritable(folder)) is not None:
            advice = "give --data a folder that you may write in, or one that has it"
            return Check("data set", "wrong", f"{name}: not in {folder}, and cannot be downloaded: {why}", advice)
        return Check("data set", "ok", f"{name}: not in {folder} yet: the first run downloads it")
    except UserError as error:
        return Check("data set", "wrong", f"{name}: cannot be opened", str(error))
    if _reads_files(opened):
        return Check("data set", "ok", f"{name}: {len(opened.classes)} classes; the first run reads its images")
    train = opened.train()
    kind = {1: "grey", 3: "colour"}.get(train.channels, f"{train.channels} channels")
    size = f"{train.image_size}x{train.image_size} {kind}"
    return Check("data set", "ok", f"{name}: {len(opened.classes)} classes, {len(train):,} training images, {size}")


def _reads_files(opened: "DataSet") -> bool:
    """Whether its images are so many files that they are resized once and kept, which a doctor leaves to others."""
    from sweetspot.data.imagefolder import ImageFolder
    from sweetspot.data.tiny_imagenet import TinyImageNet

    return isinstance(opened, ImageFolder | TinyImageNet)


def _is_downloaded(name: str) -> bool:
    return isinstance(_torchvision_opener(name), partial)


def _torchvision_opener(name: str) -> Any:
    from sweetspot.data import torchvision_sets

    return getattr(torchvision_sets, name, None) if ":" not in name and info(name) is not None else None


def _opened(name: str, folder: Path) -> "DataSet":
    """A data set, if that needs no download.

    Raises:
        _NotThereError: if it does.
        UserError: if it cannot be opened.
    """
    opener = _torchvision_opener(name)
    if not isinstance(opener, partial):
        return open_dataset(name, folder)

    def refuse(self: Any) -> None:
        raise _NotThereError

    family: Any = opener.func
    found: DataSet = type("IfThere", (family,), {"_download": refuse})(*opener.args, folder)
    return found
