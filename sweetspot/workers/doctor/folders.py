"""Folders, looked at without making them; and the home."""

import os
import tempfile
from pathlib import Path

from sweetspot.store import url
from sweetspot.workers.doctor.check import Check


def home_at() -> Path:
    return url.home().expanduser().absolute()


def data_at(folder: Path | None) -> Path:
    """Where data sets are: ``--data``, or what is in its place."""
    return (folder or url.data_folder()).expanduser().absolute()


def unwritable(folder: Path) -> str | None:
    """Why nothing could be written in a folder, made first where it is missing; None if it could. Leaves nothing."""
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return f"cannot write in {there} ({error.strerror})"


def home(is_needed: bool) -> Check:
    """The folder of whatever is not put elsewhere.

    Args:
        is_needed: whether the database, the artifacts or the data are in it.
    """
    folder = home_at()
    if not is_needed:
        return Check("home", "ok", f"{folder} is not needed: database, artifacts and data are elsewhere")
    if (why := unwritable(folder)) is not None:
        return Check("home", "wrong", f"{folder}: {why}", "set SWEETSPOT_HOME to a folder that you may write in")
    return Check("home", "ok", str(folder) if folder.is_dir() else f"{folder} will be made by the first run")
