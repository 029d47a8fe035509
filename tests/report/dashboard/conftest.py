"""Dashboards that really listen, on a port that is free."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny_study import tiny_config
from waitress import wasyncore

from sweetspot.report.dashboard.hosts import listen, own_names
from sweetspot.report.dashboard.server import application, server_for
from sweetspot.store import Store


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """A dashboard that answers."""

    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """``headers``: with ``_`` for ``-``; ``Host="…"`` replaces the true one."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        content = b"" if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
        for name, value in (given | headers).items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(content)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def listed(self) -> list[str]:
        """The names of the studies that the dashboard lists."""
        return [study["study_name"] for study in self.get("/api/studies").json["study_summaries"]]


def basic(user: str, password: str) -> str:
    """The header that a browser sends after its user has typed these."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


Serve = Callable[..., Site]


@contextmanager
def filled_store(folder: Path) -> Iterator[Store]:
    """A store with the study "digits" (one trial), its confirmation, and somebody's "other/study"."""
    with Store(f"sqlite:///{folder}/study.db") as store:
        fill(store)
        yield store


def fill(store: Store) -> None:
    store.studies.add("digits", tiny_config(), "0" * 64)
    for name in ("digits", "digits/confirm", "other/study"):
        study = optuna.create_study(study_name=name, storage=store.database.storage, direction="maximize")
        study.optimize(lambda trial: trial.suggest_int("epochs", 1, 80) / 100, n_trials=1)


@contextmanager
def serving(store: Store, **given: Any) -> Iterator[Site]:
    """The store served as ``application`` is told to."""
    listener = listen("127.0.0.1", 0)
    given.setdefault("hosts", own_names("127.0.0.1"))
    server = server_for(application(store, **given), listener)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield Site(server.effective_port)
    with suppress(OSError):  # it may have closed itself at this moment
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
    thread.join(10)
    server.task_dispatcher.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with filled_store(tmp_path) as store:
        yield store


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda store, **given: stack.enter_context(serving(store, **given))


@pytest.fixture
def site(serve: Serve, store: Store) -> Site:
    """A dashboard without users on which everything is allowed."""
    return serve(store)
