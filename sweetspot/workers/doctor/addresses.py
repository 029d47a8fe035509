"""The database and the artifacts: can they be used, and do they belong together?"""

import os
import uuid
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import fsspec
from sqlalchemy.engine import URL

from sweetspot.errors import RunError
from sweetspot.store.artifacts import Artifacts, DamagedBlobError
from sweetspot.store.filesystem import network_file_system
from sweetspot.store.inspection import Inspection, exists, inspect_database
from sweetspot.store.schema import VERSION
from sweetspot.store.url import artifacts_url, database_url, shown
from sweetspot.workers.doctor.check import Check, State, in_words
from sweetspot.workers.doctor.folders import home_at, unwritable

_SLOW_SECONDS = 0.05
_CLOCK_SECONDS = 5.0
_LITTLE_SPACE = 1e9


def _default_database() -> Path:
    return home_at() / "sweetspot.db"


def url_of(storage: str | None) -> URL:
    """The database that ``--storage`` or its variables name; unlike :func:`database_url`, it makes no home.

    Raises:
        UserError: if it is no database URL.
    """
    is_named = storage or os.environ.get("SWEETSPOT_STORAGE_FILE") or os.environ.get("SWEETSPOT_STORAGE")
    return database_url(storage) if is_named else URL.create("sqlite", database=str(_default_database()))


def artifacts_of(artifacts: str | None, url: URL | None) -> str:
    """Where the artifacts are; unlike :func:`artifacts_url`, it makes no home."""
    url = url or URL.create("sqlite", database=str(_default_database()))
    is_named = artifacts or os.environ.get("SWEETSPOT_ARTIFACTS")
    is_file_elsewhere = url.get_backend_name() == "sqlite" and url.database != str(_default_database())
    return artifacts_url(artifacts, url) if is_named or is_file_elsewhere else str(home_at() / "artifacts")


# -- the database -----------------------------------------------------------------------------------------------------


def database(url: URL) -> tuple[Check, Inspection | None]:
    """The check of a database; and what it holds, if it answers.

    Raises:
        UserError: if it cannot be reached.
    """
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).parent
        if (kind := network_file_system(folder)) is not None:
            advice = "use PostgreSQL (--storage postgresql://…), or a disk of this machine"
            return Check("database", "wrong", f"{shown(url)}: SQLite on a network file system ({kind})", advice), None
        if not exists(url):
            return _not_there_yet(url, folder), None
    found = inspect_database(url)
    return _of_inspection(url, found), found


def _not_there_yet(url: URL, folder: Path) -> Check:
    is_made = url.database == str(_default_database())
    if not folder.is_dir() and not is_made:
        return Check("database", "wrong", f"{shown(url)}: there is no folder {folder}", f"make it: mkdir -p {folder}")
    if (why := unwritable(folder)) is not None:
        advice = "set SWEETSPOT_HOME to a folder that you may write in" if is_made else "give another --storage"
        return Check("database", "wrong", f"{shown(url)}: {why}", advice)
    return Check("database", "ok", f"{shown(url)} will be made by the first run")


def _of_inspection(url: URL, found: Inspection) -> Check:
    told = [f"{shown(url)}: {found.server}", f"round trip {1000 * found.round_trip:.2g} ms"]
    if found.schema is None:
        told.append("no tables yet")
    else:
        told += [f"schema {found.schema}", f"{found.studies} stud{'y' if found.studies == 1 else 'ies'}"]
    if found.clock_ahead is not None:
        told.append(f"clock {found.clock_ahead:+.1f} s")
    state, advice = _verdict(found)
    return Check("database", state, ", ".join(told), advice)


def _verdict(found: Inspection) -> tuple[State, str | None]:
    if found.optuna is not None:
        return "wrong", f"Optuna refuses its tables: {found.optuna}"
    if found.schema is not None and found.schema > VERSION:
        return "wrong", f"it was made by a newer sweetspot, this one knows schema {VERSION}: update sweetspot"
    if found.unwritable is not None:
        return "wrong", f"nothing can be written into it ({found.unwritable}): workers need to"
    if found.schema is not None and found.schema < VERSION:
        return "advice", f"the next run brings it to schema {VERSION}, or sweetspot init does now"
    if found.clock_ahead is not None and abs(found.clock_ahead) > _CLOCK_SECONDS:
        return "advice", "set the clocks (NTP): workers of machines whose clocks differ look silent to one another"
    if found.round_trip > _SLOW_SECONDS:
        return "advice", "a trial asks it a hundred times: put workers nearer to it, or let trials be long"
    return "ok", None


# -- the artifacts ----------------------------------------------------------------------------------------------------


def artifacts(address: str, there: Inspection | None) -> Check:
    """The check of the artifacts.

    Args:
        there: what the database holds; None where it is not there, or does not answer.

    Raises:
        UserError: if the address means nothing, or cannot be reached.
    """
    where = shown(address)
    try:
        files, root = fsspec.core.url_to_fs(address)
        is_local = "://" not in address or address.startswith("file://")
        is_there = files.exists(root)
        can_be_made = is_there or is_local or files.exists(root.split("/", 1)[0])
    except Exception as error:  # every file system has its own
        advice = "give --artifacts a folder that you may write in, or s3://bucket/path, gs://bucket/path"
        return Check("artifacts", "wrong", f"{where}: {in_words(error)}", advice)
    if not is_there:
        return _no_artifacts_yet(where, Path(root) if is_local else None, bool(can_be_made), there)
    try:
        opened = Artifacts(address)
        _write_and_read(opened, Path(root) if is_local else None)
        owner, free = opened.owner(), opened.free_bytes()
    except (RunError, DamagedBlobError) as error:
        return Check("artifacts", "wrong", f"{where}: {error}", "make it writable, or give --artifacts another place")
    told = [f"{where}: written, read back, removed"]
    if free is not None:
        told.append(f"{free / 1e9:.3g} GB free")
    if (stranger := _stranger(owner, there)) is not None:
        return Check("artifacts", "wrong", ", ".join(told), stranger)
    if there is not None and owner is not None:
        told.append("they belong to the database")
    if free is not None and free < _LITTLE_SPACE:
        return Check("artifacts", "advice", ", ".join(told), "free some: sweetspot snapshots gc")
    return Check("artifacts", "ok", ", ".join(told))


def _no_artifacts_yet(where: str, folder: Path | None, can_be_made: bool, there: Inspection | None) -> Check:
    if there is not None and there.has_blobs:
        return Check("artifacts", "wrong", f"{where} is not there", "give the right --artifacts, or mount their disk")
    why = unwritable(folder) if folder is not None else None if can_be_made else "there is no such bucket"
    if why is not None:
        return Check("artifacts", "wrong", f"{where}: {why}", "give --artifacts a place that you may write to")
    return Check("artifacts", "ok", f"{where} will be made by the first run")


def _write_and_read(artifacts: Artifacts, folder: Path | None) -> None:
    """Store a blob, read it back and remove it, with the folders that are empty then.

    Raises:
        ArtifactsError, DamagedBlobError: if one of these fails.
    """
    content = f"sweetspot doctor {uuid.uuid4().hex}".encode()
    was_there = folder is None or (folder / "blobs" / sha256(content).hexdigest()[:2]).is_dir()
    name = artifacts.put(content)
    try:
        if artifacts.get(name) != content:
            raise DamagedBlobError("what was read back is not what was written")
    finally:
        artifacts.discard(name)
        if folder is not None and not was_there:
            with suppress(OSError):
                (folder / "blobs" / name[:2]).rmdir()
                (folder / "blobs").rmdir()


def _stranger(owner: str | None, there: Inspection | None) -> str | None:
    """What to do about artifacts that are not the database's."""
    if there is None or there.artifacts == owner:
        return None
    if owner is not None:
        return "they belong to another database: give --artifacts a place of their own"
    if there.has_blobs:
        return "they are empty, and the database has others: give the right --artifacts, or mount their disk"
    return None
