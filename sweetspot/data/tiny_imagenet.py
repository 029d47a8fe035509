"""Tiny ImageNet as it is published: ``tiny-imagenet-200``, with training images in folders and a list of the others."""

from pathlib import Path

from sweetspot.data.image_cache import MOST_UNREADABLE, ImageCache, ImageFile
from sweetspot.data.image_files import images_under
from sweetspot.data.images import DataSet, Images
from sweetspot.errors import UserError

FOLDER = "tiny-imagenet-200"
_SIZE = 64
_PAGE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


class TinyImageNet(DataSet):
    """Colour photographs of 64x64 pixels in 200 classes.

    The published validation set is the test set, for the published test set has no labels.
    The classes are in the order of their WordNet numbers, called by the first of their words. Nothing is downloaded.
    The images are read once, and kept (:mod:`~sweetspot.data.image_cache`).
    """

    name = "tiny_imagenet"

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        if not self._folder.is_dir():
            raise UserError(
                f"tiny_imagenet is not downloaded by itself: get {_PAGE} and unpack it in {root}, so that there is "
                f"{self._folder}, or give the folder that has it with --data"
            )
        self._cache = ImageCache(self.name, self._folder, root, _SIZE)
        numbers = sorted(self._lines("wnids.txt"))
        if len(numbers) < 3 or len(set(numbers)) < len(numbers):
            raise self._damaged(f"wnids.txt names {len(set(numbers))} classes in {len(numbers)} lines")
        self._labels = {number: label for label, number in enumerate(numbers)}
        self.classes = self._names(numbers)
        self._train_files = [
            ImageFile(path, label) for number, label in self._labels.items() for path in self._images_of(number)
        ]
        self._test_files = self._listed()

    def train(self) -> Images:
        return self._images(self._train_files, "train")

    def test(self) -> Images:
        return self._images(self._test_files, "test")

    def at_least(self) -> tuple[int, int]:
        return int(len(self._train_files) * (1 - MOST_UNREADABLE)), 3 * _SIZE**2

    def _images(self, files: list[ImageFile], part: str) -> Images:
        return self._cache.images(files, self._cache.hashes(files, part), channels=3)

    def _names(self, numbers: list[str]) -> tuple[str, ...]:
        """The first word of each class, all of its words where another class has the same first one."""
        words = dict(line.partition("\t")[::2] for line in self._lines("words.txt"))
        all_words = [words.get(number) or number for number in numbers]
        first = [word.partition(",")[0] for word in all_words]
        return tuple(every if first.count(one) > 1 else one for one, every in zip(first, all_words, strict=True))

    def _images_of(self, number: str) -> list[Path]:
        folder = self._folder / "train" / number
        found = images_under(folder) if folder.is_dir() else []
        if not found:
            raise self._damaged(f"no images in train/{number}")
        return found

    def _listed(self) -> list[ImageFile]:
        files = []
        for line in self._lines("val/val_annotations.txt"):
            file, _, rest = line.partition("\t")
            number = rest.partition("\t")[0]
            if number not in self._labels:
                raise self._damaged(f"val/val_annotations.txt has the unknown class {number!r}")
            files.append(ImageFile(self._folder / "val" / "images" / Path(file).name, self._labels[number]))
        if not files:
            raise self._damaged("val/val_annotations.txt names no images")
        return files

    def _lines(self, name: str) -> list[str]:
        try:
            text = (self._folder / name).read_text(encoding="utf-8")
        except OSError as error:
            raise self._damaged(f"{name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise self._damaged(f"{name} is no text") from None
        return [line for line in text.splitlines() if line.strip()]

    def _damaged(self, reason: str) -> UserError:
        return UserError(f"tiny_imagenet in {self._folder} is damaged ({reason}): unpack {_PAGE} there again")
