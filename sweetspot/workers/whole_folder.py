"""A folder that is written whole or not at all, with the export of an earlier day giving way to it."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweetspot.errors import UserError
from sweetspot.models.exported import FILES, is_export

_OTHERS = 3
"""So many names of what is in the way are told."""


@contextmanager
def whole_folder(folder: Path, option: str) -> Iterator[Path]:
    """A folder to write in, which takes the place of ``folder`` when the block ends well; otherwise nothing is left.

    Args:
        folder: is not there, or empty, or an earlier export, which is replaced as a whole.
        option: what an error names it by.

    Raises:
        UserError: if ``folder`` is something else, or cannot be written; before the block, as far as that is known.
    """
    folder = Path(os.path.realpath(folder.expanduser()))
    said = f"{option} {folder}"
    _check(folder, said)
    partial = folder.with_name(f".{folder.name[:200]}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir()
    except OSError as error:
        raise UserError(
            f"{said}: cannot write in {folder.parent} ({error.strerror}): name a folder in one that you may write in"
        ) from None
    try:
        yield partial
        _replace(folder, partial, said)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(folder: Path, said: str) -> None:
    """Refuse what must not be replaced."""
    try:
        if not folder.parent.is_dir():
            raise UserError(f"{said}: there is no folder {folder.parent}: make it first")
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"{said} is a file: name a folder that is not there yet")
        others = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{said}: {error.strerror}: name a folder that you may write in") from None
    if others and not is_export(folder):
        others = [name for name in others if name not in FILES] or others
        named = ", ".join(others[:_OTHERS]) + (", …" if len(others) > _OTHERS else "")
        raise UserError(
            f"{said} holds what is no export ({named}): name a folder that is not there yet, or an empty one"
        )
    if folder == Path.cwd():
        raise UserError(f"{said} is the folder that you are in: name one in it, which need not be there yet")


def _replace(folder: Path, partial: Path, said: str) -> None:
    """Put ``partial`` in the place of ``folder``; what was there stays if that fails."""
    _check(folder, said)  # again: meanwhile anything may have come there
    old = partial.with_suffix(".old")
    try:
        if folder.exists():
            folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise UserError(
            f"{said}: cannot put the export there ({error.strerror}): name a folder that is not there yet"
        ) from None
    with suppress(OSError):
        shutil.rmtree(old)
