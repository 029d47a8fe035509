"""What optuna-dashboard reads from a study: notes and figures, in slices among its system attributes.

optuna-dashboard's own functions write each slice in a transaction of its own, so that whoever looks meanwhile gets half
of the new one and half of the old, and read all that the study carries before and after: a note of two lines at the end
of a trial would move megabytes. Here one transaction reads and writes what is asked for, and nothing else.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import optuna
from optuna.storages._rdb.models import StudySystemAttributeModel
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sweetspot.store import Store

_SLICE = 10_000
"""Characters; escaped as JSON they are up to 60,000 bytes, and MySQL's TEXT has 65,535."""

_Row = StudySystemAttributeModel
T = TypeVar("T")


def note_keys(trial_id: int | None) -> tuple[str, str]:
    """The keys of a note's version, and of its slices without their numbers; None: the study's note."""
    owner = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    return f"{owner}note_ver", f"{owner}note_str:"


def figure_key(name: str) -> str:
    """The key of a figure's slices, without their numbers."""
    return f"dashboard:plot_data:{name}:"


def artifact_path(trial: optuna.Trial, artifact: str) -> str:
    """Where a dashboard serves an artifact of a trial. Optuna-dashboard's own function imports scikit-learn with it."""
    return f"/artifacts/{trial.study._study_id}/{trial._trial_id}/{artifact}"


class Attributes:
    """The system attributes of one study, within a transaction."""

    def __init__(self, session: Session, study_id: int) -> None:
        self._session = session
        self._study = study_id

    def get(self, key: str) -> Any:
        """The value of one attribute; None where it is not there."""
        chosen = select(_Row.value_json).where(_Row.study_id == self._study, _Row.key == key)
        text = self._session.scalar(chosen.with_for_update())
        return None if text is None else json.loads(text)

    def set(self, key: str, value: Any) -> None:
        self._replace({key: json.dumps(value)}, self._there(_Row.key == key))

    def text(self, prefix: str) -> str:
        """The text in the slices of this key; empty where there are none."""
        slices = {key: value for key, (_, value) in self._slices(prefix).items()}
        return "".join(json.loads(slices[f"{prefix}{i}"]) for i in range(len(slices)) if f"{prefix}{i}" in slices)

    def set_text(self, prefix: str, text: str | None) -> None:
        """Replace the text in the slices of this key; None: remove them."""
        slices = {f"{prefix}{i}": json.dumps(part) for i, part in enumerate(_parts(text or ""))}
        self._replace(slices, self._slices(prefix))

    def _slices(self, prefix: str) -> dict[str, tuple[int, str]]:
        there = self._there(_Row.key.startswith(prefix, autoescape=True))
        return {key: row for key, row in there.items() if key.removeprefix(prefix).isdecimal()}

    def _there(self, condition: Any) -> dict[str, tuple[int, str]]:
        rows = self._session.execute(
            select(_Row.key, _Row.study_system_attribute_id, _Row.value_json)
            .where(_Row.study_id == self._study, condition)
            .with_for_update()
        )
        return {key: (number, value) for key, number, value in rows}

    def _replace(self, wanted: dict[str, str], there: dict[str, tuple[int, str]]) -> None:
        for key, (number, value) in there.items():
            chosen = _Row.study_system_attribute_id == number
            if key not in wanted:
                self._session.execute(delete(_Row).where(chosen))
            elif wanted[key] != value:
                self._session.execute(update(_Row).where(chosen).values(value_json=wanted[key]))
        new = [{"study_id": self._study, "key": k, "value_json": v} for k, v in wanted.items() if k not in there]
        if new:
            self._session.execute(insert(_Row), new)


def in_transaction(store: Store, study_id: int, work: Callable[[Attributes], T]) -> T:
    """``work``, done with a study's attributes as a whole, or not at all; again where another process did the same.

    Raises:
        DatabaseDownError: if the database does not answer for longer than this thread has patience.
    """

    def once() -> T:
        with store.database.session.begin() as session:
            return work(Attributes(session, study_id))

    def twice() -> T:
        try:
            return once()
        except IntegrityError:  # it has written the same key at this moment: now it is there
            return once()

    return store.database.outages.outlast(twice)


def _parts(text: str) -> Iterator[str]:
    for start in range(0, len(text), _SLICE):
        yield text[start : start + _SLICE]
