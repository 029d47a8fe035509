"""What a study carries for the dashboard, figures and a note, and how workers keep it current."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.storages._rdb.models import StudyModel, TrialModel
from optuna.trial import TrialState
from sqlalchemy import func, select

from sweetspot.report.dashboard.attributes import Attributes, figure_key, in_transaction, note_keys
from sweetspot.report.dashboard.note import merged
from sweetspot.store import Leases, Store
from sweetspot.timing import span

if TYPE_CHECKING:  # a dashboard that has nothing to write loads no torch
    from sweetspot.report.result import StudyResult

_log = logging.getLogger(__name__)

LARGEST_FIGURE = 200_000
"""Bytes of JSON: every browser that shows a study reads all its figures again and again."""

FIGURE_NAMES = ("map", "entropy", "tradeoff", "steps", "cost", "confirm")
"""Of :data:`sweetspot.report.figures.catalogue.FIGURES`, in the order in which a study shows them."""

_FORMAT = 1
"""Rises when something else is written of the same study."""
_STATE = "sweetspot:contents"
_SECONDS = 30.0
"""Between two publications of a study, by whatever workers, while it runs; longer where they take long."""
_SHARE = 0.02
"""Of a worker's time, at most."""
_ENDING_SECONDS = 120.0
"""A worker that ends waits so long for another that is publishing at this moment."""


def figure_id(name: str) -> str:
    """What a figure is known by in a study."""
    return f"sweetspot-{name}"


@dataclass(frozen=True)
class _State:
    """Of what a study carries.

    Attributes:
        at: when it was written, by the clock of the worker that did, in seconds since 1970.
        seconds: that took.
        of: what it was made of.
    """

    at: float
    seconds: float
    of: str


def publish(store: Store, name: str, clock: Callable[[], float] = time.time) -> None:
    """Write a study's figures and its note, as it stands. One that nobody may write to any more says nothing of it.

    A figure that has nothing to show is taken away; one that cannot be drawn stays as it was, with a warning.

    Raises:
        UserError: if there is no such study.
        DatabaseDownError: if the database does not answer.
    """
    from sweetspot.report.notes import study_note
    from sweetspot.report.result import read_result

    began = time.monotonic()
    of = _made_of(store, name)
    result = read_result(store, name, with_curves=True)
    figures = _figures(result)
    now = clock()
    text = study_note(result, store.url, store.artifacts_url, datetime.fromtimestamp(now).astimezone())
    version, body = note_keys(None)

    def write(attributes: Attributes) -> None:
        for figure, json_text in figures.items():
            attributes.set_text(figure_key(figure_id(figure)), json_text)
        attributes.set_text(body, merged(attributes.text(body), text, is_first=attributes.get(_STATE) is None))
        # A version that rises would refuse what somebody has been writing meanwhile.
        attributes.set(version, attributes.get(version) or 1)
        attributes.set(_STATE, asdict(_State(now, time.monotonic() - began, of)))

    in_transaction(store, _study_id(store, name), write)


def is_current(store: Store, name: str) -> bool:
    """Whether what a study carries is made of all that is there."""
    there = _state(store, name)
    return there is not None and there.of == _made_of(store, name)


def bring_up_to_date(store: Store, name: str | None = None) -> None:
    """Publish what is not current, of one study or of all: a last worker that was killed may have left it so.

    What goes wrong is logged.
    """
    try:
        names = [record.name for record in store.studies.all() if name in (None, record.name)]
        for each in names:
            if not is_current(store, each):
                publish(store, each)
    except Exception as error:
        _log.warning("the dashboard's figures are not up to date: %s: %s", type(error).__name__, error)


class Contents:
    """Keeps what one study carries current while this process works at it. Nothing that goes wrong is raised.

    Args:
        leases: so that one worker publishes at a time.
        clock: seconds since 1970.
        sleep: while another worker is publishing.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        leases: Leases,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._name = name
        self._leases = leases
        self._clock = clock
        self._sleep = sleep
        self._not_before = clock() + _SECONDS  # at first there is nothing to be seen

    def refresh(self) -> None:
        """Publish if nobody has for a while, and nobody does at this moment."""
        now = self._clock()
        if now < self._not_before:
            return
        try:
            there = _state(self._store, self._name)
            if there is not None:
                pause = max(_SECONDS, there.seconds / _SHARE)
                # Clocks differ between machines: what lies in the future tells nothing.
                if 0 <= now - there.at < pause:
                    self._not_before = min(there.at + pause, now + _SECONDS)
                    return
                if there.of == _made_of(self._store, self._name):
                    return
            self._publish()
        except Exception as error:
            self._warn(error)

    def finish(self, *, may_wait: bool = True) -> None:
        """Publish, unless what is there is current; after whoever is publishing at this moment.

        Args:
            may_wait: False: leave it to them.
        """
        waited = 0.0
        try:
            while not is_current(self._store, self._name) and not self._publish():
                if not may_wait or waited > _ENDING_SECONDS:
                    return
                self._sleep(0.5)
                waited += 0.5
        except Exception as error:
            self._warn(error)

    def _publish(self) -> bool:
        """Whether it could: not while another worker does."""
        lease = self._leases.acquire(f"dashboard/{self._name}")
        if lease is None:
            return False
        with lease, span("dashboard"):
            publish(self._store, self._name, self._clock)
        return True

    def _warn(self, error: Exception) -> None:
        self._not_before = self._clock() + _SECONDS
        if not isinstance(error, KeyError):  # the study was deleted: its workers say so
            _log.warning("the dashboard's figures were not written: %s: %s", type(error).__name__, error)


def _figures(result: "StudyResult") -> dict[str, str | None]:
    """The JSON of each figure; None for one that has nothing to show, or is too large."""
    from sweetspot.report.figures.catalogue import FIGURES
    from sweetspot.report.figures.plotly import plotly_values
    from sweetspot.report.figures.spec import NothingToShow

    found: dict[str, str | None] = {}
    for name in FIGURE_NAMES:
        try:
            text = _small_enough(plotly_values(FIGURES[name](result)))
        except NothingToShow:
            found[name] = None
        except Exception as error:
            _log.warning("the figure %r of %r was not drawn: %s: %s", name, result.name, type(error).__name__, error)
        else:
            found[name] = text
            if text is None:
                _log.warning("the figure %r of %r is too large, and is left out", name, result.name)
    return found


def _small_enough(values: dict[str, Any]) -> str | None:
    """A figure's JSON: of a very large one without what is said of each mark; None if it is too large even so."""
    from sweetspot.report.figures.plotly import plotly_json

    layout = {key: value for key, value in values["layout"].items() if key != "height"}
    layout["autosize"] = True  # as high as there is room for
    text = plotly_json({"data": values["data"], "layout": layout})
    if len(text.encode()) > LARGEST_FIGURE:
        said = ("hovertext", "customdata", "text")
        bare = [{k: v for k, v in trace.items() if k not in said} | {"hoverinfo": "skip"} for trace in values["data"]]
        text = plotly_json({"data": bare, "layout": layout})
    return text if len(text.encode()) <= LARGEST_FIGURE else None


def _state(store: Store, name: str) -> _State | None:
    value: Any = in_transaction(store, _study_id(store, name), lambda attributes: attributes.get(_STATE))
    return None if value is None else _State(**value)


def _made_of(store: Store, name: str) -> str:
    """Of what the contents are made, in short: it changes with every trial that finishes."""
    record = store.studies.get(name)

    def count() -> list[Any]:
        with store.database.session() as session:
            rows = session.execute(
                select(StudyModel.study_name, TrialModel.state, func.count())
                .join(TrialModel, TrialModel.study_id == StudyModel.study_id)
                .where((StudyModel.study_name == name) | StudyModel.study_name.startswith(f"{name}/", autoescape=True))
                .where(TrialModel.state.in_((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)))
                .group_by(StudyModel.study_name, TrialModel.state)
            )
            return sorted([study, state.name, number] for study, state, number in rows)

    ended, config = (None, "") if record is None else (record.ended, record.config.to_json())
    return json.dumps([_FORMAT, store.database.outages.outlast(count), ended, _digest(config)])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _study_id(store: Store, name: str) -> int:
    return store.database.storage.get_study_id_from_name(name)
