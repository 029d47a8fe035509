"""Addresses to listen on, and names to answer to."""

import socket
from urllib.parse import urlsplit

import pytest

from sweetspot.errors import UserError
from sweetspot.report.dashboard.hosts import asked_for, is_loopback, listen, own_names


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    assert own_names(host) == {"localhost", "127.0.0.1", "::1", host.strip("[]")}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "0"])
def test_more_than_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_on_every_address_the_machine_answers_to_all_of_its_names() -> None:
    names = own_names("0.0.0.0", ["Dash.Example.ORG", "192.0.2.1", "[2001:db8::0:1]"])
    assert {"localhost", "127.0.0.1", "dash.example.org", "192.0.2.1", "2001:db8::1"} <= names
    assert socket.gethostname().lower() in names


@pytest.mark.parametrize(
    "name", ["", "*", "*.example.org", "http://a.example", "a.example:80", "a/b", "a b", "ä.example"]
)
def test_what_is_no_name_of_a_host(name: str) -> None:
    with pytest.raises(UserError, match=r"--allow-host .*dash\.example\.org"):
        own_names("127.0.0.1", [name])


@pytest.mark.parametrize("host", ["", "*", "no.such.host.invalid", "a b", "256.0.0.1", "x" * 300, "127.0.0.1:80"])
def test_a_host_that_there_is_not(host: str) -> None:
    with pytest.raises(UserError, match="there is no such host"):
        is_loopback(host)


def test_a_port_in_use() -> None:
    taken = listen("127.0.0.1", 0)
    port = urlsplit(taken.address).port
    assert port
    with pytest.raises(UserError, match=f"--port {port} is in use on 127.0.0.1"):
        listen("127.0.0.1", port)
    for bound in taken.sockets:
        bound.close()


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("127.1.2.3", "127.1.2.3"), ("0.0.0.0", socket.gethostname())]
)
def test_the_address_that_is_shown_is_answered(host: str, shown: str) -> None:
    listener = listen(host, 0)
    assert listener.address == f"http://{shown}:{listener.sockets[0].getsockname()[1]}"
    assert asked_for(urlsplit(listener.address).netloc) in own_names(host)
    for bound in listener.sockets:
        bound.close()


def test_another_machines_address() -> None:
    with pytest.raises(UserError, match="is no address of this machine"):
        listen("192.0.2.1", 0)


def test_all_sockets_of_a_name_have_one_port() -> None:
    listener = listen("localhost", 0)
    assert {bound.getsockname()[1] for bound in listener.sockets} == {urlsplit(listener.address).port}
    for bound in listener.sockets:
        bound.close()


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("Localhost:80", "localhost"), ("[::1]:80", "::1"), ("[0::1]", "::1"), ("a.example.", "a.example"),
        ("", None), (":80", None), ("a:", None), ("a:b", None), ("[]", None), ("a,b", None), ("a\n", None),
    ],
)  # fmt: skip
def test_the_host_of_a_header(header: str, host: str | None) -> None:
    assert asked_for(header) == host
