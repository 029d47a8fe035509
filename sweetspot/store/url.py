"""Database and artifact addresses: the defaults, as users write them, and without their secrets."""

import os
import re
from pathlib import Path

import platformdirs
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sweetspot.errors import UserError

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_BACKENDS = ("sqlite", "postgresql", "mysql", "mariadb")


def home() -> Path:
    """``SWEETSPOT_HOME``, or the user's data folder of the platform."""
    return Path(os.environ.get("SWEETSPOT_HOME") or platformdirs.user_data_dir("sweetspot"))


def writable_home() -> Path:
    """:func:`home`, created.

    Raises:
        UserError: if it cannot be written.
    """
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write in {folder} ({error.strerror}): set SWEETSPOT_HOME to a folder that you may write in"
        ) from None
    return folder


def data_folder() -> Path:
    """Where data sets are kept that are downloaded: ``SWEETSPOT_DATA``, or a folder in :func:`home`."""
    return Path(os.environ.get("SWEETSPOT_DATA") or home() / "data")


def database_url(text: str | None) -> URL:
    """The SQLAlchemy URL of ``text``, of the file ``SWEETSPOT_STORAGE_FILE`` or the variable ``SWEETSPOT_STORAGE``.

    Without any, it is that of the SQLite file in :func:`home`.

    ``postgresql://`` is read as psycopg 3, a plain path ending in ``.db`` or ``.sqlite`` as an SQLite file.

    Raises:
        UserError: if it is no database URL, or one that workers cannot share.
    """
    if not text and (file := os.environ.get("SWEETSPOT_STORAGE_FILE")):
        text = read_storage_file(Path(file))
    text = text or os.environ.get("SWEETSPOT_STORAGE")
    if not text:
        return URL.create("sqlite", database=str(writable_home() / "sweetspot.db"))
    is_file = "://" not in text and Path(text).suffix in {".db", ".sqlite", ".sqlite3"}
    wanted = "a database URL looks like sqlite:///study.db or postgresql://user:password@host/database"
    try:
        url = URL.create("sqlite", database=text) if is_file else make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(f"--storage is not a database URL: {wanted}") from None
    backend = url.drivername.split("+")[0]
    if _DRIVERS.get(backend, backend).split("+")[0] not in _BACKENDS:
        raise UserError(f"--storage names the unknown database {backend!r}: {wanted}")
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if "@" in (url.host or ""):
        raise UserError("--storage has an @ in its user or password: write it as %40")
    if backend == "sqlite":
        if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
            raise UserError("--storage: an SQLite database in memory cannot be shared by workers; name a file")
        return url.set(database=str(Path(str(url.database)).expanduser().absolute()))
    return url


def read_storage_file(path: Path) -> str:
    """The database URL in a file: a secret that is in no environment and no argument list.

    Raises:
        UserError: if the file cannot be read, or has no line.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"--storage-file {path}: {why}: name a file whose one line is a database URL") from None
    if len(lines) != 1:
        raise UserError(f"--storage-file {path} has {len(lines)} words: its one line must be a database URL")
    return lines[0]


def has_password(text: str) -> bool:
    """Whether an address carries a secret that must not be seen in a list of processes."""
    return shown(text) != text


def artifacts_url(text: str | None, database: URL) -> str:
    """Where blobs are kept: ``text``, ``SWEETSPOT_ARTIFACTS``, or ``artifacts`` beside an SQLite file or at home."""
    text = text or os.environ.get("SWEETSPOT_ARTIFACTS")
    if text:
        return text if "://" in text else str(Path(text).expanduser().absolute())
    if database.get_backend_name() == "sqlite" and database.database != str(home() / "sweetspot.db"):
        return str(Path(str(database.database)).parent / "artifacts")
    return str(writable_home() / "artifacts")


def shown(url: URL | str) -> str:
    """The address as it may be printed: without the password, and without query values that may hold one."""
    text = url.render_as_string(hide_password=True) if isinstance(url, URL) else url
    # To the last @: people leave @, / and ? in passwords. An @ behind a port and a ? belongs to the query.
    text = re.sub(r"(://[^:/@]*):(?:[^?]*@|(?!\d+/).*@)", r"\1:***@", text)
    return re.sub(r"([?&][^=&]*(?:passw|secret|token|key)[^=&]*=)[^&]*", r"\1***", text, flags=re.IGNORECASE)


def full(url: URL) -> str:
    """The address with its password, for the environment of a worker only."""
    return url.render_as_string(hide_password=False)
