import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweetspot.data import open_dataset
from sweetspot.data.images import content_hash
from sweetspot.errors import UserError
from sweetspot.store.url import data_folder

Arrays = dict[str, Any]
Write = Callable[..., Path]


def refused(path: Path | str, *parts: str) -> None:
    """Opening fails with one line that names the file and has all parts."""
    with pytest.raises(UserError) as caught:
        open_dataset(f"npz:{path}", data_folder())
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


# -- what is read -----------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(arrays: Arrays, write_npz: Write) -> None:
    dataset = open_dataset(f"npz:{write_npz(arrays)}", data_folder())
    train, test = dataset.train(), dataset.test()
    assert dataset.classes == ("ant", "bee", "cow")
    assert torch.equal(train.images.permute(0, 2, 3, 1), torch.from_numpy(arrays["train_x"]))
    assert torch.equal(test.images.permute(0, 2, 3, 1), torch.from_numpy(arrays["test_x"]))
    assert train.labels.tolist() == arrays["train_y"].tolist()
    assert test.labels.tolist() == arrays["test_y"].tolist()
    assert train.images.is_contiguous()


@pytest.mark.parametrize("axis", [None, -1])
def test_grey_images_need_no_axis_of_channels(axis: int | None, arrays: Arrays, write_npz: Write) -> None:
    grey = {key: arrays[key][..., 0] if key.endswith("x") else arrays[key] for key in arrays}
    shaped = {k: v if axis is None or not k.endswith("x") else np.expand_dims(v, axis) for k, v in grey.items()}
    train = open_dataset(f"npz:{write_npz(shaped)}", data_folder()).train()
    assert train.images.shape == (12, 1, 8, 8)
    assert torch.equal(train.images[:, 0], torch.from_numpy(grey["train_x"]))


def test_without_names_the_classes_are_numbered_up_to_the_highest_training_label(
    arrays: Arrays, write_npz: Write
) -> None:
    del arrays["classes"]
    arrays["train_y"] = np.array([0, 4] * 6, np.uint8)
    assert open_dataset(f"npz:{write_npz(arrays)}", data_folder()).classes == ("0", "1", "2", "3", "4")


def test_a_class_may_have_no_training_image(arrays: Arrays, write_npz: Write) -> None:
    arrays["classes"] = np.array(["ant", "bee", "cow", "dodo"])
    assert open_dataset(f"npz:{write_npz(arrays)}", data_folder()).classes[3] == "dodo"


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "<u8"])
def test_labels_may_be_any_integers(dtype: str, arrays: Arrays, write_npz: Write) -> None:
    arrays["train_y"] = arrays["train_y"].astype(dtype)
    assert open_dataset(f"npz:{write_npz(arrays)}", data_folder()).train().labels.tolist() == arrays["train_y"].tolist()


def test_compressed_and_fortran_ordered_files_are_the_same_data(arrays: Arrays, write_npz: Write) -> None:
    plain = open_dataset(f"npz:{write_npz(arrays)}", data_folder())
    compressed = write_npz(arrays).with_name("compressed.npz")
    columns_first: Arrays = {key: np.asfortranarray(value) for key, value in arrays.items()}
    np.savez_compressed(compressed, **columns_first)
    other = open_dataset(f"npz:{compressed}", data_folder())
    assert content_hash(plain.train(), plain.classes) == content_hash(other.train(), other.classes)


def test_a_folder_of_parts_is_one_data_set_in_the_order_of_their_names(
    arrays: Arrays, write_npz: Write, tmp_path: Path
) -> None:
    first = {key: value[:4] if key.endswith(("x", "y")) else value for key, value in arrays.items()}
    second = {key: value[4:] if key.endswith(("x", "y")) else value for key, value in arrays.items()}
    write_npz(second, "parts/part-1.npz")
    write_npz(first, "parts/part-0.npz")
    (tmp_path / "parts" / "notes.txt").write_text("not a part")
    (tmp_path / "parts" / "._part-0.npz").write_text("what a Mac leaves behind")
    joined = open_dataset(f"npz:{tmp_path / 'parts'}", data_folder())
    whole = open_dataset(f"npz:{write_npz(arrays)}", data_folder())
    assert content_hash(joined.train(), joined.classes) == content_hash(whole.train(), whole.classes)
    assert content_hash(joined.test(), joined.classes) == content_hash(whole.test(), whole.classes)


def test_medmnists_files_are_read_and_their_validation_images_are_training_images(
    arrays: Arrays, write_npz: Write
) -> None:
    medmnist = {
        "train_images": arrays["train_x"][:8],
        "train_labels": arrays["train_y"][:8, None].astype(np.uint8),
        "val_images": arrays["train_x"][8:],
        "val_labels": arrays["train_y"][8:, None].astype(np.uint8),
        "test_images": arrays["test_x"],
        "test_labels": arrays["test_y"][:, None].astype(np.uint8),
    }
    del arrays["classes"]
    theirs = open_dataset(f"npz:{write_npz(medmnist, 'pathmnist.npz')}", data_folder())
    ours = open_dataset(f"npz:{write_npz(arrays)}", data_folder())
    assert content_hash(theirs.train(), theirs.classes) == content_hash(ours.train(), ours.classes)
    assert content_hash(theirs.test(), theirs.classes) == content_hash(ours.test(), ours.classes)


def test_training_never_reads_the_images_of_the_test_set(arrays: Arrays, write_npz: Write) -> None:
    """They are overwritten in the file: only reading them can notice."""
    # large enough that they are not in one buffer with their headers
    arrays["test_x"], arrays["test_y"] = np.tile(arrays["test_x"], (200, 1, 1, 1)), np.tile(arrays["test_y"], 200)
    path = write_npz(arrays)
    content, values = path.read_bytes(), arrays["test_x"].tobytes()
    assert content.count(values) == 1
    path.write_bytes(content.replace(values, bytes(len(values))))
    dataset = open_dataset(f"npz:{path}", data_folder())
    assert len(dataset.train()) == 12
    with pytest.raises(UserError, match=r"set\.npz: test_x cannot be read \(Bad CRC-32"):
        dataset.test()


def test_a_path_may_begin_at_home(arrays: Arrays, write_npz: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(write_npz(arrays).parent))
    assert len(open_dataset("npz:~/set.npz", data_folder()).train()) == 12


# -- what is refused: files -------------------------------------------------------------------------------------------


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent.npz", "no such file", "a .npz file or a folder")
    refused(Path("~nobody-of-this-name/set.npz"), "no such file")


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no .npz file in this folder")


def test_a_name_without_a_path_is_refused() -> None:
    with pytest.raises(UserError, match="npz:PATH"):
        open_dataset("npz:", data_folder())


def test_something_else_with_the_right_ending_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "set.npz"
    path.write_text("not an archive")
    refused(path, "cannot be read as a .npz file")
    with path.open("wb") as file:
        np.save(file, arrays["train_x"])
    refused(path, "cannot be read as a .npz file")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(share: float, arrays: Arrays, write_npz: Write) -> None:
    path = write_npz(arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "cannot be read as a .npz file")


def test_an_array_that_is_shorter_than_its_header_says_is_refused(arrays: Arrays, write_npz: Write) -> None:
    path = write_npz({key: value for key, value in arrays.items() if key != "train_x"})
    whole = path.with_name("train_x.npy")
    np.save(whole, arrays["train_x"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_x.npy", whole.read_bytes()[:-100])
    with pytest.raises(UserError, match="train_x cannot be read"):
        open_dataset(f"npz:{path}", data_folder()).train()


def test_a_header_that_is_no_header_is_refused(arrays: Arrays, write_npz: Write) -> None:
    path = write_npz({key: value for key, value in arrays.items() if key != "train_x"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_x.npy", b"pixels")
    refused(path, "cannot be read as a .npz file")


# -- what is refused: arrays ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["train_x", "train_y", "test_x", "test_y"])
def test_a_missing_array_is_named(key: str, arrays: Arrays, write_npz: Write) -> None:
    del arrays[key]
    missing = "no training images" if key == "train_x" else f"no {key}"
    refused(write_npz(arrays), missing, "found", "allowed are train_x, train_y, test_x, test_y")


def test_a_file_of_other_arrays_says_what_was_found(arrays: Arrays, write_npz: Write) -> None:
    refused(write_npz({"x": arrays["train_x"], "y": arrays["train_y"]}), "found x, y")
    refused(write_npz({}), "found no arrays")


def test_half_of_a_validation_split_is_refused(arrays: Arrays, write_npz: Write) -> None:
    medmnist = {
        "train_images": arrays["train_x"],
        "train_labels": arrays["train_y"],
        "val_images": arrays["test_x"],
        "test_images": arrays["test_x"],
        "test_labels": arrays["test_y"],
    }
    refused(write_npz(medmnist), "no val_labels")


BAD_IMAGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "numbers that are not uint8": (lambda x: x.astype(np.float32) / 255, "float32 of shape (12, 8, 8, 3)"),
    "channels first": (lambda x: x.transpose(0, 3, 1, 2), "(12, 3, 8, 8)"),
    "images that are not square": (lambda x: x[:, :6], "(12, 6, 8, 3)"),
    "flat rows": (lambda x: x.reshape(12, -1), "(12, 192)"),
    "volumes": (lambda x: x[:, None], "(12, 1, 8, 8, 3)"),
    "two channels": (lambda x: x[..., :2], "(12, 8, 8, 2)"),
    "no images": (lambda x: x[:0], "(0, 8, 8, 3)"),
    "no pixels": (lambda x: x[:, :0, :0], "(12, 0, 0, 3)"),
    "pickled objects": (lambda x: x.astype(object), "pickled objects of shape (12, 8, 8, 3)"),
    "a single number": (lambda x: x[0, 0, 0, 0], "uint8 of shape ()"),
}


@pytest.mark.parametrize("defect", BAD_IMAGES)
@pytest.mark.parametrize("key", ["train_x", "test_x"])
def test_images_of_another_kind_are_refused(defect: str, key: str, arrays: Arrays, write_npz: Write) -> None:
    spoil, found = BAD_IMAGES[defect]
    arrays["test_x"], arrays["test_y"] = arrays["train_x"], arrays["train_y"]
    arrays[key] = spoil(arrays[key])
    refused(
        write_npz(arrays), f"{key} is {found}" if "of" in found else f"{key} is", found, "allowed is uint8 (N, H, W"
    )


BAD_LABELS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "fractions": (lambda y: y.astype(np.float64), "float64 of shape (12,)"),
    "truth values": (lambda y: y > 0, "bool of shape (12,)"),
    "names": (lambda y: y.astype(str), "of shape (12,)"),
    "several labels per image": (lambda y: np.stack([y, y], 1), "int64 of shape (12, 2)"),
    "pickled objects": (lambda y: y.astype(object), "pickled objects of shape (12,)"),
    "a single number": (lambda y: y[0], "int64 of shape ()"),
}


@pytest.mark.parametrize("defect", BAD_LABELS)
@pytest.mark.parametrize("key", ["train_y", "test_y"])
def test_labels_of_another_kind_are_refused(defect: str, key: str, arrays: Arrays, write_npz: Write) -> None:
    spoil, found = BAD_LABELS[defect]
    arrays["test_x"], arrays["test_y"] = arrays["train_x"], arrays["train_y"]
    arrays[key] = spoil(arrays[key])
    refused(write_npz(arrays), f"{key} is ", found, "allowed are integers of shape (N,) or (N, 1)")


@pytest.mark.parametrize("key", ["train_y", "test_y"])
def test_more_images_than_labels_are_refused(key: str, arrays: Arrays, write_npz: Write) -> None:
    arrays[key] = arrays[key][:-1]
    n = len(arrays[key])
    refused(write_npz(arrays), f"{key[:-1]}x has {n + 1} images, {key} {n} labels")


def test_training_and_test_images_of_different_sizes_are_refused(arrays: Arrays, write_npz: Write) -> None:
    arrays["test_x"] = arrays["test_x"][:, :4, :4]
    refused(write_npz(arrays), "test_x has 4x4x3 images, train_x 8x8x3")


@pytest.mark.parametrize("label", [-1, 3])
def test_a_training_label_outside_the_classes_is_refused_on_opening(
    label: int, arrays: Arrays, write_npz: Write
) -> None:
    arrays["train_y"][5] = label
    refused(write_npz(arrays), f"train_y has labels from {min(label, 0)} to {max(label, 2)}", "allowed are 0 to 2")


@pytest.mark.parametrize("label", [-1, 3])
def test_a_test_label_outside_the_classes_is_refused_on_opening_too(
    label: int, arrays: Arrays, write_npz: Write
) -> None:
    """Not only when a search is over and its confirmation begins."""
    arrays["test_y"][5] = label
    refused(write_npz(arrays), f"test_y has labels from {min(label, 0)} to {max(label, 2)}", "allowed are 0 to 2")


def test_a_negative_label_is_refused_without_names_too(arrays: Arrays, write_npz: Write) -> None:
    del arrays["classes"]
    arrays["train_y"][0] = -7
    refused(write_npz(arrays), "train_y has labels from -7 to 2")


def test_labels_that_are_no_class_numbers_are_refused(arrays: Arrays, write_npz: Write) -> None:
    del arrays["classes"]
    arrays["train_y"][0] = 2**40
    refused(write_npz(arrays), f"labels up to {2**40} for 12 training images")


def test_two_classes_are_too_few(arrays: Arrays, write_npz: Write) -> None:
    arrays["train_y"], arrays["test_y"] = arrays["train_y"] % 2, arrays["test_y"] % 2
    refused(write_npz({**arrays, "classes": np.array(["ant", "bee"])}), "2 classes", "3 or more")
    del arrays["classes"]
    refused(write_npz(arrays), "2 classes", "3 or more")


@pytest.mark.parametrize(
    "classes",
    [np.arange(3), np.array(["ant", "bee", "cow"], object), np.array([b"ant", b"bee", b"cow"]), np.array([["ant"]])],
    ids=["numbers", "objects", "bytes", "a table"],
)
def test_names_that_are_no_list_of_str_are_refused(classes: Any, arrays: Arrays, write_npz: Write) -> None:
    refused(write_npz({**arrays, "classes": classes}), "classes is ", "allowed is str of shape (K,)")


# -- what is refused: parts -------------------------------------------------------------------------------------------


def test_parts_with_other_classes_are_refused(arrays: Arrays, write_npz: Write) -> None:
    write_npz(arrays, "parts/a.npz")
    folder = write_npz({**arrays, "classes": np.array(["ant", "cow", "bee"])}, "parts/b.npz").parent
    refused(folder, "b.npz: classes differ from those of a.npz")


def test_parts_with_other_images_are_refused(arrays: Arrays, write_npz: Write) -> None:
    write_npz(arrays, "parts/a.npz")
    grey = {key: value[..., :1] if key.endswith("x") else value for key, value in arrays.items()}
    refused(write_npz(grey, "parts/b.npz").parent, "b.npz: 8x8x1 images, a.npz has 8x8x3")


def test_a_bad_part_is_named(arrays: Arrays, write_npz: Write) -> None:
    write_npz(arrays, "parts/a.npz")
    del arrays["test_y"]
    refused(write_npz(arrays, "parts/b.npz").parent, "b.npz: no test_y")
