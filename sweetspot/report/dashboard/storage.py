"""What a dashboard is given to serve: the studies that are listed, and the artifacts."""

import abc
import inspect
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

from bottle import HTTPError
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages._rdb.models import (
    StudyDirectionModel,
    StudyModel,
    StudySystemAttributeModel,
    StudyUserAttributeModel,
)
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from sqlalchemy import false, not_, or_, select, text, true
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from sweetspot.errors import RunError, UserError
from sweetspot.store import Artifacts, Store
from sweetspot.store.outage import DatabaseDownError

_log = logging.getLogger(__name__)
_LARGEST_ID = 2**31 - 1
"""Beyond it databases do not say that there is none, but fail."""
_FEW = 20
"""Notes that are asked for one by one."""

_IS_TRIAL_NOTE = StudySystemAttributeModel.key.like("dashboard:%:note\\_%", escape="\\") & not_(
    StudySystemAttributeModel.key.startswith("dashboard:plot_data:", autoescape=True)
)
"""Which system attributes are slices of trials' notes."""

C = TypeVar("C", bound=type[BaseStorage])


def _delegating(owner: C) -> C:
    """A storage that asks ``self._storage`` wherever it has no method of its own."""
    for name in dir(BaseStorage):
        if not name.startswith("_") and name not in vars(owner):
            setattr(owner, name, _delegate(name))
    abc.update_abstractmethods(owner)
    return owner


def _delegate(name: str) -> Callable[..., Any]:
    subject = [*inspect.signature(getattr(BaseStorage, name)).parameters, ""][1]

    def delegate(self: "ServedStudies", *args: Any, **kwargs: Any) -> Any:
        with self._answering():
            if subject:
                self._check(subject, args[0] if args else kwargs[subject])
            if not name.startswith(("get_", "check_", "remove_session")):
                self._check_writable()
            return getattr(self._storage, name)(*args, **kwargs)

    return delegate


@_delegating
class ServedStudies(BaseStorage):
    """The studies of a store without their companions, or one of them alone; others are not found.

    What goes wrong is raised as bottle's ``HTTPError``, whose one line is the answer to the request: 404 for what is
    not there, 503 while the database does not answer, 403 for changes where only reading is allowed.
    From several threads at once.

    Args:
        study: serve this one alone.
        read_only: let nothing be changed.
    """

    def __init__(self, store: Store, study: str | None = None, *, read_only: bool = False) -> None:
        self._store = store
        self._storage = store.database.storage
        self._study = study
        self._read_only = read_only
        self._is_down = False

    def get_all_studies(self) -> list[FrozenStudy]:
        """By creation. Without the notes of trials, which :meth:`trial_notes` gives: they are among the system
        attributes, and optuna-dashboard looks at each of these for each trial: 15 s for 2,000 trials."""
        with self._answering():
            studies = self._store.database.outages.outlast(self._frozen_studies)
            return [study for study in studies if self._is_shown(study.study_name)]

    def _frozen_studies(self) -> list[FrozenStudy]:
        directions: dict[int, list[StudyDirection]] = defaultdict(list)
        of = StudyDirectionModel
        with self._store.database.session() as session:
            studies = session.execute(select(StudyModel.study_id, StudyModel.study_name).order_by(StudyModel.study_id))
            names = {row.study_id: row.study_name for row in studies}
            for number, direction in session.execute(select(of.study_id, of.direction).order_by(of.objective)):
                directions[number].append(direction)
            user = _attributes(session, StudyUserAttributeModel, true())
            system = _attributes(session, StudySystemAttributeModel, not_(_IS_TRIAL_NOTE))
        return [
            FrozenStudy(name, None, user[number], system[number], number, directions=directions[number])
            for number, name in names.items()
        ]

    def trial_notes(self, study_id: int, trial_ids: Collection[int]) -> dict[int, dict[str, Any]]:
        """The notes of those of these trials that have one, as optuna-dashboard hands them to its page."""
        with self._answering():
            return self._store.database.outages.outlast(lambda: self._trial_notes(study_id, set(trial_ids)))

    def _trial_notes(self, study_id: int, trial_ids: set[int]) -> dict[int, dict[str, Any]]:
        of = StudySystemAttributeModel
        chosen: Any = _IS_TRIAL_NOTE
        if len(trial_ids) <= _FEW:
            chosen = or_(false(), *(of.key.startswith(f"dashboard:{number}:note") for number in trial_ids))
        versions: dict[int, int] = {}
        slices: dict[int, dict[int, str]] = defaultdict(dict)
        with self._store.database.session() as session:
            for key, value in session.execute(select(of.key, of.value_json).where(of.study_id == study_id, chosen)):
                if (match := re.fullmatch(r"dashboard:(\d+):note_(?:ver|str:(\d+))", key)) is None:
                    continue
                number, place = int(match[1]), match[2]
                if place is None:
                    versions[number] = json.loads(value)
                else:
                    slices[number][int(place)] = json.loads(value)
        return {
            number: {"version": version, "body": "".join(slices[number][i] for i in sorted(slices[number]))}
            for number, version in versions.items()
            if number in trial_ids
        }

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        with self._answering():
            self._check_writable()
            if study_name is None or not self._is_shown(study_name):
                raise HTTPError(403, "this dashboard would not show a study of that name")
            return self._storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """As ``sweetspot delete`` does: with its companions, and the networks that nothing else uses."""
        with self._answering():
            self._check("study_id", study_id)
            self._check_writable()
            record = self._store.studies.get(self._storage.get_study_name_from_id(study_id))
            if record is None:
                self._storage.delete_study(study_id)
                return
            from sweetspot.study.deletion import delete_study  # imports torch

            delete_study(self._store, record)

    def _check(self, subject: str, value: Any) -> None:
        """Raises KeyError for a study, or a trial of a study, that is not shown."""
        name = value
        if subject in ("study_id", "trial_id") and not 0 < value <= _LARGEST_ID:
            raise KeyError(subject)
        if subject == "trial_id":
            with self._store.database.session() as session:
                value = session.scalar(text("SELECT study_id FROM trials WHERE trial_id = :id"), {"id": value})
            if value is None:
                raise KeyError(subject)
        if subject in ("study_id", "trial_id"):
            name = self._storage.get_study_name_from_id(value)
        if not self._is_shown(name):
            raise KeyError(subject)

    def _check_writable(self) -> None:
        if self._read_only:
            raise HTTPError(403, "this dashboard is read-only")

    def _is_shown(self, name: str) -> bool:
        if self._study is not None:
            return name == self._study
        owner, slash, _ = name.partition("/")
        return not slash or self._store.studies.get(owner) is None

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except KeyError:
            raise HTTPError(404, "there is no such study or trial here") from None
        except (StorageInternalError, SQLAlchemyError, DatabaseDownError) as error:
            if not self._is_down:
                _log.warning("the database does not answer (%s); requests get 503", type(error).__name__)
            self._is_down = True
            raise HTTPError(503, "the database does not answer: try again later") from None
        except (RunError, UserError) as error:
            raise HTTPError(503, str(error)) from None
        if self._is_down:
            _log.warning("the database answers again")
        self._is_down = False


def _attributes(session: Session, table: Any, chosen: Any) -> dict[int, dict[str, Any]]:
    """The attributes in one of Optuna's tables by study."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for number, key, value in session.execute(select(table.study_id, table.key, table.value_json).where(chosen)):
        found[number][key] = json.loads(value)
    return found


class ServedArtifacts:
    """The artifacts as an Optuna ``ArtifactStore``; an artifact that cannot be read is an answer, not a traceback."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def open_reader(self, artifact_id: str) -> BinaryIO:
        with _artifacts_answering():
            try:
                return self._artifacts.open_reader(artifact_id)
            except ArtifactNotFound:
                raise HTTPError(404, "there is no such artifact") from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        with _artifacts_answering():
            self._artifacts.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Harmless for one that is gone: optuna-dashboard could not delete its study otherwise."""
        with _artifacts_answering(), suppress(ArtifactNotFound):
            self._artifacts.remove(artifact_id)


@contextmanager
def _artifacts_answering() -> Iterator[None]:
    try:
        yield
    except (HTTPError, ArtifactNotFound):
        raise
    except Exception as error:  # each file system of fsspec has its own
        _log.warning("an artifact cannot be read or written (%s)", type(error).__name__)
        raise HTTPError(503, "the artifacts cannot be read or written: try again later") from None
