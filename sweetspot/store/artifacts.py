"""Blobs by content (weights), and Optuna's artifacts, in a folder or any fsspec file system."""

import errno
import hashlib
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Literal, cast

import fsspec
from optuna.artifacts.exceptions import ArtifactNotFound

from sweetspot.errors import RunError, UserError
from sweetspot.store.outage import Outages, outlasting
from sweetspot.store.url import shown
from sweetspot.timing import span

_MARK = "sweetspot-store"
"""The file that says which database the artifacts belong to."""

_UNREADABLE = {errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ELOOP}
"""What is wrong with one file, not with the file system."""


class DamagedBlobError(Exception):
    """A blob is missing, truncated, altered or unreadable: what it held must be made again."""


class ArtifactsError(RunError):
    """The artifacts as a whole cannot be written or read: full, read-only, or not there."""


FileKind = Literal["blob", "partial", "quarantine", "picture"]
_FOLDERS: dict[str, FileKind] = {"blobs": "blob", "quarantine": "quarantine", "optuna": "picture"}


@dataclass(frozen=True)
class StoredFile:
    """A file of the artifacts.

    Attributes:
        name: of a blob, the SHA-256 of what it ought to hold; of others, the file's name.
        kind: "partial" is what a writer that died has left; "quarantine" a blob that was found damaged; "picture" an
            artifact that dashboards show.
        size: bytes.
        modified: when it was written, in seconds since 1970, by the clock of where it lies.
    """

    path: str
    name: str
    kind: FileKind
    size: int
    modified: float


class Artifacts:
    """Blobs named by the SHA-256 of their content, and an Optuna ``ArtifactStore`` beside them.

    A blob is written whole before anybody can see it, and verified whenever it is read. Many processes may use it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.outages = Outages(
            "artifacts",
            lambda error: str(error) if isinstance(error, ArtifactsError) else None,
            lambda error, waited: error,
        )
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
            self._local = "file" in (
                self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
            )
            self._fs.makedirs(self._root, exist_ok=True)
        except (ValueError, ImportError, OSError) as error:
            raise UserError(
                f"cannot use {shown(url)} for artifacts ({_reason(error)}): give --artifacts a folder that you may "
                "write in, or s3://bucket/path, gs://bucket/path"
            ) from None

    # -- blobs --------------------------------------------------------------------------------------------------------

    @outlasting
    def put(self, content: bytes) -> str:
        """Store ``content``; its name, the SHA-256 in hexadecimal. Durable when it returns.

        Raises:
            ArtifactsError: if it cannot be written.
        """
        name = hashlib.sha256(content).hexdigest()
        path = self._blob(name)
        try:
            if not (self._local and _renewed(path, content)):
                self._write(path, content)
        except Exception as error:
            raise self._unwritable(error) from error
        return name

    @outlasting
    def get(self, name: str) -> bytes:
        """The content of a blob.

        Raises:
            DamagedBlobError: if it is missing, unreadable or not what its name says; a damaged one is put aside.
            ArtifactsError: if the artifacts as a whole cannot be read.
        """
        path = self._blob(name)
        try:
            content = cast(bytes, self._fs.cat_file(path))
        except FileNotFoundError:
            self._check_readable()
            raise DamagedBlobError(f"blob {name[:12]} is missing") from None
        except Exception as error:
            if not (self._local and isinstance(error, OSError) and error.errno in _UNREADABLE):
                raise self._unreadable(error) from error
            self._check_readable()
            self._put_aside(path, name)
            raise DamagedBlobError(f"blob {name[:12]} cannot be read ({_reason(error)})") from None
        if hashlib.sha256(content).hexdigest() != name:
            self._put_aside(path, name)
            raise DamagedBlobError(f"blob {name[:12]} is damaged")
        return content

    def discard(self, name: str) -> None:
        """Remove a blob that nothing refers to any more. Harmless when it is gone, or cannot be removed."""
        with span("artifacts"), suppress(OSError, DamagedBlobError):
            self._fs.rm_file(self._blob(name))

    def files(self) -> Iterator[StoredFile]:
        """The blobs and pictures that lie here, what dying writers have left, and what was put aside; in no order."""
        self._fs.invalidate_cache()
        for folder, kind in _FOLDERS.items():
            for path, info in self._fs.find(f"{self._root}/{folder}", detail=True).items():
                name = path.rsplit("/", 1)[-1]
                is_whole = kind == "quarantine" or not name.endswith(".partial")
                yield StoredFile(
                    path, name, kind if is_whole else "partial", int(info.get("size") or 0), _modified(info)
                )

    def remove_file(self, file: StoredFile) -> bool:
        """Remove one of :meth:`files`; False if it is gone, or was written again since it was listed."""
        try:
            if _modified(self._fs.info(file.path)) != file.modified:
                return False
            self._fs.rm_file(file.path)
        except FileNotFoundError:
            return False
        return True

    def free_bytes(self) -> int | None:
        """What the disk has left; None where it is not a disk of this machine."""
        return shutil.disk_usage(self._root).free if self._local else None

    # -- notes: what was left for the next owner of a run -------------------------------------------------------------

    @outlasting
    def put_note(self, name: str, content: bytes) -> None:
        """Store a note, which has a name of its own.

        Raises:
            ArtifactsError: if it cannot be written.
        """
        try:
            self._write(f"{self._root}/notes/{name}", content)
        except Exception as error:
            raise self._unwritable(error) from error

    @outlasting
    def notes(self, beginning: str) -> list[str]:
        """The names of the notes that begin so, oldest first.

        Raises:
            ArtifactsError: if they cannot be listed.
        """
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(f"{self._root}/notes", detail=True)
        except Exception as error:
            raise self._unreadable(error) from error
        by_age = sorted((_modified(info), path.rsplit("/", 1)[-1]) for path, info in found.items())
        return [name for _, name in by_age if name.startswith(beginning) and not name.endswith(".partial")]

    @outlasting
    def get_note(self, name: str) -> bytes:
        """The content of a note; empty if it is gone."""
        try:
            return cast(bytes, self._fs.cat_file(f"{self._root}/notes/{name}"))
        except FileNotFoundError:
            return b""
        except Exception as error:
            raise self._unreadable(error) from error

    def remove_note(self, name: str) -> None:
        """Remove a note. Harmless when it is gone."""
        with suppress(OSError):
            self._fs.rm_file(f"{self._root}/notes/{name}")

    # -- whose they are -----------------------------------------------------------------------------------------------

    def owner(self) -> str | None:
        """The id of the database whose artifacts these are; None where no database has them yet.

        Raises:
            ArtifactsError: if they cannot be read.
        """
        try:
            return cast(bytes, self._fs.cat_file(f"{self._root}/{_MARK}")).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unreadable(error) from error

    def set_owner(self, database: str) -> None:
        """Say which database these artifacts belong to."""
        try:
            self._write(f"{self._root}/{_MARK}", f"{database}\n".encode())
        except Exception as error:
            raise self._unwritable(error) from error

    def _check_readable(self) -> None:
        """Tell one blob that cannot be read from artifacts that cannot: a share that is gone has no blob damaged.

        Raises:
            ArtifactsError: if these are no artifacts of a database (any more).
        """
        if self.owner() is None:
            raise ArtifactsError(
                f"the artifacts in {shown(self.url)} are gone: is their disk or share mounted? "
                "The same command continues"
            )

    def _unreadable(self, error: Exception) -> ArtifactsError:
        return ArtifactsError(
            f"cannot read the artifacts in {shown(self.url)} ({_reason(error)}); the same command continues"
        )

    def _unwritable(self, error: Exception) -> ArtifactsError:
        return ArtifactsError(
            f"cannot write to the artifacts in {shown(self.url)} ({_reason(error)}): free space with sweetspot "
            "snapshots gc, or make it writable; the same command continues"
        )

    def _put_aside(self, path: str, name: str) -> None:
        with suppress(OSError):
            self._fs.makedirs(f"{self._root}/quarantine", exist_ok=True)
            self._fs.mv(path, f"{self._root}/quarantine/{name}-{uuid.uuid4().hex[:8]}")

    def _blob(self, name: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", name):  # it comes from the database, and must not lead to another file
            raise DamagedBlobError(f"{name[:12]!r} is no name of a blob")
        return f"{self._root}/blobs/{name[:2]}/{name}"

    def _write(self, path: str, content: bytes) -> None:
        folder = path.rsplit("/", 1)[0]
        self._fs.makedirs(folder, exist_ok=True)
        if not self._local:  # object stores make a PUT visible whole
            self._fs.pipe_file(path, content)
            return
        partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
        try:
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _fsync_folder(folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise

    # -- Optuna's ArtifactStore ---------------------------------------------------------------------------------------

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Optuna: the artifact as a binary file; raises ``ArtifactNotFound``."""
        try:
            return io.BytesIO(self._fs.cat_file(self._artifact(artifact_id)))
        except FileNotFoundError:
            raise ArtifactNotFound(f"no artifact {artifact_id}") from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Optuna: store an artifact."""
        with span("artifacts"):
            self._write(self._artifact(artifact_id), content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Optuna: remove an artifact; raises ``ArtifactNotFound``."""
        try:
            self._fs.rm_file(self._artifact(artifact_id))
        except FileNotFoundError:
            raise ArtifactNotFound(f"no artifact {artifact_id}") from None

    def _artifact(self, artifact_id: str) -> str:
        if not artifact_id or "/" in artifact_id or artifact_id.startswith("."):
            raise ArtifactNotFound(f"no artifact {artifact_id}")
        return f"{self._root}/optuna/{artifact_id}"


def _renewed(path: str, content: bytes) -> bool:
    """Whether a file holds ``content`` already; it is then as young as if it had just been written."""
    try:
        with open(path, "rb") as file:
            if file.read() != content:
                return False
        os.utime(path)
    except OSError:
        return False
    return True


def _fsync_folder(folder: str) -> None:
    """Make a renaming in a folder durable, where the platform can."""
    with suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _modified(info: dict[str, Any]) -> float:
    """When a file was written, in seconds since 1970: each file system of fsspec has its own word for it."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return time.time()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
