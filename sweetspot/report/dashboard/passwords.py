"""The users of a dashboard: the auth file, and whether a password is right."""

import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

import bcrypt

from sweetspot.errors import UserError

_HASH = re.compile(r"\$2[abxy]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")  # a cost of 16 takes seconds, one of 31 a day
_LONGEST = 72
"""Bytes of a password that bcrypt reads."""


class Passwords:
    """Whether a user's password is right. From several threads at once.

    Args:
        hashes: bcrypt hashes by user.
    """

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self._hashes = dict(hashes)
        cost = max((value.split(b"$")[2] for value in self._hashes.values()), default=b"12")
        self._nobody = b"$2b$" + cost + b"$" + b"." * 53
        self._key = secrets.token_bytes(32)
        self._proven: dict[str, bytes] = {}

    def are_proven(self, user: str, password: bytes) -> bool:
        """Whether they have been right before: bcrypt's quarter of a second is paid once, not for each request."""
        return hmac.compare_digest(self._proven.get(user, b""), self._digest(user, password))

    def are_right(self, user: str, password: bytes) -> bool:
        """Ask bcrypt; an unknown user takes as long as a known one."""
        try:
            is_right = bcrypt.checkpw(password[:_LONGEST], self._hashes.get(user, self._nobody))
        except ValueError:  # bytes that no password can have
            return False
        if is_right and user in self._hashes:
            self._proven[user] = self._digest(user, password)
            return True
        return False

    def _digest(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._key, user.encode() + b"\0" + password, hashlib.sha256)


def read_auth_file(path: Path) -> dict[str, bytes]:
    """The bcrypt hashes of an auth file by user: lines of ``user:hash``; blank ones and those with # are left out.

    Raises:
        UserError: if it cannot be read, others may change it, or a line is something else. No line is ever quoted.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--auth-file: cannot read {path} ({error.strerror})") from None
    except ValueError:
        raise UserError(f"--auth-file: {path} is no text file") from None
    if mode & stat.S_IWOTH:
        raise UserError(f"--auth-file: every user of this machine may change {path}: chmod 600 {path}")
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, _, hashed = line.partition(":")
        if not user or not user.isprintable() or not _HASH.fullmatch(hashed):
            raise UserError(
                f"--auth-file: line {number} of {path} is not user:hash with a bcrypt hash (of cost 4 to 16): "
                "sweetspot dashboard --hash-password prints such lines"
            )
        if user in hashes:
            raise UserError(f"--auth-file: line {number} of {path} has the user {user!r} for the second time")
        hashes[user] = hashed.encode()
    if not hashes:
        raise UserError(f"--auth-file: {path} has no user: sweetspot dashboard --hash-password >> {path} adds one")
    return hashes


def is_readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)


def hash_line(user: str, password: str) -> str:
    """The line of an auth file.

    Raises:
        UserError: if it is no name of a user, or no password that bcrypt can hash.
    """
    if not user.strip() or user != user.strip() or ":" in user or user.startswith("#") or not user.isprintable():
        raise UserError(f"--user {user!r}: a user's name is printable, has no ':', and does not begin with '#'")
    try:
        secret = password.encode()
    except UnicodeEncodeError:
        raise UserError("the password is not UTF-8 text") from None
    if not secret or len(secret) > _LONGEST or not password.isprintable():
        raise UserError(f"a password has 1 to {_LONGEST} bytes of printable characters")
    return f"{user}:{bcrypt.hashpw(secret, bcrypt.gensalt()).decode()}"
