"""Tiny ImageNet: a few files in the layout in which it is published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweetspot.data import info, open_dataset
from sweetspot.errors import UserError

WORDS = {"n01": "goldfish, Carassius auratus", "n02": "crane", "n03": "crane, derrick", "n04": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four classes of three training images and two others; a few of them are grey, as in the real one."""
    folder = tmp_path / "tiny-imagenet-200"
    rng = np.random.default_rng(0)

    def write(path: Path, *, grey: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64) if grey else (64, 64, 3), np.uint8)).save(path)

    annotations = []
    for number in WORDS:
        for i in range(3):
            write(folder / "train" / number / "images" / f"{number}_{i}.JPEG", grey=i == 0)
        (folder / "train" / number / f"{number}_boxes.txt").write_text("…")
        for i in range(2):
            write(folder / "val" / "images" / f"val_{number}{i}.JPEG")
            annotations.append(f"val_{number}{i}.JPEG\t{number}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(sorted(annotations, reverse=True)))
    (folder / "wnids.txt").write_text("\n".join(reversed(WORDS)))
    (folder / "words.txt").write_text("n00\tentity\n" + "".join(f"{n}\t{words}\n" for n, words in WORDS.items()))
    return folder


def test_its_own_layout_is_read(folder: Path) -> None:
    dataset = open_dataset("tiny_imagenet", folder.parent)
    train, test = dataset.train(), dataset.test()
    assert dataset.classes == ("goldfish", "crane", "crane, derrick", "n04")
    assert train.images.shape == (12, 3, 64, 64)
    assert train.labels.tolist() == [label for label in range(4) for _ in range(3)]
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    decoded = torch.from_numpy(np.array(Image.open(folder / "val/images/val_n020.JPEG"))).permute(2, 0, 1)
    assert any(torch.equal(decoded, image) for image in test.images[2:4])


def test_the_second_time_it_is_read_from_what_is_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = open_dataset("tiny_imagenet", folder.parent).train()
    assert len(list((folder.parent / "image-cache").glob("*.npz"))) == 1
    assert torch.equal(open_dataset("tiny_imagenet", folder.parent).train().images, first.images)
    assert not caplog.records


def test_where_it_is_missing_the_error_says_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        open_dataset("tiny_imagenet", tmp_path)
    message = str(error.value)
    assert "tiny-imagenet-200.zip" in message
    assert f"unpack it in {tmp_path}, so that there is {tmp_path / 'tiny-imagenet-200'}" in message
    assert "--data" in message


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "wnids.txt").unlink(), "wnids.txt: No such file"),
        (lambda f: (f / "wnids.txt").write_text("n01\nn02\n"), "wnids.txt names 2 classes in 2 lines"),
        (lambda f: (f / "wnids.txt").write_text("n01\nn01\nn02\nn03"), "wnids.txt names 3 classes in 4 lines"),
        (lambda f: (f / "wnids.txt").write_bytes(b"\xff"), "wnids.txt is no text"),
        (lambda f: (f / "wnids.txt").write_text("n01\nn02\nn05"), "no images in train/n05"),
        (lambda f: (f / "val/val_annotations.txt").write_text("a.JPEG\tn09\n"), "has the unknown class 'n09'"),
        (lambda f: (f / "val/val_annotations.txt").write_text("\n"), "names no images"),
        (lambda f: (f / "words.txt").unlink(), "words.txt: No such file"),
    ],
)
def test_a_damaged_copy_says_what_is_wrong_with_it(folder: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=r"tiny_imagenet in .* is damaged") as error:
        open_dataset("tiny_imagenet", folder.parent)
    assert words in str(error.value)
    assert str(error.value).isprintable()


def test_listed_files_that_are_missing_are_unreadable(folder: Path) -> None:
    (folder / "val/images/val_n010.JPEG").unlink()
    with pytest.raises(UserError, match=r"1 of 8 image files cannot be read: val/images/val_n010\.JPEG \(not a file\)"):
        open_dataset("tiny_imagenet", folder.parent).test()


def test_what_is_said_of_it_before_it_is_opened() -> None:
    about = info("tiny_imagenet")
    assert about is not None
    assert (about.classes, about.channels, about.image_size) == (200, 3, 64)
    assert (about.train_images, about.test_images) == (100_000, 10_000)
