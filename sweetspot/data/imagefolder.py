"""Your own images: ``imagefolder:PATH``, a folder with one folder of image files per class."""

import os
import stat
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from sweetspot.data.image_cache import MOST_UNREADABLE, ImageCache, ImageFile
from sweetspot.data.image_files import SUFFIXES, folders_in, images_under
from sweetspot.data.images import DataSet, Images
from sweetspot.data.seeding import seed_of
from sweetspot.errors import UserError

IMAGE_SIZE = 64
"""Pixels, where the study says nothing else."""

TEST_SHARE = 0.2
"""Of a folder that has no test set of its own, how much of each class is taken for one."""

_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_FORM = "imagefolder:PATH is a folder with one folder of images per class, or with train and val or test that have them"
_NAMED = 5

Classes = dict[str, list[Path]]
"""The image files of each class, the classes by name."""


class ImageFolder(DataSet):
    """Image files of any size in folders, one per class; resized once, and kept (:mod:`~sweetspot.data.image_cache`).

    The folder has ``train`` and ``test``, and may have ``val``, which is joined to the training images, because
    Sweetspot draws its own validation split; or it has ``train`` and ``val``, which is the test set then; each with
    one folder per class. Or it has one folder per class itself: then a fifth of each class is the test set, by the
    hashes of the files, so that the same files are the same two sets whatever they are called and wherever they lie,
    and copies of one file are never in both. Copies between folders for training and test are not looked for.

    The classes are the names of their folders, in the order of their characters. Images are in the order of their
    class and of their file's hash. All have one channel if all training images are grey, three otherwise.

    The folders of both sets are listed on opening. Training images are read by :meth:`train`; the first time, the
    beginnings of the test images are looked at, too, so that files that are no images are not found out only when a
    search is over. What test images show is read by :meth:`test` alone.
    """

    def __init__(self, path: str, root: Path, image_size: int | None = None) -> None:
        """
        Args:
            path: of the folder.
            root: of the data sets; where the resized images are kept.
            image_size: height and width in pixels; None: 64.
        """
        self.name = f"imagefolder:{path}"
        if not path:
            raise UserError(f"imagefolder: is followed by a path: {_FORM}")
        place = Path(os.path.expanduser(path))  # Path's own raises where there is no such user
        self._size = image_size or IMAGE_SIZE
        self._cache = ImageCache(self.name, place, root, self._size)
        splits = _splits(place)
        train = _classes(splits.pop("train"))
        self._test_classes: Classes | None = None
        if splits:
            test = splits.pop("test", None) or splits.pop("val")
            self._test_classes = _classes(test)
            _must_agree(train, self._test_classes, test)
        for validation in splits.values():
            more = _classes(validation)
            _must_agree(train, more, validation)
            train = {name: [*files, *more[name]] for name, files in train.items()}
        if len(train) < 3:
            raise UserError(
                f"{place}: {len(train)} classes ({', '.join(train)}); allowed are 3 or more (similarity is between the "
                "classes that are not the label, and with two there is only one)"
            )
        self._train_classes = train
        self._channels: int | None = None  # of the training images, once they have been read
        self.classes = tuple(train)

    def train(self) -> Images:
        files, test = self._files
        hashes = self._train_hashes
        if not self._cache.is_kept(hashes):
            self._cache.check_headers(test)
        images = self._cache.images(files, hashes)
        self._channels = images.channels
        if missing := set(range(len(self.classes))) - set(images.labels.tolist()):
            raise UserError(f"{self.name}: no image of {self.classes[min(missing)]} can be read: mend or delete them")
        return images

    def test(self) -> Images:
        if self._channels is None:
            self._channels = self.train().channels
        files = self._files[1]
        return self._cache.images(files, self._hashes(files, "test"), self._channels)

    def at_least(self) -> tuple[int, int]:
        return int(len(self._train_hashes) * (1 - MOST_UNREADABLE)), self._size**2

    # -- which images are which -------------------------------------------------------------------------------------

    @cached_property
    def _files(self) -> tuple[list[ImageFile], list[ImageFile]]:
        """The files of the training set and of the test set."""
        files = _labelled(self._train_classes)
        if self._test_classes is not None:
            return files, _labelled(self._test_classes)
        test = _taken_for_test(self._all_hashes)
        return [file for file in files if file not in test], [file for file in files if file in test]

    @cached_property
    def _train_hashes(self) -> dict[ImageFile, str]:
        return self._hashes(self._files[0], "train")

    @cached_property
    def _all_hashes(self) -> dict[ImageFile, str]:
        return self._cache.hashes(_labelled(self._train_classes), "all")

    def _hashes(self, files: Sequence[ImageFile], part: str) -> dict[ImageFile, str]:
        if self._test_classes is not None:
            return self._cache.hashes(files, part)
        return {file: self._all_hashes[file] for file in files if file in self._all_hashes}


def _labelled(classes: Classes) -> list[ImageFile]:
    return [ImageFile(path, label) for label, files in enumerate(classes.values()) for path in files]


def _taken_for_test(hashes: dict[ImageFile, str]) -> set[ImageFile]:
    """A fifth of each class, at least one, never all: the files whose hashes have the lowest seeds."""
    classes: dict[int, dict[str, list[ImageFile]]] = {}
    for file, content in hashes.items():
        classes.setdefault(file.label, {}).setdefault(content, []).append(file)  # copies of a file go together
    taken: set[str] = set()
    for files in classes.values():
        count = min(max(1, round(TEST_SHARE * len(files))), len(files) - 1)
        taken.update(sorted(files, key=lambda content: seed_of("test", content))[:count])
    return {file for file, content in hashes.items() if content in taken}  # copies in another class, too


# -- folders ----------------------------------------------------------------------------------------------------------


def _splits(place: Path) -> dict[str, Path]:
    """The folders that have the folders of the classes, by "train", "val" and "test"; at least "train" is there."""
    try:
        found = "" if stat.S_ISDIR(place.stat().st_mode) else "is no folder"
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else error.strerror or "cannot be read"
    except ValueError:  # a zero byte
        found = "no such folder"
    if found:
        raise UserError(f"{place}: {found}; {_FORM}")
    splits: dict[str, Path] = {}
    for folder in folders_in(place):
        split = _SPLITS.get(folder.name.lower())
        if split in splits:
            raise UserError(f"{place}: {splits[split].name} and {folder.name} are both for {split}: keep one of them")
        if split is not None:
            splits[split] = folder
    if "train" in splits and (len(splits) > 1 or len(folders_in(place)) == 1):
        return splits
    if splits and "train" not in splits and len(splits) == len(folders_in(place)):
        raise UserError(f"{place}: {' and '.join(f.name for f in splits.values())}, but no train folder; {_FORM}")
    return {"train": place}  # one of the classes may be called train


def _classes(folder: Path) -> Classes:
    """The classes of a split with their files.

    Raises:
        UserError: if there is none, or one has no image.
    """
    classes: Classes = {}
    for inner in folders_in(folder):
        name = unicodedata.normalize("NFC", inner.name)  # as other file systems write the same name
        if not name.isprintable():
            raise UserError(f"{folder}: the name of the class {inner.name!r} cannot be printed: rename its folder")
        classes[name] = [*classes.get(name, []), *images_under(inner)]
    endings = " ".join(SUFFIXES)
    if not any(classes.values()):
        loose = any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        found = "its images are in no folder of a class" if loose else f"no images ({endings})"
        raise UserError(f"{folder}: {found}; {_FORM}")
    if empty := [name for name, files in classes.items() if not files]:
        raise UserError(f"{folder}: no images in {_listed(empty)} (known are {endings}): fill or delete what is empty")
    return dict(sorted(classes.items()))


def _must_agree(train: Classes, other: Classes, folder: Path) -> None:
    differences = [
        f"{what} {_listed(names)}"
        for what, names in (
            ("lacks", [name for name in train if name not in other]),
            ("has", [name for name in other if name not in train]),
        )
        if names
    ]
    if differences:
        raise UserError(f"{folder} {' and '.join(differences)}, unlike train: all must have the same classes")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
