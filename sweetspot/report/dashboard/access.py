"""What stands before a dashboard: WSGI applications that let a request through, or answer it with one line."""

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from sweetspot.report.dashboard.hosts import asked_for
from sweetspot.report.dashboard.passwords import Passwords

_log = logging.getLogger(__name__)
_READING = ("GET", "HEAD")
_WRONG_PER_MINUTE = 10
_ADDRESSES = 10_000


def only_hosts(app: WSGIApplication, names: Collection[str]) -> WSGIApplication:
    """Refuse a foreign Host header: a page elsewhere has had its name lead here, to read what it must not."""

    def checked(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        name = asked_for(environ.get("HTTP_HOST", ""))
        if name in names:
            return app(environ, start)
        if name is None:
            return answer(environ, start, "400 Bad Request", "the request does not say which host it is for")
        return answer(
            environ,
            start,
            "421 Misdirected Request",
            f"this dashboard does not answer to the name {name}: start it with --allow-host {name} if it should",
        )

    return checked


def only_own_pages(app: WSGIApplication) -> WSGIApplication:
    """Refuse changes that a page of another site asks for: the browser would send the user's password along."""

    def checked(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _READING and _is_foreign(environ):
            return answer(environ, start, "403 Forbidden", "a page of another site may change nothing here")
        return app(environ, start)

    return checked


def only_reading(app: WSGIApplication) -> WSGIApplication:
    """Refuse whatever is not GET or HEAD."""

    def checked(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _READING:
            return answer(environ, start, "403 Forbidden", "this dashboard is read-only")
        return app(environ, start)

    return checked


class OnlyUsers:
    """Ask for user and password (HTTP Basic).

    Guessing is slow: an address has ten wrong guesses a minute, and no more than ``checks`` passwords are checked at a
    time, so that threads are left for those who are in already.

    Args:
        checks: passwords that may be checked at the same time.
        clock: seconds.
    """

    def __init__(
        self, app: WSGIApplication, passwords: Passwords, checks: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._passwords = passwords
        self._free = threading.BoundedSemaphore(checks)
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}  # by address: since when, and how many
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        given = _credentials(environ.pop("HTTP_AUTHORIZATION", ""))
        if given is None:
            return _who_are_you(environ, start)
        if self._passwords.are_proven(*given):
            return self._app(environ, start)
        address = environ.get("REMOTE_ADDR", "")
        if self._has_guessed_enough(address):
            return _later(environ, start, 60)
        if not self._free.acquire(blocking=False):
            return _later(environ, start, 1)
        try:
            is_right = self._passwords.are_right(*given)
        finally:
            self._free.release()
        if is_right:
            return self._app(environ, start)
        self._count_wrong(address)
        _log.warning("wrong user or password from %s", address)
        return _who_are_you(environ, start)

    def _has_guessed_enough(self, address: str) -> bool:
        with self._lock:
            since, count = self._wrong.get(address, (0.0, 0))
            return count >= _WRONG_PER_MINUTE and self._clock() < since + 60

    def _count_wrong(self, address: str) -> None:
        with self._lock:
            now = self._clock()
            since, count = self._wrong.pop(address, (now, 0))
            self._wrong[address] = (since, count + 1) if now < since + 60 else (now, 1)
            if len(self._wrong) > _ADDRESSES:
                del self._wrong[next(iter(self._wrong))]


def with_safe_headers(app: WSGIApplication) -> WSGIApplication:
    """Responses that a browser cannot be tricked with: not framed, not guessed at, not read by other sites.

    What is not one of the dashboard's pages runs nothing and loads nothing, and artifacts are downloads: whoever may
    write to a study could otherwise leave a page there that acts as the reader.
    """

    def safe(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        # optuna-dashboard takes it for granted, and fails without.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")

        def start_safely(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            route = environ.get("bottle.route")
            is_artifact = route is not None and route.rule.startswith("/artifacts")
            return start(status, _safe(headers, is_artifact), exc_info)

        return app(environ, start_safely)

    return safe


def answer(
    environ: WSGIEnvironment, start: StartResponse, status: str, line: str, headers: Iterable[tuple[str, str]] = ()
) -> Iterable[bytes]:
    """One line of plain text; of JSON to the dashboard's script, which shows its reason."""
    is_api = environ.get("PATH_INFO", "").startswith("/api/")
    kind = "application/json" if is_api else "text/plain; charset=utf-8"
    body = f"{json.dumps({'reason': line}) if is_api else line}\n".encode()
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [body]


def _is_foreign(environ: WSGIEnvironment) -> bool:
    if site := environ.get("HTTP_SEC_FETCH_SITE"):  # browsers send it with https and to localhost
        return site not in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:  # no browser
        return False
    try:
        return urlsplit(origin).netloc.lower() != str(environ.get("HTTP_HOST", "")).lower()
    except ValueError:
        return True


def _credentials(header: str) -> tuple[str, bytes] | None:
    scheme, _, text = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon and scheme.lower() == "basic" else None
    except ValueError:
        return None


def _who_are_you(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    headers = [("WWW-Authenticate", 'Basic realm="sweetspot dashboard", charset="UTF-8"')]
    return answer(environ, start, "401 Unauthorized", "this dashboard wants a user and a password", headers)


def _later(environ: WSGIEnvironment, start: StartResponse, seconds: int) -> Iterable[bytes]:
    line = f"too many passwords are being tried: come back in {seconds} s"
    return answer(environ, start, "429 Too Many Requests", line, [("Retry-After", str(seconds))])


def _safe(headers: list[tuple[str, str]], is_artifact: bool) -> list[tuple[str, str]]:
    kept = {name.lower(): (name, value) for name, value in headers}
    kept.pop("access-control-allow-origin", None)  # artifacts have it: any page could read them
    policy = kept.pop("content-security-policy", ("", ""))[1]
    if not policy or is_artifact:
        policy = "sandbox; default-src 'none'"
    if "location" in kept:  # behind a proxy that speaks TLS, its http:// would be wrong
        target = urlsplit(kept["location"][1])
        kept["location"] = ("Location", target._replace(scheme="", netloc="").geturl())
    if is_artifact:
        kept["content-disposition"] = ("Content-Disposition", "attachment")
    return [
        *kept.values(),
        ("Content-Security-Policy", f"{policy}; frame-ancestors 'none'"),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]
