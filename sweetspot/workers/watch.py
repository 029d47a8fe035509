"""``watch``: follow a study that runs elsewhere. It asks the database, and writes nothing into it."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

import optuna

from sweetspot.errors import RunError, UserError
from sweetspot.report.result import StudyResult
from sweetspot.report.watch import Look, answers_again, look_at, news, outage
from sweetspot.report.watch_view import WatchView
from sweetspot.store import Store
from sweetspot.store.inspection import exists
from sweetspot.store.outage import DatabaseDownError
from sweetspot.store.url import database_url, shown
from sweetspot.study.jobs import FAILED
from sweetspot.study.search import get_study
from sweetspot.workers.worker import has_work

_LONGEST_INTERVAL = 86400.0
_SHARE = 3.0
"""Reading a study of many trials takes its time: watching pauses at least so many times as long."""


def watch_study(
    name: str | None,
    view: WatchView,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    interval: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> StudyResult:
    """Show a study, and what is new every ``interval`` seconds, until nothing is left to be done.

    Raises:
        UserError: if there is no such study, or no such interval.
        RunError: if the search fails again and again, or the study is deleted.
        KeyboardInterrupt: on Ctrl-C.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not (math.isfinite(interval) and 0 < interval <= _LONGEST_INTERVAL):
        raise UserError(f"--interval {interval:g}: give seconds, more than 0 and at most {_LONGEST_INTERVAL:.0f}")
    if not exists(url := database_url(storage)):
        raise UserError(f"there is no study in {shown(url)}: start one with sweetspot optimize")
    with Store(storage, artifacts) as store:
        name = get_study(store, name).name
        with view:
            look = _follow(store, name, view, interval, sleep, now)
    ended = look.result.record.ended or ""
    if ended.startswith(FAILED):
        raise RunError(f"{ended}; see sweetspot trials {name}")
    return look.result


def _follow(
    store: Store,
    name: str,
    view: WatchView,
    interval: float,
    sleep: Callable[[float], None],
    now: Callable[[], datetime],
) -> Look:
    before: Look | None = None
    down_since: datetime | None = None
    while True:
        began, at = time.monotonic(), now()
        try:
            look = _look(store, name, at)
        except DatabaseDownError as error:
            if down_since is None:
                down_since = at
                view.show([outage(down_since, str(error))], None)
        else:
            again = [] if down_since is None else [answers_again(at, down_since)]
            view.show([*again, *news(before, look)], look)
            if look.is_done:
                return look
            before, down_since = look, None
        sleep(max(interval, _SHARE * (time.monotonic() - began)))


def _look(store: Store, name: str, at: datetime) -> Look:
    record = store.studies.get(name)
    if record is None:
        raise RunError(f"the study {name!r} was deleted")
    return look_at(store, name, at, has_work=has_work(store, record))
