"""Who is let through to a dashboard, and with what a response is sent."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import optuna
import optuna_dashboard
import pytest
from optuna.storages import InMemoryStorage

from sweetspot.report.dashboard.access import OnlyUsers, answer
from sweetspot.report.dashboard.hosts import own_names
from sweetspot.report.dashboard.passwords import Passwords
from sweetspot.store import Store

from .conftest import Site, basic, filled_store, serving

ROUTES = sorted(
    {(route.method, re.sub("<[^>]*>", "1", route.rule)) for route in optuna_dashboard.wsgi(InMemoryStorage()).routes}
)
CHANGING = [route for route in ROUTES if route[0] != "GET"]
READING = [route for route in ROUTES if route[0] == "GET"]
PASSWORD = "correct horse battery"
USERS = {"ann": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with filled_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def site(store: Store) -> Iterator[Site]:
    with serving(store) as site:
        yield site


@pytest.fixture(scope="module")
def read_only(store: Store) -> Iterator[Site]:
    with serving(store, read_only=True) as site:
        yield site


@pytest.fixture(scope="module")
def guarded(store: Store) -> Iterator[Site]:
    """A dashboard with users."""
    with serving(store, users=USERS) as site:
        yield site


# -- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]"])
@pytest.mark.parametrize("port", ["", ":8080"])
def test_this_machine_may_be_called_by_its_names(site: Site, host: str, port: str) -> None:
    assert site.get("/api/meta", Host=host + port).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8080", "127.0.0.1.evil.example", "203.0.113.9"]
)
def test_a_foreign_host_is_refused_and_told_how_to_be_none(site: Site, host: str) -> None:
    said = site.get("/api/studies", Host=host)
    assert said.status == 421
    assert said.json["reason"].endswith(f"start it with --allow-host {host.removesuffix(':8080')} if it should")
    assert site.get("/dashboard", Host=host).body.decode() == said.json["reason"] + "\n"


@pytest.mark.parametrize("host", ["", "a b", "localhost:x", "localhost/", "ann@localhost", "<script>", "[::1", "::1"])
def test_what_is_no_host_is_refused_and_not_repeated(site: Site, host: str) -> None:
    said = site.get("/dashboard", Host=host)
    assert said.status == 400
    assert said.body == b"the request does not say which host it is for\n"


def test_a_host_that_is_allowed_is_answered(store: Store) -> None:
    with serving(store, hosts=own_names("127.0.0.1", ["dash.example.org"])) as site:
        assert site.get("/api/studies", Host="dash.example.org").status == 200
        assert site.get("/api/studies", Host="dash.example.org", X_Forwarded_Host="evil.example").status == 200
        assert site.get("/api/studies", Host="evil.example", X_Forwarded_Host="dash.example.org").status == 421


def test_redirections_stay_where_they_are(site: Site) -> None:
    for headers in ({}, {"X_Forwarded_Host": "evil.example"}):
        said = site.get("/", **headers)
        assert (said.status, said.headers["Location"]) == (302, "/dashboard")


# -- pages of other sites ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[evil"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_a_page_of_another_site_changes_nothing(
    site: Site, store: Store, method: str, path: str, headers: dict[str, str]
) -> None:
    before = optuna.get_all_study_names(store.database.storage)
    assert site.ask(method, path, {}, **headers).status == 403
    assert optuna.get_all_study_names(store.database.storage) == before


def test_the_dashboard_itself_and_programs_may_change_things(site: Site, store: Store) -> None:
    ways = {
        "page": {"Origin": f"http://127.0.0.1:{site.port}"},
        "page behind a proxy": {"Origin": "https://proxy.example", "Sec_Fetch_Site": "same-origin"},
        "program": {},
    }
    for way, headers in ways.items():
        asked = {"study_name": way, "directions": ["maximize"]}
        assert site.ask("POST", "/api/studies", asked, **headers).status == 201
        assert way in optuna.get_all_study_names(store.database.storage)


# -- read-only --------------------------------------------------------------------------------------------------------


def test_there_are_routes_that_change_something() -> None:
    assert len(CHANGING) >= 15
    assert ("DELETE", "/api/studies/1") in CHANGING


@pytest.mark.parametrize(("method", "path"), [*CHANGING, ("OPTIONS", "/api/studies"), ("BREW", "/dashboard")])
def test_read_only_refuses_whatever_may_change_something(read_only: Site, method: str, path: str) -> None:
    said = read_only.ask(method, path, {})
    assert said.status == 403
    assert "this dashboard is read-only" in said.body.decode()


def test_read_only_shows_all_there_is_and_reading_changes_nothing(read_only: Site) -> None:
    assert {"digits", "other/study"} <= set(read_only.listed())
    for method, path in READING:
        for asked in (method, "HEAD"):
            assert read_only.ask(asked, path).status in (200, 302, 400, 404), path  # 403: it would have written


# -- users ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_comes_in_without_a_password(guarded: Site, method: str, path: str) -> None:
    said = guarded.ask(method, path, {})
    assert said.status == 401
    assert said.headers["WWW-Authenticate"].startswith('Basic realm="')
    assert "this dashboard wants a user and a password" in said.body.decode()


@pytest.mark.parametrize(
    "given",
    [
        basic("ann", "wrong"),
        basic("ann", ""),
        basic("ann", PASSWORD + "x"),
        basic("ann", PASSWORD.upper()),
        basic("Ann", PASSWORD),
        basic("", PASSWORD),
        basic("bob", PASSWORD),
        basic("ann", "x" * 5000),
        basic("ann", "a\0b"),
        "Basic",
        "Basic YW5u",
        "Basic \xff",
        "Basic /////w==",
        f"Bearer {PASSWORD}",
        basic("ann", PASSWORD).replace("Basic", "Digest"),
    ],
)
def test_a_wrong_password_is_refused(store: Store, given: str) -> None:
    with serving(store, users=USERS) as guarded:
        assert guarded.get("/api/studies", Authorization=given).status == 401


def test_the_right_password_opens_and_stays_right(guarded: Site) -> None:
    for _ in range(3):
        assert guarded.get("/api/studies", Authorization=basic("ann", PASSWORD)).status == 200
        assert guarded.get("/api/studies", Authorization=basic("ann", "wrong")).status == 401
        assert guarded.get("/api/studies", Authorization=basic("bob", PASSWORD)).status == 401


class Gate:
    """Asks an ``OnlyUsers`` directly, at a time and from an address of the test's choosing."""

    def __init__(self, checks: int = 4) -> None:
        self.now = 1000.0
        self.passwords = Passwords(USERS)
        self.gate = OnlyUsers(
            lambda environ, start: answer(environ, start, "200 OK", ""), self.passwords, checks, lambda: self.now
        )

    def ask(self, password: str, address: str = "192.0.2.1") -> int:
        statuses: list[str] = []
        environ: dict[str, Any] = {"HTTP_AUTHORIZATION": basic("ann", password), "REMOTE_ADDR": address}
        self.gate(environ, lambda status, *_: statuses.append(status))  # type: ignore[arg-type, return-value]
        return int(statuses[0][:3])


def test_an_address_that_guesses_is_made_to_wait() -> None:
    gate = Gate()
    assert [gate.ask("wrong") for _ in range(12)] == [401] * 10 + [429] * 2
    assert gate.ask(PASSWORD) == 429, "or guessing would go on"
    assert gate.ask("wrong", "192.0.2.2") == 401
    assert gate.ask(PASSWORD, "192.0.2.2") == 200
    assert gate.ask(PASSWORD) == 200, "who has been in is not shut out by others' guesses"
    gate.now += 61
    assert gate.ask("wrong") == 401


def test_guesses_leave_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(checks=1)
    began, end = threading.Event(), threading.Event()
    check = gate.passwords.are_right

    def slow(user: str, password: bytes) -> bool:
        began.set()
        return end.wait(30) and check(user, password)

    monkeypatch.setattr(gate.passwords, "are_right", slow)
    guess = threading.Thread(target=gate.ask, args=("wrong",))
    guess.start()
    assert began.wait(30)
    assert gate.ask(PASSWORD, "192.0.2.2") == 429
    end.set()
    guess.join(30)
    assert gate.ask(PASSWORD, "192.0.2.2") == 200


# -- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/dashboard", "/static/bundle.js", "/api/studies", "/nowhere", "/csv/1"])
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_response_has_safe_headers(site: Site, path: str, host: str) -> None:
    headers = site.get(path, Host=host).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"].endswith("; frame-ancestors 'none'")
    assert "Server" not in headers


def test_a_page_may_run_its_own_script(site: Site) -> None:
    (policy,) = site.get("/dashboard").headers.get_all("Content-Security-Policy")
    assert "script-src 'self'" in policy
    assert "sandbox" not in policy


@pytest.mark.parametrize("of_trial", [False, True])
def test_an_artifact_is_a_download_that_runs_nothing(site: Site, store: Store, tmp_path: Path, of_trial: bool) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1)</script>")
    study = optuna.load_study(study_name="digits", storage=store.database.storage)
    owner = study.ask() if of_trial else study
    artifact = optuna.artifacts.upload_artifact(
        artifact_store=store.artifacts, file_path=str(page), study_or_trial=owner
    )
    path = f"/artifacts/{study._study_id}{f'/{owner._trial_id}' if of_trial else ''}/{artifact}"
    said = site.get(path)
    assert (said.status, said.body) == (200, page.read_bytes())
    assert said.headers["Content-Type"] == "text/html"
    assert said.headers.get_all("Content-Disposition") == ["attachment"]
    assert said.headers.get_all("Content-Security-Policy") == ["sandbox; default-src 'none'; frame-ancestors 'none'"]
    assert said.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in said.headers
    disguised = site.get(path.replace("artifacts", "artif%FFacts"))  # bottle leaves out what is not UTF-8
    assert disguised.headers.items() == said.headers.items() or disguised.status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/artifacts/1/../../../sweetspot-store",
        "/artifacts/1/..%2F..%2Fsweetspot-store",
        "/artifacts/1/%2e%2e/sweetspot-store",
        "/artifacts/1/1/..%2Fsweetspot-store",
        "/artifacts/1/sweetspot-store",
        "/artifacts/1/abc",
        "/artifacts/1/1/abc",
        "/artifacts/99/abc",
        "/artifacts/1/99/abc",
        "/static/../index.html",
        "/static/..%2F_app.py",
    ],
)
def test_nothing_else_can_be_fetched_as_an_artifact(site: Site, path: str) -> None:
    said = site.get(path)
    assert said.status in (403, 404)
    assert len(said.body) < 200
    assert said.body.count(b"\n") <= 1
