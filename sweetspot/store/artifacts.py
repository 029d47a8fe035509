"""Blobs by content (weights), and Optuna's artifacts, in a folder or any fsspec file system."""

import hashlib
import io
import os
import re
import uuid
from contextlib import suppress
from typing import BinaryIO, cast

import fsspec
from optuna.artifacts.exceptions import ArtifactNotFound

from sweetspot.errors import UserError
from sweetspot.store.url import shown


class DamagedBlobError(Exception):
    """A blob is missing, truncated or altered: what it held must be made again."""


class Artifacts:
    """Blobs named by the SHA-256 of their content, and an Optuna ``ArtifactStore`` beside them.

    A blob is written whole before anybody can see it, and verified whenever it is read. Many processes may use it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
            self._local = "file" in (
                self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
            )
            self._fs.makedirs(self._root, exist_ok=True)
        except (ValueError, ImportError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"cannot use {shown(url)} for artifacts ({reason}): give --artifacts a folder that you may write in, "
                "or s3://bucket/path, gs://bucket/path"
            ) from None

    # -- blobs --------------------------------------------------------------------------------------------------------

    def put(self, content: bytes) -> str:
        """Store ``content``; its name, the SHA-256 in hexadecimal. Durable when it returns."""
        name = hashlib.sha256(content).hexdigest()
        path = self._blob(name)
        if not self._fs.exists(path):
            self._write(path, content)
        return name

    def get(self, name: str) -> bytes:
        """The content of a blob.

        Raises:
            DamagedBlobError: if it is missing or not what its name says; a damaged one is put aside.
        """
        path = self._blob(name)
        try:
            content = cast(bytes, self._fs.cat_file(path))
        except FileNotFoundError:
            raise DamagedBlobError(f"blob {name[:12]} is missing") from None
        if hashlib.sha256(content).hexdigest() != name:
            with suppress(OSError):
                self._fs.makedirs(f"{self._root}/quarantine", exist_ok=True)
                self._fs.mv(path, f"{self._root}/quarantine/{name}-{uuid.uuid4().hex[:8]}")
            raise DamagedBlobError(f"blob {name[:12]} is damaged")
        return content

    def discard(self, name: str) -> None:
        """Remove a blob that nothing refers to any more. Harmless when it is gone."""
        with suppress(FileNotFoundError, DamagedBlobError):
            self._fs.rm_file(self._blob(name))

    def _blob(self, name: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", name):  # it comes from the database, and must not lead to another file
            raise DamagedBlobError(f"{name[:12]!r} is no name of a blob")
        return f"{self._root}/blobs/{name[:2]}/{name}"

    def _write(self, path: str, content: bytes) -> None:
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
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
