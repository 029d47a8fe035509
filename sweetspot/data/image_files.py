"""Image files: found in folders, and each made a small square."""

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sweetspot.errors import UserError

warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd but readable files, a line each

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
"""What the names of image files end in, in small or capital letters; any other file is left alone."""

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # no format that starts another program to be read
_IGNORED = frozenset({"__MACOSX", "lost+found"})
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the orientation that its camera has noted (EXIF)."""


class UnreadableError(Exception):
    """A file is no image that can be read; the message says why, in a few words."""


# -- finding ----------------------------------------------------------------------------------------------------------


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, and the links to folders, by name; hidden ones are left out.

    Raises:
        UserError: if the folder cannot be listed.
    """
    return [folder / e.name for e in _entries(folder) if e.name not in _IGNORED and _is(e.is_dir)]


def images_under(folder: Path) -> list[Path]:
    """The image files in a folder and in those under it; hidden ones are left out.

    Links are followed, no folder is entered twice. A link to nothing is among them: whoever reads it says so.

    Raises:
        UserError: if a folder cannot be listed.
    """
    found, left = [], [str(folder)]
    seen: set[str] = set()
    while left:
        place = left.pop()
        if (real := os.path.realpath(place)) in seen:
            continue
        seen.add(real)
        for entry in _entries(place):
            if _is(entry.is_dir):
                left.append(entry.path)
            elif entry.name.lower().endswith(SUFFIXES) and (_is(entry.is_file) or entry.is_symlink()):
                found.append(Path(entry.path))
    return found


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}): name a folder that you may read") from None


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a circle of links
        return False


# -- reading ----------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UnreadableError: if it cannot be read.
    """
    _check_is_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from None


def check_header(path: Path) -> None:
    """See whether a file begins as an image does, without reading what it shows.

    Raises:
        UnreadableError: if it does not.
    """
    _check_is_file(path)
    try:
        with Image.open(path, formats=_FORMATS):
            pass
    except Exception as error:
        raise _unreadable(error) from None


def _check_is_file(path: Path) -> None:
    """Of anything else (a pipe) the end might never come."""
    try:
        is_file = path.is_file()
    except OSError as error:
        raise _unreadable(error) from None
    if not is_file:
        raise UnreadableError("a link to nothing" if path.is_symlink() else "not a file")


def square(content: bytes, size: int, *, as_grey: bool = False) -> NDArray[np.uint8]:
    """The middle of an image, as large as its shorter side, resized with antialiasing (bicubic).

    Upright, as EXIF has it; of an animation the first picture; what is transparent is laid on white; of 16 bits the
    upper 8.

    Args:
        content: of an image file.
        size: of the result, in pixels.
        as_grey: give the luminance where the image has colours.

    Returns:
        uint8 (size, size) if it is grey, whatever its format, and (size, size, 3) if it has colours.

    Raises:
        UnreadableError: if it is no image, or a damaged one.
    """
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            orientation = None
            with suppress(Exception):  # damaged EXIF raises anything, and the image may be good
                orientation = image.getexif().get(_ORIENTATION)
            image.draft(None, (2 * size, 2 * size))  # a JPEG may be read at a half, a quarter …, never below this
            plain = _plain(image)
            side = min(plain.size)
            left, top = ((length - side) / 2 for length in plain.size)
            box = (left, top, left + side, top + side)
            small = plain.resize((size, size), Image.Resampling.BICUBIC, box=box)
            if orientation in _UPRIGHT:
                small = small.transpose(_UPRIGHT[orientation])
            pixels = np.asarray(small, np.uint8)
            if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
                return pixels[..., 0]
            return np.asarray(small.convert("L")) if as_grey else pixels
    except UnreadableError:
        raise
    except Exception as error:
        raise _unreadable(error) from None


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableError("more than 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableError("floating-point pixels")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _unreadable(error: Exception) -> UnreadableError:
    """Of whatever a decoder raises for a damaged file, which can be anything."""
    if isinstance(error, UnidentifiedImageError):
        return UnreadableError("not an image")
    return UnreadableError(getattr(error, "strerror", None) or str(error) or type(error).__name__)
