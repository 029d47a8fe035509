"""Files that are written whole or not at all, to places that were looked at before the work began."""

import json
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweetspot.errors import RunError, UserError


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file that :func:`write_output` could not write.

    Args:
        suffixes: those that are known, in lower case, with their dots.

    Raises:
        UserError: if its suffix is another, or its folder is not there or cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        raise UserError(f"--output {path}: the suffix says what is written: {', '.join(suffixes)}")
    try:
        if not path.parent.is_dir():
            raise UserError(f"--output {path}: there is no folder {path.parent}")
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise UserError(f"--output {path} is a folder: name a file in it")
            if not stat.S_ISREG(mode):
                raise UserError(f"--output {path} is not a file: name another")
        os.close(os.open(_part(path), os.O_WRONLY | os.O_CREAT, 0o666))
        _part(path).unlink()
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}") from None


def write_output(path: Path, content: bytes, advice: str = "") -> None:
    """Write a file; what was there before stays until all of it is written.

    Args:
        advice: what the error says to do.

    Raises:
        RunError: if it cannot be written.
    """
    try:
        try:
            _part(path).write_bytes(content)
            _part(path).replace(path)
        finally:
            _part(path).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}{f'; {advice}' if advice else ''}") from None


def file_stem(name: str) -> str:
    """A study's name as that of a file: letters, digits, ".", "_" and "-"."""
    return re.sub(r"[^\w.]+", "-", name).strip(".-") or "study"


def json_file(value: Any) -> bytes:
    """Values as the content of a file; none of them may be a number that JSON has no word for."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _part(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}.part")
