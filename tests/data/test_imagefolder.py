"""``imagefolder:PATH``: layouts, splits, and what a user may have got wrong."""

import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sweetspot.data import image_cache, open_dataset
from sweetspot.data.images import DataSet, Images, content_hash
from sweetspot.errors import UserError

WriteImages = Callable[..., Path]
CLASSES = {"ant": 4, "bee": 4, "cow": 4}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def photos(write_images: WriteImages) -> Path:
    """12 training and 6 test images of 12x12 in three classes."""
    write_images("photos/train", CLASSES)
    write_images("photos/test", dict.fromkeys(CLASSES, 2))
    return write_images("photos", {})


@pytest.fixture
def open_folder(root: Path) -> Callable[..., DataSet]:
    """Opens a folder with images of their own size, 12 pixels."""
    return lambda folder, image_size=12: open_dataset(f"imagefolder:{folder}", root, image_size)


Open = Callable[..., DataSet]


def pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def as_set(images: Images) -> set[tuple[int, bytes]]:
    return {
        (label, image.numpy().tobytes()) for label, image in zip(images.labels.tolist(), images.images, strict=True)
    }


def refusal(path: object, root: Path) -> str:
    """What is said of a folder from which no training images can be had."""
    with pytest.raises(UserError) as error:
        open_dataset(f"imagefolder:{path}", root, 12).train()
    return str(error.value)


# -- what is there ----------------------------------------------------------------------------------------------------


def test_the_folders_of_the_classes_name_the_labels(photos: Path, open_folder: Open) -> None:
    dataset = open_folder(photos)
    train, test = dataset.train(), dataset.test()
    assert dataset.name == f"imagefolder:{photos}"
    assert dataset.classes == ("ant", "bee", "cow")
    assert train.images.shape == (12, 3, 12, 12)
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for split, images in (("train", train), ("test", test)):
        expected = {
            (label, pixels(path).numpy().tobytes())
            for label, name in enumerate(CLASSES)
            for path in (photos / split / name).iterdir()
        }
        assert as_set(images) == expected


def test_images_are_brought_to_the_size_that_is_asked_for(photos: Path, root: Path) -> None:
    assert open_dataset(f"imagefolder:{photos}", root, 8).train().image_size == 8
    assert open_dataset(f"imagefolder:{photos}", root).train().image_size == 64


def test_files_may_have_any_size_and_format(write_images: WriteImages, open_folder: Open) -> None:
    folder = write_images("photos/train", CLASSES, ending="jpg", size=40)
    write_images("photos/train", {"bee": 2}, ending="tiff", size=3)
    write_images("photos/val", CLASSES, ending="JPEG", size=20)
    assert open_folder(folder.parent).train().images.shape == (14, 3, 12, 12)


def test_grey_images_have_one_channel_and_one_colour_image_makes_it_three(
    write_images: WriteImages, open_folder: Open
) -> None:
    grey = write_images("photos/train", CLASSES, grey=True).parent
    write_images("photos/test", CLASSES)
    dataset = open_folder(grey)
    train, test = dataset.train(), dataset.test()
    assert train.images.shape == (12, 1, 12, 12)
    assert test.images.shape == (12, 1, 12, 12), "what the training images are, the test images become"
    assert open_folder(grey).test().channels == 1, "whichever is asked for first"
    write_images("photos/train", {"bee": 1})
    mixed = open_folder(grey)
    assert mixed.train().channels == mixed.test().channels == 3
    ants = mixed.train().images[:4]
    assert torch.equal(ants[:, 0], ants[:, 1])


def test_hidden_files_other_files_and_empty_extras_are_left_alone(photos: Path, open_folder: Open) -> None:
    before = content_hash(open_folder(photos).train(), CLASSES.keys())  # type: ignore[arg-type]
    for name in (".DS_Store", "train/.hidden/a.png", "train/ant/._0.png", "train/ant/notes.txt", "train/labels.csv",
                 "__MACOSX/ant/0.png", "train/__MACOSX/0.png"):  # fmt: skip
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text("not an image")
    dataset = open_folder(photos)
    assert content_hash(dataset.train(), dataset.classes) == before


def test_links_to_files_and_folders_are_followed(photos: Path, tmp_path: Path, open_folder: Open) -> None:
    expected = as_set(open_folder(photos).train())
    linked = tmp_path / "linked"
    (linked / "train" / "bee").mkdir(parents=True)
    for name in ("ant", "cow"):
        (linked / "train" / name).symlink_to(photos / "train" / name, target_is_directory=True)
    for file in (photos / "train" / "bee").iterdir():
        (linked / "train" / "bee" / file.name).symlink_to(file)
    (linked / "test").symlink_to(photos / "test", target_is_directory=True)
    assert as_set(open_folder(linked).train()) == expected


def test_how_many_there_are_at_least_is_known_before_any_is_read(photos: Path, root: Path) -> None:
    dataset = open_dataset(f"imagefolder:{photos}", root, 100_000)
    assert dataset.at_least() == (11, 100_000**2), "a hundredth may be unreadable"


# -- the same images are the same data --------------------------------------------------------------------------------


def test_neither_path_nor_file_names_nor_times_make_other_data(photos: Path, tmp_path: Path, open_folder: Open) -> None:
    mine = open_folder(photos)
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(photos, moved, copy_function=shutil.copyfile)
    for i, file in enumerate(sorted(moved.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed-{i}.PNG"))
    theirs = open_folder(moved)
    assert content_hash(mine.train(), mine.classes) == content_hash(theirs.train(), theirs.classes)
    assert content_hash(mine.test(), mine.classes) == content_hash(theirs.test(), theirs.classes)


def test_the_two_ways_to_write_a_name_with_an_accent_are_one_class(
    write_images: WriteImages, open_folder: Open
) -> None:
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    write_images("photos/train", {names[1]: 2, "b": 2, "d": 2})
    folder = write_images("photos/test", {names[0]: 2, "b": 2, "d": 2}).parent
    assert open_folder(folder).classes == ("b", names[0], "d")


# -- the splits -------------------------------------------------------------------------------------------------------


def test_where_there_is_no_test_folder_val_is_the_test_set(photos: Path, open_folder: Open) -> None:
    test = as_set(open_folder(photos).test())
    (photos / "test").rename(photos / "val")
    dataset = open_folder(photos)
    assert as_set(dataset.test()) == test
    assert len(dataset.train()) == 12


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_beside_a_test_folder_val_is_joined_to_the_training_images(
    name: str, photos: Path, write_images: WriteImages, open_folder: Open
) -> None:
    before = open_folder(photos)
    write_images(f"photos/{name}", {"ant": 1, "bee": 1, "cow": 1})
    dataset = open_folder(photos)
    assert len(dataset.train()) == 15
    assert as_set(dataset.train()) > as_set(before.train())
    assert as_set(dataset.test()) == as_set(before.test())


ONE = {"ant": 10, "bee": 20, "cow": 7}


@pytest.mark.parametrize("name", ["photos", "photos/train"])
def test_one_folder_is_split_with_a_fifth_of_each_class_for_the_test_set(
    name: str, write_images: WriteImages, tmp_path: Path, open_folder: Open
) -> None:
    write_images(name, ONE)
    dataset = open_folder(tmp_path / "photos")
    train, test = dataset.train(), dataset.test()
    assert train.labels.bincount().tolist() == [8, 16, 6]
    assert test.labels.bincount().tolist() == [2, 4, 1]
    assert len(as_set(train) | as_set(test)) == 37


def test_which_images_are_the_test_set_depends_on_the_images_alone(
    write_images: WriteImages, tmp_path: Path, open_folder: Open
) -> None:
    folder = write_images("photos", ONE)
    test = as_set(open_folder(folder).test())
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    for i, file in enumerate(sorted(moved.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed-{i}.png"))
    assert as_set(open_folder(moved).test()) == test


def test_copies_of_an_image_are_never_on_both_sides(write_images: WriteImages, open_folder: Open) -> None:
    folder = write_images("photos", ONE)
    for file in list(folder.rglob("*.png")):
        shutil.copy(file, file.with_name(f"copy-of-{file.name}"))
    dataset = open_folder(folder)
    train, test = dataset.train(), dataset.test()
    assert (len(train), len(test)) == (60, 14)
    assert not as_set(train) & as_set(test)


def test_nor_are_copies_in_another_class(write_images: WriteImages, open_folder: Open) -> None:
    folder = write_images("photos", {"bus": 10, "car": 10, "tram": 10})
    for i, file in enumerate(sorted((folder / "bus").glob("*.png"))):
        shutil.copy(file, folder / "car" / f"a-bus-{i}.png")
    dataset = open_folder(folder)
    train, test = ({image.numpy().tobytes() for image in part.images} for part in (dataset.train(), dataset.test()))
    assert test
    assert not train & test


def test_a_class_may_be_called_train(write_images: WriteImages, open_folder: Open) -> None:
    dataset = open_folder(write_images("photos", {"bus": 5, "car": 5, "train": 5}))
    assert dataset.classes == ("bus", "car", "train")
    assert (len(dataset.train()), len(dataset.test())) == (12, 3)


def test_test_images_are_not_read_by_training(photos: Path, open_folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = image_cache.read_bytes
    monkeypatch.setattr(image_cache, "read_bytes", lambda path: read.append(path) or real(path))  # type: ignore[func-returns-value]
    dataset = open_folder(photos)
    dataset.train()
    assert {path.parent.parent.name for path in read} == {"train"}
    read.clear()
    dataset.test()
    assert {path.parent.parent.name for path in read} == {"test"}


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "imagefolder: is followed by a path: imagefolder:PATH is a folder with one folder of images per class"),
        ("nowhere", "nowhere: no such folder; imagefolder:PATH is"),
        ("~nobody-of-this-name/x", "no such folder"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "no such folder"),
    ],
)
def test_a_path_that_names_nothing(path: str, words: str, root: Path) -> None:
    line = refusal(path, root)
    assert words in line
    assert line.isprintable()


def test_a_file_is_no_folder(tmp_path: Path, root: Path) -> None:
    (tmp_path / "photos.zip").touch()
    assert "photos.zip: is no folder" in refusal(tmp_path / "photos.zip", root)


def _spoiled(photos: Path) -> Iterator[tuple[str, Callable[[], object], str]]:
    train, test = photos / "train", photos / "test"
    yield "no test class", lambda: shutil.rmtree(test / "ant"), "test lacks ant, unlike train"
    yield (
        "another test class",
        lambda: (test / "ant").rename(test / "<b>dodo"),
        "test lacks ant and has <b>dodo, unlike",
    )
    yield (
        "empty class",
        lambda: [f.unlink() for f in (train / "bee").iterdir()],
        "train: no images in bee (known are .jpg",
    )
    yield "empty test class", lambda: [f.unlink() for f in (test / "bee").iterdir()], "test: no images in bee (known"
    yield "new empty class", (train / "dodo").mkdir, "train: no images in dodo"
    yield "no images", lambda: [f.unlink() for f in train.rglob("*.png")], "train: no images (.jpg"
    yield (
        "no classes",
        lambda: shutil.rmtree(train / "ant") or shutil.rmtree(train / "bee") or shutil.rmtree(train / "cow"),
        "train: no images (.jpg",
    )
    yield "nothing", lambda: shutil.rmtree(train) or shutil.rmtree(test), "photos: no images (.jpg"
    yield "two of them", lambda: shutil.copytree(test, photos / "Testing"), "Testing and test are both for test"
    yield "no train", lambda: train.rename(photos / "val"), "test and val, but no train folder"
    yield "escape", lambda: (train / "ant").rename(train / "a\x1b[31m"), r"the name of the class 'a\x1b[31m' cannot be"


@pytest.mark.parametrize("case", [name for name, _, _ in _spoiled(Path())])
def test_a_folder_that_is_not_as_it_must_be(case: str, photos: Path, root: Path) -> None:
    spoil, words = next((spoil, words) for name, spoil, words in _spoiled(photos) if name == case)
    spoil()
    line = refusal(photos, root)
    assert words in line
    assert line.isprintable()


def test_images_that_lie_in_no_folder_of_a_class(write_images: WriteImages, root: Path) -> None:
    assert "ant: its images are in no folder of a class" in refusal(write_images("photos", CLASSES) / "ant", root)


def test_two_classes_are_too_few(write_images: WriteImages, root: Path) -> None:
    folder = write_images("photos", {"cat": 5, "dog": 5})
    assert "photos: 2 classes (cat, dog); allowed are 3 or more" in refusal(folder, root)


def test_many_classes_that_differ_are_not_all_named(write_images: WriteImages, root: Path) -> None:
    write_images("photos/train", {f"class {i}": 1 for i in range(20)})
    folder = write_images("photos/test", {"class 0": 1, "class 1": 1, "class 2": 1}).parent
    assert "test lacks class 10, class 11, class 12, class 13, class 14 and 12 more, unlike train" in refusal(
        folder, root
    )


# -- unreadable files -------------------------------------------------------------------------------------------------


def listing(message: str) -> Path:
    """The file in which a message says that all of them are."""
    (path,) = re.findall(r"\(all are listed in (.*)\)", message)
    return Path(path)


def test_up_to_a_hundredth_of_the_files_may_be_unreadable_and_is_left_out(
    write_images: WriteImages, open_folder: Open, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_images("photos/train", dict.fromkeys(CLASSES, 133), size=2).parent
    write_images("photos/test", CLASSES, size=2)
    (folder / "train/ant/0.png").write_text("no image")
    (folder / "train/bee/link.png").symlink_to("nowhere")
    for _ in range(2):  # the second time they are kept
        assert len(open_folder(folder, 2).train()) == 398
        (message,) = [record.getMessage() for record in caplog.records]
        listed = listing(message)
        assert message == (
            f"imagefolder:{folder}: left out: 2 of 400 image files cannot be read: train/ant/0.png (not an image), "
            f"train/bee/link.png (a link to nothing) (all are listed in {listed})"
        )
        assert listed.read_text() == (
            f"{folder}/train/ant/0.png: not an image\n{folder}/train/bee/link.png: a link to nothing\n"
        )
        caplog.clear()


def test_more_unreadable_files_are_refused_with_the_first_of_them(photos: Path, root: Path) -> None:
    for name in ("0", "1", "2", "3"):
        (photos / "train" / "bee" / f"{name}.png").write_text("no image")
    for _ in range(2):
        message = refusal(photos, root)
        listed = listing(message)
        assert message == (
            f"imagefolder:{photos}: 4 of 12 image files cannot be read: train/bee/0.png (not an image), "
            f"train/bee/1.png (not an image), train/bee/2.png (not an image), and 1 more (all are listed in {listed}); "
            "at most 1% may be: mend or delete them"
        )
        bad = photos / "train" / "bee"
        assert listed.read_text().splitlines() == [f"{bad}/{name}.png: not an image" for name in range(4)]
        assert listed.parent == root / "image-cache"


def test_where_no_list_can_be_written_the_first_are_named(photos: Path, root: Path) -> None:
    root.write_text("not a folder")
    (photos / "train" / "bee" / "0.png").write_text("no image")
    assert "1 of 12 image files cannot be read: train/bee/0.png (not an image); at most" in refusal(photos, root)


def test_test_files_that_are_no_images_are_found_before_the_search(photos: Path, root: Path) -> None:
    (photos / "test" / "cow" / "0.png").write_text("no image")
    assert "1 of 6 image files cannot be read: test/cow/0.png (not an image)" in refusal(photos, root)


def test_a_class_without_a_readable_image_is_named(write_images: WriteImages, root: Path) -> None:
    write_images("photos/train", {"ant": 150, "bee": 150, "cow": 1}, size=2)
    folder = write_images("photos/test", CLASSES, size=2).parent
    (folder / "train/cow/0.png").write_text("no image")
    assert "no image of cow can be read" in refusal(folder, root)
