"""Images resized once: what image files become is kept on the disk, under the hash of their content.

Three kinds of files lie in the folder ``image-cache``, and any may be deleted at any time:

- ``<key>.npz`` holds the images and labels that a list of files becomes. Its key is the hash of their bytes and labels,
  the size and the format version: a changed file is another key, wherever the files lie and whatever they are called.
- ``index-<place>.json`` holds, for the files of a place, the hash of each with its size and times, so that only a file
  that has changed since is read again.
- ``unreadable-<hash>.txt`` lists files that are no images, a line for each with its reason.

All are written beside their place and moved into it when whole. The zip format has a checksum of every array: what is
damaged is told, and made again.
"""

import hashlib
import json
import logging
import os
import secrets
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sweetspot.config import canonical_json
from sweetspot.data.image_files import UnreadableError, check_header, read_bytes, square
from sweetspot.data.images import Images
from sweetspot.errors import UserError, one_line

FORMAT = 2
"""Rises with every change of what a file becomes or of how that is kept: what was made before is never mixed in."""

FOLDER = "image-cache"
MOST_UNREADABLE = 0.01
"""The share of the files that may be unreadable, and are left out."""

_NAMED = 3
_BLOCK = 1024
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """An image file and its label."""

    path: Path
    label: int


@dataclass(frozen=True)
class _Made:
    """What a list of files has become.

    Attributes:
        images: uint8 (N, C, size, size), by label and then by the hash of the file.
        labels: int64 (N,).
        unreadable: why, by the hash of each file that is no image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    unreadable: dict[str, str]


class ImageCache:
    """The images of a data set's files, each made once.

    Several processes may use the same folder at once: one makes the images, the others wait for it. Where the folder
    cannot be written a warning says so, and the images are made every time.
    """

    def __init__(self, name: str, base: Path, root: Path, size: int) -> None:
        """
        Args:
            name: of the data set, for messages.
            base: the folder under which the files lie.
            root: of the data sets; the cache is a folder in it.
            size: of the images, in pixels.
        """
        self._name = name
        self._base = base.absolute()
        self._folder = root / FOLDER
        self._size = size

    def hashes(self, files: Sequence[ImageFile], part: str) -> dict[ImageFile, str]:
        """SHA-256 (hex) of the files' content; those that cannot be read are not in it.

        Args:
            part: what the files are of the data set: each part has an index of its own.
        """
        index = self._folder / f"index-{_sha256(canonical_json([str(self._base), part]))[:32]}.json"
        known = _read_index(index)
        stamps = {file: _stamp(file.path) for file in files}
        names = {file: self._relative(file) for file in files}
        found = {file: known[names[file]][1] for file in files if known.get(names[file], ((), ""))[0] == stamps[file]}
        new = [file for file in files if file not in found]
        read = self._each(new, "reading", lambda file: _sha256(read_bytes(file.path)))
        found |= {file: content for file, content in read if isinstance(content, str)}
        if new or len(known) != len(found):
            entries = {names[file]: [*stamps[file], content] for file, content in found.items()}
            listing = json.dumps({"format": FORMAT, "files": entries}).encode()
            text = f"{_sha256(listing)}\n".encode() + listing
            self._write(index, lambda out: out.write(text), quiet=True)
        return found

    def is_kept(self, hashes: dict[ImageFile, str], channels: int | None = None) -> bool:
        """Whether the images of these files are made."""
        return self._place(hashes, channels).is_file()

    def check_headers(self, files: Sequence[ImageFile]) -> None:
        """See that the files begin as images do, without reading what they show.

        Raises:
            UserError: if more of them do not than may be left out.
        """
        seen = self._each(files, "looking at", lambda file: check_header(file.path))
        self._refuse({file: what for file, what in seen if isinstance(what, UnreadableError)}, len(files))

    def images(self, files: Sequence[ImageFile], hashes: dict[ImageFile, str], channels: int | None = None) -> Images:
        """The images of the files, by label and then by the hash of the file; of unreadable ones it warns.

        Args:
            hashes: of the files, as :meth:`hashes` gives them.
            channels: 1 or 3; None: 1 if all of them are grey, 3 otherwise.

        Raises:
            UserError: if more than a hundredth of them is unreadable.
        """
        place = self._place(hashes, channels)
        made = self._read(place, hashes)
        if made is None:
            with self._alone(place):
                # Made meanwhile by the process that was waited for?
                made = self._read(place, hashes, quiet=True)
                if made is None:
                    made = self._make(files, hashes, channels)
                    self._keep(place, made)
        unreadable = {file: self._why(file) for file in files if file not in hashes}
        lost = made.unreadable
        unreadable |= {file: UnreadableError(lost[of]) for file, of in hashes.items() if of in lost}
        self._refuse(unreadable, len(files))
        if unreadable:
            _log.warning(one_line(f"{self._name}: left out: {self._said(unreadable, len(files))}"))
        return Images(torch.from_numpy(made.images), torch.from_numpy(made.labels))

    # -- making -----------------------------------------------------------------------------------------------------

    def _make(self, files: Sequence[ImageFile], hashes: dict[ImageFile, str], channels: int | None) -> _Made:
        ordered = sorted(hashes, key=lambda file: (file.label, hashes[file]))
        size = self._size
        images = np.empty((len(ordered), 3, size, size), np.uint8)
        readable = np.ones(len(ordered), bool)
        unreadable: dict[ImageFile, UnreadableError] = {}
        all_grey = True

        def of(file: ImageFile) -> NDArray[np.uint8]:
            content = read_bytes(file.path)
            if _sha256(content) != hashes[file]:
                raise UserError(f"{file.path} was changed while it was read: run it again when the files stay")
            return square(content, size, as_grey=channels == 1)

        for i, (file, what) in enumerate(self._each(ordered, "resizing", of)):
            if isinstance(what, UnreadableError):
                unreadable[file] = what
                readable[i] = False
                continue
            all_grey &= what.ndim == 2
            images[i] = what if what.ndim == 2 else what.transpose(2, 0, 1)
        self._refuse(unreadable, len(files))
        if channels == 1 or (channels is None and all_grey):
            images = images[:, :1]
        labels = np.array([file.label for file in ordered], np.int64)
        lost = {hashes[file]: str(why) for file, why in unreadable.items()}
        if not readable.all():
            images, labels = images[readable], labels[readable]
        return _Made(np.ascontiguousarray(images), labels, lost)

    def _why(self, file: ImageFile) -> UnreadableError:
        try:
            read_bytes(file.path)
        except UnreadableError as why:
            return why
        return UnreadableError("could not be read at first")

    def _refuse(self, unreadable: Mapping[ImageFile, UnreadableError], total: int) -> None:
        if len(unreadable) > MOST_UNREADABLE * total:
            raise UserError(
                f"{self._name}: {self._said(unreadable, total)}; at most {MOST_UNREADABLE:.0%} may be: "
                "mend or delete them"
            )

    def _said(self, unreadable: Mapping[ImageFile, UnreadableError], total: int) -> str:
        """How many are unreadable, the first of them by name, and where all are listed."""
        every = sorted(unreadable.items(), key=lambda pair: pair[0].path)
        named = ", ".join(f"{self._relative(file)} ({why})" for file, why in every[:_NAMED])
        more = f", and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
        listing = "".join(one_line(f"{file.path.absolute()}: {why}") + "\n" for file, why in every).encode()
        place = self._folder / f"unreadable-{_sha256(listing)[:32]}.txt"
        self._write(place, lambda out: out.write(listing), quiet=True)
        listed = f" (all are listed in {place})" if place.is_file() else ""
        return f"{len(every):,} of {total:,} image files cannot be read: {named}{more}{listed}"

    def _each(
        self, files: Sequence[ImageFile], doing: str, work: Callable[[ImageFile], _T]
    ) -> Iterator[tuple[ImageFile, "_T | UnreadableError"]]:
        """The files in their order, with what ``work`` gives of each, or why it is unreadable; several at a time."""

        def tried(file: ImageFile) -> "_T | UnreadableError":
            try:
                return work(file)
            except UnreadableError as why:
                return why

        pool = ThreadPoolExecutor(_processors())
        try:
            with _progress(f"{doing} {len(files):,} image files of {self._base.name}", len(files)) as advance:
                for start in range(0, len(files), _BLOCK):
                    block = files[start : start + _BLOCK]
                    yield from zip(block, pool.map(tried, block), strict=True)
                    advance(len(block))
        finally:
            pool.shutdown(cancel_futures=True)

    def _relative(self, file: ImageFile) -> str:
        return str(file.path.absolute()).removeprefix(str(self._base)).lstrip(os.sep)

    # -- keeping ----------------------------------------------------------------------------------------------------

    def _place(self, hashes: dict[ImageFile, str], channels: int | None) -> Path:
        content = sorted((file.label, content) for file, content in hashes.items())
        head = {"format": FORMAT, "size": self._size, "channels": channels, "files": content}
        return self._folder / f"{_sha256(canonical_json(head))}.npz"

    def _read(self, place: Path, hashes: dict[ImageFile, str], *, quiet: bool = False) -> _Made | None:
        """What is kept there; None if there is nothing, or it is damaged."""
        try:
            with np.load(place, allow_pickle=False) as arrays:
                images, labels, lost, why = (arrays[key] for key in ("images", "labels", "unreadable", "why"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except _DAMAGE as error:
            self._say_damaged(place, str(error), quiet=quiet)
            return None
        is_whole = (
            (images.dtype, labels.dtype, lost.dtype.kind, why.dtype.kind) == (np.uint8, np.int64, "U", "U")
            and (labels.ndim, lost.ndim, why.shape) == (1, 1, lost.shape)
            and images.shape in [(len(labels), channels, self._size, self._size) for channels in (1, 3)]
            and len(labels) == sum(content not in lost for content in hashes.values())
        )
        if not is_whole:
            self._say_damaged(place, "not the arrays that it must have", quiet=quiet)
            return None
        return _Made(images, labels, dict(zip(map(str, lost), map(str, why), strict=True)))

    def _say_damaged(self, place: Path, why: str, *, quiet: bool) -> None:
        if not quiet:
            _log.warning(one_line(f"{place} cannot be read ({why}): the images are made again"))

    def _keep(self, place: Path, made: _Made) -> None:
        for left in self._folder.glob(f".{place.name}.*"):  # by a process that was killed: this one is alone
            with suppress(OSError):
                left.unlink()
        lost, why = (np.array(list(part), str) for part in (made.unreadable.keys(), made.unreadable.values()))
        self._write(
            place,
            lambda out: np.savez(out, images=made.images, labels=made.labels, unreadable=lost, why=why),
            quiet=False,
        )

    def _write(self, place: Path, write: Callable[[BinaryIO], object], *, quiet: bool) -> None:
        beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(beside, "xb") as out:
                write(out)
            os.replace(beside, place)
        except OSError as error:
            if not quiet:
                why = error.strerror or type(error).__name__
                _log.warning(
                    one_line(f"{self._folder}: {why}: the resized images are not kept there, and made at every start")
                )
        finally:
            with suppress(OSError):
                beside.unlink()

    @contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        """Wait until no other process makes the same; where the file system knows no locks, both do."""
        lock = place.with_suffix(".lock")
        descriptor = None
        with suppress(ImportError, OSError):
            import fcntl

            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_CREAT | os.O_WRONLY, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if descriptor is not None:  # the file stays: another process may wait for it
                os.close(descriptor)


def _read_index(path: Path) -> dict[str, tuple[tuple[int, int, int], str]]:
    """(stamp, hash) by name; empty where there is no index, or a damaged one."""
    try:
        checksum, _, listing = path.read_bytes().partition(b"\n")
        if checksum.decode() != _sha256(listing):
            return {}
        index: Any = json.loads(listing)
        if index["format"] != FORMAT:
            return {}
        return {str(name): ((int(s), int(m), int(c)), str(h)) for name, (s, m, c, h) in index["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does: its size, and the times of its content and of its entry in ns."""
    try:
        about = path.stat()
    except OSError:
        return (-1, -1, -1)
    return (about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def _sha256(content: bytes | str) -> str:
    return hashlib.sha256(
        content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    ).hexdigest()


def _processors() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; what it gives is told how many are done."""
    if not total or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=total)
        yield lambda done: bar.advance(task, done)
