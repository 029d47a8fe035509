"""Resized images that are kept: made once, made again when a file changes, whole or not there."""

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweetspot.data import image_cache, open_dataset
from sweetspot.data.images import Images
from sweetspot.errors import UserError

WriteImages = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def cache(root: Path) -> Path:
    return root / "image-cache"


@pytest.fixture
def photos(write_images: WriteImages) -> Path:
    classes = {"ant": 4, "bee": 4, "cow": 4}
    write_images("photos/test", classes)
    return write_images("photos/train", classes).parent


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes have been read."""
    found: list[Path] = []
    real = image_cache.read_bytes

    def noted(path: Path) -> bytes:
        found.append(path)
        return real(path)

    monkeypatch.setattr(image_cache, "read_bytes", noted)
    return found


def train(photos: Path, root: Path, image_size: int = 12) -> Images:
    return open_dataset(f"imagefolder:{photos}", root, image_size).train()


def kept(cache: Path, ending: str = "npz") -> list[str]:
    return sorted(path.name for path in cache.glob(f"*.{ending}"))


def test_the_second_time_no_file_is_read(photos: Path, root: Path, cache: Path, read: list[Path]) -> None:
    first = train(photos, root)
    assert len(read) == 24  # for the hash, and for the image
    assert {path.suffix for path in cache.iterdir()} == {".npz", ".json", ".lock"}
    read.clear()
    again = train(photos, root)
    assert read == []
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, StringIO])
def test_a_terminal_sees_how_far_it_is_and_nothing_else_does(
    stream: type[StringIO], photos: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    train(photos, root)
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("resizing 12 image files of photos" in said) == (stream is Terminal)
    if stream is StringIO:
        assert said == ""


def test_each_size_and_each_split_is_kept_for_itself(photos: Path, root: Path, cache: Path, read: list[Path]) -> None:
    train(photos, root)
    read.clear()
    train(photos, root, 8)
    assert len(read) == 12, "the hashes are known"
    assert len(kept(cache)) == 2
    open_dataset(f"imagefolder:{photos}", root, 8).test()
    assert len(kept(cache)) == 3
    assert len(kept(cache, "json")) == 2


def test_a_changed_file_is_noticed_even_if_its_size_and_time_are_the_same(
    photos: Path, root: Path, read: list[Path]
) -> None:
    path = photos / "train" / "ant" / "0.png"
    path.write_bytes(path.read_bytes() + b" ")
    first = train(photos, root)
    about = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    read.clear()
    assert torch.equal(train(photos, root).images[:4].sort(0).values, first.images[:4].sort(0).values)
    assert read.count(path) == 2, "read again, and made again"
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(path)
    assert (train(photos, root).images == 0).flatten(1).all(1).sum() == 1


def test_files_that_come_and_go_are_noticed(photos: Path, root: Path) -> None:
    assert len(train(photos, root)) == 12
    (photos / "train" / "ant" / "0.png").unlink()
    assert len(train(photos, root)) == 11
    (photos / "train" / "ant" / "1.png").rename(photos / "train" / "bee" / "new.png")
    assert train(photos, root).labels.bincount().tolist() == [2, 5, 4]


def test_without_the_index_the_files_are_read_and_what_is_kept_is_found(
    photos: Path, root: Path, cache: Path, read: list[Path]
) -> None:
    train(photos, root)
    for index in cache.glob("*.json"):
        index.unlink()
    read.clear()
    train(photos, root)
    assert len(read) == 12


@pytest.mark.parametrize("damage", ["cut off", "a byte", "empty", "no archive", "other arrays", "objects"])
def test_what_is_damaged_is_made_again(
    damage: str, photos: Path, root: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(photos, root)
    place = next(cache.glob("*.npz"))
    whole = place.read_bytes()
    if damage == "other arrays":
        np.savez(place, images=first.images.numpy()[:3], labels=np.arange(3), unreadable=np.array([], "U64"))
    elif damage == "objects":
        np.savez(place, images=np.array([None]), labels=np.arange(3), unreadable=np.array([], "U64"))
    else:
        flipped = whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]
        place.write_bytes(
            {"cut off": whole[:-100], "a byte": flipped, "empty": b"", "no archive": b"not a zip"}[damage]
        )
    assert torch.equal(train(photos, root).images, first.images)
    assert "the images are made again" in caplog.text
    caplog.clear()
    train(photos, root)
    assert not caplog.records


@pytest.mark.parametrize("damage", ["[]", "{", "hash\n{}", ""])
def test_a_damaged_index_is_made_again(damage: str, photos: Path, root: Path, cache: Path, read: list[Path]) -> None:
    train(photos, root)
    (index,) = cache.glob("*.json")
    whole = index.read_text()
    index.write_text(damage)
    read.clear()
    train(photos, root)
    assert len(read) == 12
    assert index.read_text() == whole


def test_what_an_index_says_wrongly_is_not_believed(photos: Path, root: Path, cache: Path) -> None:
    train(photos, root)
    (index,) = cache.glob("*.json")
    checksum, _, listing = index.read_text().partition("\n")
    assert checksum != listing
    entries = json.loads(listing)
    name = "train/ant/0.png"
    entries["files"][name][-1] = "0" * 64
    index.write_text(f"{checksum}\n{json.dumps(entries)}")
    assert len(train(photos, root)) == 12


def test_a_file_that_changes_while_it_is_read_is_an_error_of_one_line(
    photos: Path, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = image_cache.read_bytes
    seen: set[Path] = set()

    def changing(path: Path) -> bytes:
        if path in seen:
            return real(path) + b"more"
        seen.add(path)
        return real(path)

    monkeypatch.setattr(image_cache, "read_bytes", changing)
    with pytest.raises(UserError, match=r"\.png was changed while it was read: run it again"):
        train(photos, root)
    assert kept(cache) == []


def test_where_nothing_can_be_kept_a_warning_says_so(
    photos: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.write_text("not a folder")
    assert len(train(photos, root)) == 12
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        f"{root / 'image-cache'}: Not a directory: the resized images are not kept there, and made at every start"
    )


def test_what_a_killed_process_has_left_is_cleared_away(photos: Path, root: Path, cache: Path) -> None:
    train(photos, root)
    (place,) = cache.glob("*.npz")
    place.unlink()
    left = place.with_name(f".{place.name}.0123")
    left.write_bytes(b"half")
    other = place.with_name(".another.npz.0123")
    other.write_bytes(b"half")
    train(photos, root)
    assert not left.exists()
    assert other.exists()


def test_of_several_that_start_together_one_makes_the_images_and_all_find_the_same(
    photos: Path, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock belongs to an open file, so that it keeps threads apart as it does processes."""
    made: list[int] = []
    real = image_cache.ImageCache._make
    monkeypatch.setattr(image_cache.ImageCache, "_make", lambda *given: made.append(1) or real(*given))
    together = threading.Barrier(4)

    def start(_: int) -> Images:
        together.wait()
        return train(photos, root)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(start, range(4))
    assert len(made) == 1
    assert all(torch.equal(other.images, first.images) for other in others)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".lock", ".npz"]
