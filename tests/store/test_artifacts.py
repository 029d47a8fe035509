import errno
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import fsspec
import optuna
import pytest
from optuna.artifacts import download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from sweetspot.errors import UserError
from sweetspot.store import Artifacts, DamagedBlobError
from sweetspot.store.artifacts import ArtifactsError


@pytest.fixture(params=["folder", "file://", "memory://"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Artifacts]:
    urls = {
        "folder": str(tmp_path / "made" / "here"),
        "file://": f"file://{tmp_path}/made/here",
        "memory://": f"memory://{uuid.uuid4().hex}",
    }
    artifacts = Artifacts(urls[request.param])
    artifacts.set_owner("database")
    yield artifacts
    artifacts._fs.rm(artifacts._root, recursive=True)


def _files(artifacts: Artifacts, folder: str) -> dict[str, bytes]:
    """What lies under a folder of the artifacts, by the path below it."""
    root = f"{artifacts._root}/{folder}"
    return {path[len(root) + 1 :]: artifacts._fs.cat_file(path) for path in artifacts._fs.find(root)}


def _spoil(artifacts: Artifacts, name: str, content: bytes) -> None:
    artifacts._fs.pipe_file(f"{artifacts._root}/blobs/{name[:2]}/{name}", content)


# -- blobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"weights", bytes(range(256)) * 4096])
def test_a_blob_is_named_by_its_content_and_comes_back_as_it_was(artifacts: Artifacts, content: bytes) -> None:
    name = artifacts.put(content)
    assert name == hashlib.sha256(content).hexdigest()
    assert artifacts.get(name) == content
    assert _files(artifacts, "blobs") == {f"{name[:2]}/{name}": content}


def test_equal_contents_are_one_blob(artifacts: Artifacts) -> None:
    assert artifacts.put(b"weights") == artifacts.put(b"weights")
    assert len(_files(artifacts, "blobs")) == 1


def test_many_writers_of_one_blob_do_not_disturb_one_another(artifacts: Artifacts) -> None:
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(artifacts.put, [b"weights" * 10_000] * 32))
    assert len(names) == 1
    assert artifacts.get(names.pop()) == b"weights" * 10_000
    assert len(_files(artifacts, "blobs")) == 1


def test_two_workers_see_each_others_blobs(artifacts: Artifacts) -> None:
    assert Artifacts(artifacts.url).get(artifacts.put(b"weights")) == b"weights"


def test_a_discarded_blob_is_gone_and_discarding_again_is_harmless(artifacts: Artifacts) -> None:
    name = artifacts.put(b"weights")
    artifacts.discard(name)
    artifacts.discard(name)
    assert _files(artifacts, "blobs") == {}


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_missing_blob_is_noticed(artifacts: Artifacts) -> None:
    name = artifacts.put(b"weights")
    artifacts.discard(name)
    with pytest.raises(DamagedBlobError, match=f"blob {name[:12]} is missing"):
        artifacts.get(name)


@pytest.mark.parametrize("damaged", [b"weighty", b"weigh", b"", b"weights and more"])
def test_a_damaged_blob_is_put_aside_and_may_be_written_again(artifacts: Artifacts, damaged: bytes) -> None:
    name = artifacts.put(b"weights")
    _spoil(artifacts, name, damaged)
    with pytest.raises(DamagedBlobError, match=f"blob {name[:12]} is damaged"):
        artifacts.get(name)
    ((aside, content),) = _files(artifacts, "quarantine").items()
    assert aside.startswith(name)
    assert content == damaged
    assert _files(artifacts, "blobs") == {}
    assert artifacts.get(artifacts.put(b"weights")) == b"weights"


def test_a_blob_that_is_damaged_twice_is_put_aside_twice(artifacts: Artifacts) -> None:
    for damaged in (b"once", b"twice"):
        name = artifacts.put(b"weights")
        _spoil(artifacts, name, damaged)
        with pytest.raises(DamagedBlobError):
            artifacts.get(name)
    assert sorted(_files(artifacts, "quarantine").values()) == [b"once", b"twice"]


@pytest.mark.parametrize("name", ["../precious", "..", ".", "", "/precious", "a" * 63, "A" * 64, f"{'a' * 64}\n"])
def test_a_name_that_is_no_hash_reaches_no_file(name: str, tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    artifacts.put(b"weights")
    precious = tmp_path / "precious"  # which is where blobs/../../precious leads
    precious.write_bytes(b"mine")
    with pytest.raises(DamagedBlobError):
        artifacts.get(name)
    artifacts.discard(name)
    assert precious.read_bytes() == b"mine"


@pytest.mark.parametrize("moment", ["replace", "fsync"])
def test_a_crash_during_writing_leaves_no_visible_blob(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(str(tmp_path))

    def crash(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, crash)
        with pytest.raises(ArtifactsError, match=r"No space left on device.*snapshots gc"):
            artifacts.put(b"weights")
    assert _files(artifacts, "blobs") == {}
    assert artifacts.get(artifacts.put(b"weights")) == b"weights"


def test_what_a_killed_writer_left_half_done_is_no_blob(tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path))
    artifacts.set_owner("database")
    name = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "blobs" / name[:2]).mkdir(parents=True)
    (tmp_path / "blobs" / name[:2] / f"{name}.0123abcd.partial").write_bytes(b"wei")
    with pytest.raises(DamagedBlobError, match="missing"):
        artifacts.get(name)
    assert artifacts.get(artifacts.put(b"weights")) == b"weights"


# -- Optuna's artifacts -----------------------------------------------------------------------------------------------


def test_optuna_uploads_downloads_and_removes_through_it(artifacts: Artifacts, tmp_path: Path) -> None:
    study = optuna.create_study()
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    artifact = upload_artifact(artifact_store=artifacts, file_path=str(picture), study_or_trial=study)
    assert list(_files(artifacts, "optuna").values()) == [b"\x89PNG"]
    download_artifact(artifact_store=artifacts, file_path=str(tmp_path / "copy.png"), artifact_id=artifact)
    assert (tmp_path / "copy.png").read_bytes() == b"\x89PNG"
    artifacts.remove(artifact)
    with pytest.raises(ArtifactNotFound):
        artifacts.open_reader(artifact)
    with pytest.raises(ArtifactNotFound):
        artifacts.remove(artifact)


def test_an_artifact_is_read_as_a_binary_file(artifacts: Artifacts) -> None:
    artifacts.write("picture", io.BytesIO(b"0123456789"))
    with artifacts.open_reader("picture") as file:
        assert file.read(4) == b"0123"
        assert file.read() == b"456789"


def test_an_artifact_may_be_written_anew(artifacts: Artifacts) -> None:
    artifacts.write("picture", io.BytesIO(b"a longer old one"))
    artifacts.write("picture", io.BytesIO(b"new"))
    assert artifacts.open_reader("picture").read() == b"new"


@pytest.mark.parametrize("name", ["../precious", "../../precious", "/precious", "..", ".", ".hidden", "", "a/b"])
def test_an_artifact_id_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    artifacts.write("picture", io.BytesIO(b"picture"))
    for precious in (tmp_path / "precious", tmp_path / "artifacts" / "precious"):
        precious.write_bytes(b"mine")
    with pytest.raises(ArtifactNotFound):
        artifacts.open_reader(name)
    with pytest.raises(ArtifactNotFound):
        artifacts.remove(name)
    with pytest.raises(ArtifactNotFound):
        artifacts.write(name, io.BytesIO(b"theirs"))
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert (tmp_path / "artifacts" / "precious").read_bytes() == b"mine"


# -- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_in_the_folders_place_is_refused_in_one_line(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot use .*/file.* for artifacts .*give --artifacts a folder") as caught:
        Artifacts(f"{tmp_path}/file{below}")
    assert "\n" not in str(caught.value)


def test_an_unknown_protocol_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot use carrier-pigeon://loft for artifacts .*s3://bucket/path"):
        Artifacts("carrier-pigeon://loft")


def test_an_object_store_whose_package_is_missing_is_refused_without_its_credentials() -> None:
    missing = next(name for name in ("gs", "abfs", "oci", "s3") if not _is_importable(name))
    with pytest.raises(UserError, match="for artifacts") as caught:
        Artifacts(f"{missing}://ann:hunter2@bucket/blobs")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def _is_importable(protocol: str) -> bool:
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError:
        return False
    return True


# -- a file system that refuses ---------------------------------------------------------------------------------------


def _refuse(error: int) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(error, os.strerror(error))

    return refuse


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_blob_that_cannot_be_read_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    artifacts = Artifacts(str(tmp_path))
    artifacts.set_owner("database")
    name = artifacts.put(b"weights")
    inner = artifacts._fs.cat_file
    with monkeypatch.context() as patch:
        patch.setattr(artifacts._fs, "cat_file", lambda p: _refuse(error)() if name in p else inner(p))
        with pytest.raises(DamagedBlobError, match=f"cannot be read .{os.strerror(error)}"):
            artifacts.get(name)
    assert [file.kind for file in artifacts.files()] == ["quarantine"]
    assert artifacts.get(artifacts.put(b"weights")) == b"weights"
    (tmp_path / "blobs" / name[:2] / name).unlink()
    (tmp_path / "blobs" / name[:2] / name).mkdir()
    with pytest.raises(DamagedBlobError, match=r"cannot be read .Is a directory"):
        artifacts.get(name)
    assert artifacts.get(artifacts.put(b"weights")) == b"weights"


def test_artifacts_that_do_not_answer_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is down must not have every teacher trained again."""
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    artifacts.set_owner("database")
    name = artifacts.put(b"weights")
    with monkeypatch.context() as patch:
        for error in (errno.ETIMEDOUT, errno.EACCES, errno.EIO):
            patch.setattr(artifacts._fs, "cat_file", _refuse(error))
            with pytest.raises(ArtifactsError, match=f"cannot read the artifacts .*{os.strerror(error)}"):
                artifacts.get(name)
    (tmp_path / "artifacts").rename(tmp_path / "unmounted")
    for _ in range(2):
        with pytest.raises(ArtifactsError, match="is their disk or share mounted"):
            artifacts.get(name)
        (tmp_path / "artifacts").mkdir(exist_ok=True)  # where the share was mounted
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "artifacts")
    assert artifacts.get(name) == b"weights"


@pytest.mark.parametrize("found", [b"", b"weight", b"weightz", b"weights and more"])
def test_what_is_put_replaces_a_file_that_does_not_hold_it(artifacts: Artifacts, found: bytes) -> None:
    """Whoever trains a damaged stretch again stores the very same content."""
    name = artifacts.put(b"weights")
    _spoil(artifacts, name, found)
    assert artifacts.put(b"weights") == name
    assert artifacts.get(name) == b"weights"


def test_putting_again_makes_a_blob_young(tmp_path: Path) -> None:
    """It may be about to get a row: nobody may take it for one that is left over."""
    artifacts = Artifacts(str(tmp_path))
    name = artifacts.put(b"weights")
    os.utime(tmp_path / "blobs" / name[:2] / name, (0, 0))
    (old,) = artifacts.files()
    assert old.modified == 0
    artifacts.put(b"weights")
    (young,) = artifacts.files()
    assert abs(time.time() - young.modified) < 100
    assert not artifacts.remove_file(old), "it was written again since it was listed"
    assert artifacts.get(name) == b"weights"


# -- what lies here ---------------------------------------------------------------------------------------------------


def test_files_are_blobs_and_pictures_what_writers_left_and_what_was_put_aside(artifacts: Artifacts) -> None:
    good, damaged = artifacts.put(b"weights"), artifacts.put(b"others")
    _spoil(artifacts, damaged, b"other")
    with pytest.raises(DamagedBlobError):
        artifacts.get(damaged)
    artifacts._fs.pipe_file(f"{artifacts._root}/blobs/{good[:2]}/{good}.0123abcd.partial", b"wei")
    artifacts.write("picture", io.BytesIO(b"of a study"))
    files = {file.kind: file for file in artifacts.files()}
    sizes = {kind: file.size for kind, file in files.items()}
    assert sizes == {"blob": 7, "partial": 3, "quarantine": 5, "picture": 10}
    assert files["blob"].name == good
    assert files["quarantine"].name.startswith(damaged)
    assert all(abs(time.time() - file.modified) < 100 for file in files.values())
    assert [artifacts.remove_file(file) for file in files.values()] == [True] * 4
    assert [artifacts.remove_file(file) for file in files.values()] == [False] * 4
    assert list(artifacts.files()) == []
    with pytest.raises(ArtifactNotFound):
        artifacts.open_reader("picture")


def test_free_space_is_known_of_a_disk_alone(tmp_path: Path) -> None:
    free = Artifacts(str(tmp_path)).free_bytes()
    assert free is not None
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    assert Artifacts(f"memory://{uuid.uuid4().hex}").free_bytes() is None
