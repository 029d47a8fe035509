"""The dashboard as a WSGI application, and the server that runs it."""

import logging
from collections.abc import Collection, Mapping
from typing import Any
from wsgiref.types import WSGIApplication

import optuna_dashboard
import waitress
from bottle import HTTPError

from sweetspot.errors import UserError, unknown_name
from sweetspot.report.dashboard.access import OnlyUsers, only_hosts, only_own_pages, only_reading, with_safe_headers
from sweetspot.report.dashboard.hosts import Listener
from sweetspot.report.dashboard.passwords import Passwords
from sweetspot.report.dashboard.plugins import Details, NoRenaming, WideFigures
from sweetspot.report.dashboard.storage import ServedArtifacts, ServedStudies
from sweetspot.store import Store
from sweetspot.store.url import shown

_THREADS = 8
_LONGEST_BODY = 128 * 2**20  # bytes; what optuna-dashboard takes as an upload


def application(
    store: Store,
    hosts: Collection[str],
    *,
    study: str | None = None,
    users: Mapping[str, bytes] | None = None,
    read_only: bool = False,
) -> WSGIApplication:
    """optuna-dashboard on a store, behind all that :mod:`sweetspot.report.dashboard.access` asks of a request.

    Args:
        hosts: names that it answers to.
        study: show this one alone.
        users: bcrypt hashes by user; None: whoever comes is let in.
        read_only: refuse every request that may change something.
    """
    storage = ServedStudies(store, study, read_only=read_only)  # type: ignore[abstract]
    dashboard = optuna_dashboard.wsgi(storage, artifact_store=ServedArtifacts(store.artifacts))
    dashboard.default_error_handler = _line
    for plugin in (NoRenaming(), Details(storage), WideFigures()):
        dashboard.install(plugin)
    app = only_own_pages(dashboard)
    if read_only:
        app = only_reading(app)
    if users is not None:
        app = OnlyUsers(app, Passwords(users), checks=_THREADS // 2)
    return with_safe_headers(only_hosts(app, hosts))


def study_page(store: Store, study: str | None) -> str:
    """The path of a study's page; of the list of studies for None.

    Raises:
        UserError: if there is no such study.
    """
    if study is None:
        return "/dashboard"
    studies = ServedStudies(store).get_all_studies()  # type: ignore[abstract]
    known = {there.study_name: there._study_id for there in studies}
    if study in known:
        return f"/dashboard/studies/{known[study]}"
    if not known:
        raise UserError(f"there is no study {study!r} in {shown(store.url)}, nor any other")
    raise unknown_name("study", study, known)


def server_for(app: WSGIApplication, listener: Listener) -> Any:
    """A waitress server; its ``run()`` answers requests until the process is interrupted, and then returns."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a page's dozen requests at once are no news
    return waitress.create_server(
        app,
        sockets=listener.sockets,
        threads=_THREADS,
        ident=None,
        max_request_body_size=_LONGEST_BODY,
        clear_untrusted_proxy_headers=True,
    )


def _line(error: HTTPError) -> bytes:
    """The answer to a request that is no API's: one line instead of bottle's page."""
    error.content_type = "text/plain; charset=utf-8"
    body = error.body if error.status_code != 500 and isinstance(error.body, str) else "something went wrong here"
    return f"{body}\n".encode()
