"""One image file: what it becomes, and when it is none."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sweetspot.data.image_files import UnreadableError, check_header, images_under, read_bytes, square
from sweetspot.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quarters(size: int, left: Any = RED, right: Any = GREEN, bottom: Any = BLUE, mode: str = "RGB") -> Image.Image:
    """An image whose upper half is ``left`` and ``right``, its lower half ``bottom``."""
    image = Image.new(mode, (size, size), bottom)
    image.paste(left, (0, 0, size // 2, size // 2))
    image.paste(right, (size // 2, 0, size, size // 2))
    return image


def corners(pixels: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Upper left, upper right, lower left."""
    return [tuple(pixels[at].tolist()) for at in [(0, 0), (0, -1), (-1, 0)]]


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_an_image_of_the_right_size_stays_as_it_is(kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    assert np.array_equal(square(encoded(Image.fromarray(values), kind), 12), values)
    assert np.array_equal(square(encoded(Image.fromarray(values[..., 0]), kind), 12), values[..., 0])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_are_read(kind: str) -> None:
    found = square(encoded(quarters(64), kind), 16)
    assert np.abs(np.array(corners(found)) - [RED, GREEN, BLUE]).max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"])
def test_what_shows_only_grey_is_grey_whatever_its_mode(mode: str) -> None:
    values = np.array([[0, 255], [255, 0]], np.uint8).repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(values)
    wide = Image.fromarray(values.astype(np.uint16) * 257)  # 16 bits
    image = {"I;16": lambda: wide, "I": lambda: wide.convert("I")}.get(mode, lambda: image.convert(mode))()
    found = square(encoded(image, "TIFF" if mode == "I" else "PNG"), 16)
    assert np.array_equal(found, values)


@pytest.mark.parametrize(
    ("mode", "kind"), [("P", "GIF"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "TIFF"), ("LAB", "TIFF")]
)
def test_colours_stay_colours_whatever_the_mode(mode: str, kind: str) -> None:
    image = quarters(16)
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (16, 16), value) for value in (128, 250, 250)])
        assert square(encoded(image, kind), 16).shape == (16, 16, 3)
        return
    assert corners(square(encoded(image.convert(mode), kind), 16)) == [RED, GREEN, BLUE]


def test_what_is_transparent_is_laid_on_white() -> None:
    image = quarters(16, (255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 255, 255), "RGBA")
    assert corners(square(encoded(image), 16)) == [RED, (255, 255, 255), BLUE]
    palette = quarters(16).quantize(4)
    hidden = palette.getpixel((0, 0))
    assert corners(square(encoded(palette, transparency=hidden), 16))[0] == (255, 255, 255)


def test_of_an_animation_the_first_picture_is_taken() -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    content = encoded(first, "GIF", save_all=True, append_images=[second])
    assert corners(square(content, 8)) == [RED] * 3


def test_a_colour_image_among_grey_ones_gives_its_luminance() -> None:
    found = square(encoded(quarters(16)), 16, as_grey=True)
    assert [int(found[at]) for at in [(0, 0), (0, -1), (-1, 0)]] == [76, 150, 29]


# -- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(90, 30), (30, 90)])
def test_the_middle_is_taken_as_large_as_the_shorter_side(shape: tuple[int, int]) -> None:
    height, width = shape
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, ((width - 30) // 2, (height - 30) // 2, (width + 30) // 2, (height + 30) // 2))
    assert corners(square(encoded(image), 10)[1:-1, 1:-1]) == [GREEN] * 3


def test_resizing_averages_where_pixels_are_many() -> None:
    chequered = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = square(encoded(Image.fromarray(chequered)), 8)
    assert np.abs(found.astype(int) - 127).max() <= 2


def test_a_small_image_is_enlarged() -> None:
    assert corners(square(encoded(quarters(4)), 32)) == [RED, GREEN, BLUE]


def test_a_large_jpeg_that_is_read_in_part_is_what_it_is_in_full() -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    large = Image.fromarray(values).resize((640, 480), Image.Resampling.BICUBIC)
    quick = square(encoded(large, "JPEG", quality=95), 32).astype(int)
    full = square(encoded(large), 32).astype(int)
    assert np.abs(quick - full).max() <= 8


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE]),
        (2, [GREEN, RED, BLUE]),
        (3, [BLUE, BLUE, GREEN]),
        (4, [BLUE, BLUE, RED]),
        (5, [RED, BLUE, GREEN]),
        (6, [BLUE, RED, BLUE]),
        (7, [BLUE, GREEN, BLUE]),
        (8, [GREEN, BLUE, RED]),
        (99, [RED, GREEN, BLUE]),
    ],
)
def test_an_image_is_turned_as_its_camera_has_noted(orientation: int, expected: list[tuple[int, ...]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(square(encoded(quarters(16), exif=exif), 16)) == expected


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_make_an_image_unreadable() -> None:
    content = encoded(quarters(16), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert corners(square(content, 16)) == [RED, GREEN, BLUE]


# -- what is no image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not an image"),
        (b"<html>404</html>", "not an image"),
        (encoded(quarters(64), "JPEG")[:300], "Truncated File Read"),
        (encoded(quarters(64))[:60], "."),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "more than 16 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
    ],
    ids=["empty", "text", "cut off jpeg", "cut off png", "floats", "32 bits", "a program"],
)
def test_what_is_no_image_says_why(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        square(content, 8)


def test_a_header_tells_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(encoded(quarters(64))[:60])
    check_header(tmp_path / "cut.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "nothing.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    for name, why in (("text.png", "not an image"), ("nothing.png", "a link to nothing"), ("pipe.png", "not a file")):
        with pytest.raises(UnreadableError, match=why):
            check_header(tmp_path / name)
    for name, why in (("nothing.png", "a link to nothing"), ("pipe.png", "not a file"), ("gone.png", "not a file")):
        with pytest.raises(UnreadableError, match=why):
            read_bytes(tmp_path / name)


# -- finding ----------------------------------------------------------------------------------------------------------


def test_image_files_are_found_by_their_endings_in_all_folders(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "inner/deep/c.PNG", ".hidden.png", ".folder/d.png", "e.txt", "Thumbs.db", "png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "f.png").symlink_to("a.jpg")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "inner" / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.png")
    found = sorted(str(path.relative_to(tmp_path)) for path in images_under(tmp_path))
    assert found == ["a.jpg", "b.JPEG", "circle.png", "f.png", "inner/deep/c.PNG"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = os.scandir

    def forbidden(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", forbidden)  # root, who runs tests in containers, may list everything
    with pytest.raises(UserError, match=r"closed: cannot be listed \(Permission denied\)"):
        images_under(tmp_path)
