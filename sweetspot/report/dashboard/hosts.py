"""The addresses a dashboard listens on, and the names that it answers to."""

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import psutil

from sweetspot.errors import UserError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.ASCII)
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@dataclass(frozen=True)
class Listener:
    """Sockets that are bound to one port and accept connections.

    Attributes:
        address: what to type into a browser, ``http://127.0.0.1:8080``.
    """

    sockets: list[socket.socket]
    address: str


def is_loopback(host: str) -> bool:
    """Whether ``--host`` is this machine alone.

    Raises:
        UserError: if there is no such host.
    """
    return all(ipaddress.ip_address(address).is_loopback for _, address in _addresses(host))


def listen(host: str, port: int) -> Listener:
    """Bind ``--host`` and ``--port``; port 0 takes one that is free.

    Raises:
        UserError: if the host is unknown or another machine's, or the port is taken.
    """
    sockets: list[socket.socket] = []
    with ExitStack() as undo:
        missing = None
        for family, address in _addresses(host):
            try:
                bound = undo.enter_context(socket.create_server((address, port), family=family))
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise _refused(host, port, error) from None
                missing = error  # localhost is ::1 too, even where the machine speaks no IPv6
                continue
            port = bound.getsockname()[1]
            sockets.append(bound)
        if not sockets:
            assert missing is not None
            raise _refused(host, port, missing)
        undo.pop_all()
    name = socket.gethostname() if _is_every_address(host) else host.strip("[]")
    return Listener(sockets, f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}")


def own_names(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """The names and addresses under which a dashboard that listens on ``host`` may be asked for.

    Args:
        allowed: further ones, of ``--allow-host``.

    Raises:
        UserError: if one of ``allowed`` is no name of a host.
    """
    names = {"localhost", "127.0.0.1", "::1", _canonical(host), *(address for _, address in _addresses(host))}
    for name in allowed:
        match = _HOST.fullmatch(name.lower())
        if match is None or match[1] != name.lower():
            raise UserError(f"--allow-host {name!r}: give the name that people type, such as dash.example.org")
        names.add(_canonical(name))
    if not is_loopback(host):
        names |= {_canonical(name) for name in (socket.gethostname(), socket.getfqdn())}
        if _is_every_address(host):
            found = [address for card in psutil.net_if_addrs().values() for address in card]
            names |= {_canonical(a.address) for a in found if a.family in (socket.AF_INET, socket.AF_INET6)}
    return frozenset(names)


def asked_for(header: str) -> str | None:
    """The host that a Host header names, without its port; None if it is no host."""
    match = _HOST.fullmatch(header.lower())
    return None if match is None else _canonical(match[1])


def _canonical(host: str) -> str:
    host = host.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return host


def _is_every_address(host: str) -> bool:
    return any(ipaddress.ip_address(address).is_unspecified for _, address in _addresses(host))


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise UserError(
            f"--host {host!r}: there is no such host; give 127.0.0.1, 0.0.0.0 or an address of this machine"
        )
    return list(dict.fromkeys((family, str(address[0]).partition("%")[0]) for family, _, _, _, address in found))


def _refused(host: str, port: int, error: OSError) -> UserError:
    match error.errno:
        case errno.EADDRINUSE:
            return UserError(f"--port {port} is in use on {host}: give another, or 0 for any that is free")
        case errno.EACCES:
            return UserError(f"--port {port} is not yours to use (ports below 1024 are the system's): give another")
        case code if code in _NO_SUCH_ADDRESS:
            return UserError(f"--host {host!r} is no address of this machine: give one of its own, or 0.0.0.0 for all")
        case _:
            return UserError(f"cannot listen on {host}, port {port}: {error.strerror}")
