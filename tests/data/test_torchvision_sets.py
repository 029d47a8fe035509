"""Tiny files in the real formats, read by torchvision itself and downloaded from a server of our own."""

import gzip
import hashlib
import io
import pickle
import struct
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets

from sweetspot.data import open_dataset
from sweetspot.errors import UserError

NO_SERVER = "http://127.0.0.1:9/"  # nothing listens there: refused at once


@pytest.fixture(autouse=True)
def _never_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NO_SERVER])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [NO_SERVER])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", NO_SERVER + "cifar-10-python.tar.gz")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", NO_SERVER + "cifar-100-python.tar.gz")
    monkeypatch.setattr(torchvision.datasets.STL10, "url", NO_SERVER + "stl10_binary.tar.gz")
    splits = torchvision.datasets.SVHN.split_list
    elsewhere = {split: [NO_SERVER + name, name, checksum] for split, (_, name, checksum) in splits.items()}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", elsewhere)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/", folder
        http.shutdown()
        thread.join()


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- the MNIST family: idx files --------------------------------------------------------------------------------------


def idx(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Magic number (type 8: uint8; dimensions), big-endian sizes, the values."""
    return struct.pack(f">{1 + values.ndim}i", 8 << 8 | values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def mnist_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for prefix, n in (("train", 20), ("t10k", 10)):
        files[f"{prefix}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        files[f"{prefix}-labels-idx1-ubyte"] = idx((np.arange(n) % 10).astype(np.uint8))
    return files


def put(files: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def compressed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_files_that_are_there_are_read_without_the_network(
    name: str, folder: str, tmp_path: Path, mnist_files: dict[str, bytes]
) -> None:
    put(mnist_files, tmp_path / folder / "raw")
    before = files_under(tmp_path)
    dataset = open_dataset(name, tmp_path)
    train, test = dataset.train(), dataset.test()
    assert train.images.shape == (20, 1, 28, 28)
    assert train.images.numpy().tobytes() == mnist_files["train-images-idx3-ubyte"][16:]
    assert test.images.numpy().tobytes() == mnist_files["t10k-images-idx3-ubyte"][16:]
    assert test.labels.tolist() == list(range(10))
    assert len(dataset.classes) == 10
    assert files_under(tmp_path) == before


def test_training_never_reads_the_test_files(tmp_path: Path, mnist_files: dict[str, bytes]) -> None:
    put(mnist_files, tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"not images")
    dataset = open_dataset("mnist", tmp_path)
    assert len(dataset.train()) == 20
    with pytest.raises(UserError, match=r"mnist in .* is damaged"):
        dataset.test()


def test_what_is_missing_is_downloaded_and_later_read_without_the_network(
    tmp_path: Path,
    mnist_files: dict[str, bytes],
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, served = server
    archives = compressed(mnist_files)
    put(archives, served)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NO_SERVER, address])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(n, md5(c)) for n, c in archives.items()])
    root = tmp_path / "new" / "root"
    first = open_dataset("mnist", root).train()
    assert capsys.readouterr().out == ""
    assert files_under(root) == {f"MNIST/raw/{name}" for name in mnist_files}

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NO_SERVER])
    assert torch.equal(open_dataset("mnist", root).train().images, first.images)


def test_without_the_network_the_error_says_which_files_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_dataset("fashion_mnist", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("fashion_mnist could not be downloaded (")
    assert "train-images-idx3-ubyte.gz" in message
    assert NO_SERVER in message
    assert f"under {tmp_path / 'FashionMNIST' / 'raw'}" in message
    assert "--data" in message
    assert list(tmp_path.iterdir()) == []


def test_files_put_there_as_they_are_published_are_unpacked(
    tmp_path: Path, mnist_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = compressed(mnist_files)
    put(archives, tmp_path / "MNIST" / "raw")
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(n, md5(c)) for n, c in archives.items()])
    assert len(open_dataset("mnist", tmp_path).train()) == 20


@pytest.mark.parametrize("defect", ["another file", "cut off"])
def test_a_download_that_failed_leaves_nothing_behind(
    defect: str,
    tmp_path: Path,
    mnist_files: dict[str, bytes],
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, served = server
    archives = compressed(mnist_files)
    last = list(archives)[-1]
    spoiled = {**archives, last: b"another file" if defect == "another file" else archives[last][:-10]}
    put(spoiled, served)
    published = archives if defect == "another file" else spoiled  # the second passes the checksum, and unpacks badly
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(n, md5(c)) for n, c in published.items()])
    root = tmp_path / "root"
    with pytest.raises(UserError, match="mnist could not be downloaded"):
        open_dataset("mnist", root)
    assert list(root.iterdir()) == []

    put(archives, served)
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(n, md5(c)) for n, c in archives.items()])
    assert len(open_dataset("mnist", root).train()) == 20


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "cut off": ("train-images-idx3-ubyte", lambda content: content[:-100]),
    "empty": ("train-images-idx3-ubyte", lambda content: b""),
    "something else": ("train-labels-idx1-ubyte", lambda content: b"labels? " * 5),
    "fewer labels than images": ("train-labels-idx1-ubyte", lambda content: idx(np.zeros(19, np.uint8))),
    "labels of no class": ("train-labels-idx1-ubyte", lambda content: idx(np.full(20, 10, np.uint8))),
}


@pytest.mark.parametrize("defect", DAMAGE)
def test_damaged_files_are_refused_and_kept(defect: str, tmp_path: Path, mnist_files: dict[str, bytes]) -> None:
    name, spoil = DAMAGE[defect]
    mnist_files[name] = spoil(mnist_files[name])
    put(mnist_files, tmp_path / "MNIST" / "raw")
    with pytest.raises(UserError, match=r"mnist in .*raw is damaged \(.*delete its files there") as caught:
        open_dataset("mnist", tmp_path)
    assert "\n" not in str(caught.value)
    assert files_under(tmp_path) == {f"MNIST/raw/{name}" for name in mnist_files}


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"mnist could not be downloaded .*Not a directory"):
        open_dataset("mnist", tmp_path / "file" / "root")


def test_the_root_may_be_in_the_users_home(
    tmp_path: Path, mnist_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(mnist_files, tmp_path / "mine" / "MNIST" / "raw")
    assert len(open_dataset("mnist", Path("~/mine")).train()) == 20


# -- the CIFAR family: pickled batches --------------------------------------------------------------------------------


def cifar_files(train: list[str], test: str, meta: str, labels: str, names: str, classes: int) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {
        name: pickle.dumps(
            {"data": rng.integers(0, 256, (classes, 3 * 32 * 32), np.uint8), labels: list(range(classes))}
        )
        for name in [*train, test]
    }
    files[meta] = pickle.dumps({names: [f"class {i}" for i in range(classes)]})
    return files


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any, dict[str, bytes], int]:
    """The name, torchvision's class, its files, and training images per class.

    Torchvision's checks are at work: the checksums that it expects are those of the small files.
    """
    if request.param == "cifar10":
        reader, classes, batches = torchvision.datasets.CIFAR10, 10, [f"data_batch_{i}" for i in range(1, 6)]
        files = cifar_files(batches, "test_batch", "batches.meta", "labels", "label_names", classes)
    else:
        reader, classes, batches = torchvision.datasets.CIFAR100, 100, ["train"]
        files = cifar_files(batches, "test", "meta", "fine_labels", "fine_label_names", classes)
    for expected in ("train_list", "test_list"):
        names = [name for name, _ in getattr(reader, expected)]
        monkeypatch.setattr(reader, expected, [[name, md5(files[name])] for name in names])
    meta = {**reader.meta, "md5": md5(files[reader.meta["filename"]])}
    monkeypatch.setattr(reader, "meta", meta)
    return request.param, reader, files, len(batches)


def as_archive(files: dict[str, bytes], folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar_files_that_are_there_are_read_without_the_network(
    tmp_path: Path, cifar: tuple[str, Any, dict[str, bytes], int]
) -> None:
    name, reader, files, batches = cifar
    put(files, tmp_path / reader.base_folder)
    dataset = open_dataset(name, tmp_path)
    train, test = dataset.train(), dataset.test()
    classes = len(dataset.classes)
    assert dataset.classes[:2] == ("class 0", "class 1")
    assert train.images.shape == (classes * batches, 3, 32, 32)
    assert test.labels.tolist() == list(range(classes))
    stored = pickle.loads(files[reader.test_list[0][0]])["data"]  # noqa: S301 - written above
    assert test.images.numpy().tobytes() == stored.tobytes()  # stored as channels, rows, columns


def test_cifar_is_downloaded_where_it_is_missing_or_damaged(
    tmp_path: Path,
    cifar: tuple[str, Any, dict[str, bytes], int],
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, reader, files, batches = cifar
    address, served = server
    archive = as_archive(files, reader.base_folder)
    put({reader.filename: archive}, served)
    monkeypatch.setattr(reader, "url", address + reader.filename)
    monkeypatch.setattr(reader, "tgz_md5", md5(archive))
    root = tmp_path / "root"
    put({**files, reader.meta["filename"]: b"damaged"}, root / reader.base_folder)
    dataset = open_dataset(name, root)
    assert len(dataset.train()) == len(dataset.classes) * batches
    assert capsys.readouterr().out == ""
    assert files_under(root) == {f"{reader.base_folder}/{file}" for file in files}


def test_an_archive_put_there_by_hand_is_unpacked(
    tmp_path: Path, cifar: tuple[str, Any, dict[str, bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, reader, files, _ = cifar
    archive = as_archive(files, reader.base_folder)
    put({reader.filename: archive}, tmp_path)
    monkeypatch.setattr(reader, "tgz_md5", md5(archive))
    assert len(open_dataset(name, tmp_path).classes) > 2


def test_without_the_network_the_error_says_which_archive_to_put_where(
    tmp_path: Path, cifar: tuple[str, Any, dict[str, bytes], int]
) -> None:
    name, reader, _, _ = cifar
    with pytest.raises(
        UserError, match=f"{name} could not be downloaded .* put {reader.filename} of .* under {tmp_path}"
    ):
        open_dataset(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- SVHN: MATLAB files -----------------------------------------------------------------------------------------------


def mat(count: int, seed: int) -> tuple[bytes, np.ndarray[Any, Any]]:
    """A file as SVHN's are (rows, columns, channels, images; 10 for the digit 0), and its images as (N, C, H, W)."""
    images = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), np.uint8)
    buffer = io.BytesIO()
    labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
    scipy.io.savemat(buffer, {"X": images, "y": labels}, do_compression=True)
    return buffer.getvalue(), images.transpose(3, 2, 0, 1)


@pytest.fixture
def svhn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[bytes, np.ndarray[Any, Any]]]:
    """Files by name, with their images; their checksums are those that torchvision expects."""
    files = {"train_32x32.mat": mat(20, 0), "test_32x32.mat": mat(10, 1)}
    splits = {name.partition("_")[0]: [NO_SERVER + name, name, md5(files[name][0])] for name in files}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", splits)
    return files


def contents(files: dict[str, tuple[bytes, Any]]) -> dict[str, bytes]:
    return {name: content for name, (content, _) in files.items()}


def test_svhn_is_read_with_its_digits_as_classes(tmp_path: Path, svhn: dict[str, tuple[bytes, Any]]) -> None:
    put(contents(svhn), tmp_path)
    dataset = open_dataset("svhn", tmp_path)
    train, test = dataset.train(), dataset.test()
    assert dataset.classes == tuple("0123456789")
    assert train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert np.array_equal(train.images, svhn["train_32x32.mat"][1])
    assert np.array_equal(test.images, svhn["test_32x32.mat"][1])


def test_svhn_is_downloaded_where_a_file_is_missing_or_damaged(
    tmp_path: Path, svhn: dict[str, tuple[bytes, Any]], server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = server
    put(contents(svhn), served)
    splits = {
        split: [address + name, name, sum_] for split, (_, name, sum_) in torchvision.datasets.SVHN.split_list.items()
    }
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", splits)
    root = tmp_path / "root"
    put({"train_32x32.mat": b"damaged"}, root)
    assert len(open_dataset("svhn", root).train()) == 20
    assert files_under(root) == set(svhn)


def test_training_never_reads_the_test_file_of_svhn(tmp_path: Path, svhn: dict[str, tuple[bytes, Any]]) -> None:
    put({**contents(svhn), "test_32x32.mat": b"not images"}, tmp_path)
    dataset = open_dataset("svhn", tmp_path)
    with pytest.raises(UserError, match=r"svhn in .* is damaged"):
        dataset.test()


def test_without_the_network_the_error_says_which_files_of_svhn_to_put_where(
    tmp_path: Path, svhn: dict[str, tuple[bytes, Any]]
) -> None:
    put({"train_32x32.mat": svhn["train_32x32.mat"][0]}, tmp_path)
    with pytest.raises(
        UserError, match=f"svhn could not be downloaded .* put train_32x32.mat, test_32x32.mat of .* under {tmp_path},"
    ):
        open_dataset("svhn", tmp_path)


# -- STL-10: binary files in an archive -------------------------------------------------------------------------------


@pytest.fixture
def stl10(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the archive has, without its unlabelled images; its checksums are those that torchvision expects."""
    rng = np.random.default_rng(0)
    files = {"class_names.txt": "\n".join(f"class {i}" for i in range(10)).encode()}
    for split, count in (("train", 20), ("test", 10)):
        files[f"{split}_X.bin"] = rng.integers(0, 256, (count, 3, 96, 96), np.uint8).tobytes()
        files[f"{split}_y.bin"] = (np.arange(count) % 10 + 1).astype(np.uint8).tobytes()
    reader = torchvision.datasets.STL10
    for split in ("train", "test"):
        listed = [[name, md5(files.get(name, b""))] for name, _ in getattr(reader, f"{split}_list")]
        monkeypatch.setattr(reader, f"{split}_list", listed)
    return files


def test_stl10_is_read_upright_and_without_its_unlabelled_images(tmp_path: Path, stl10: dict[str, bytes]) -> None:
    put(stl10, tmp_path / "stl10_binary")
    dataset = open_dataset("stl10", tmp_path)
    train, test = dataset.train(), dataset.test()
    assert dataset.classes[:2] == ("class 0", "class 1")
    assert train.images.shape == (20, 3, 96, 96)
    assert test.labels.tolist() == list(range(10))
    stored = np.frombuffer(stl10["test_X.bin"], np.uint8).reshape(-1, 3, 96, 96)
    assert np.array_equal(test.images, stored.swapaxes(2, 3)), "stored column by column"


def test_an_archive_of_stl10_is_unpacked_and_its_unlabelled_images_are_not_kept(
    tmp_path: Path, stl10: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = as_archive({**stl10, "unlabeled_X.bin": b"many"}, "stl10_binary")
    monkeypatch.setattr(torchvision.datasets.STL10, "tgz_md5", md5(archive))
    put({"stl10_binary.tar.gz": archive}, tmp_path)
    assert len(open_dataset("stl10", tmp_path).train()) == 20
    assert files_under(tmp_path) == {"stl10_binary.tar.gz", *(f"stl10_binary/{name}" for name in stl10)}


@pytest.mark.parametrize("damaged", ["train_X.bin", "class_names.txt"])
def test_without_the_network_damaged_files_of_stl10_say_what_to_do(
    damaged: str, tmp_path: Path, stl10: dict[str, bytes]
) -> None:
    put(stl10, tmp_path / "stl10_binary")
    (tmp_path / "stl10_binary" / damaged).unlink()
    with pytest.raises(
        UserError, match=f"stl10 could not be downloaded .* put stl10_binary.tar.gz of .* under {tmp_path},"
    ):
        open_dataset("stl10", tmp_path)


# -- torchvision itself -----------------------------------------------------------------------------------------------


def test_a_torchvision_that_does_not_fit_its_torch_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"nms does not exist\): the builds of torch .* do not match.* `uv sync"
    ) as caught:
        open_dataset("mnist", tmp_path)
    assert "\n" not in str(caught.value)
