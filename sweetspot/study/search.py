"""A study in the storage: created or continued, found by its name, and counted."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.data.study_data import StudyData
from sweetspot.errors import UserError, unknown_name
from sweetspot.store import Store, StudyRecord
from sweetspot.store.url import shown

CONFIRM = "/confirm"
"""What the name of a study's confirmation ends in."""

METRIC = "student accuracy"
"""What dashboards call a trial's value."""

GIVEN_BACK = "given_back"
"""The user attribute of a failed trial whose parameters are queued again (:mod:`sweetspot.study.lost`), and why."""


BEFORE = "trials_before"
"""The user attribute of a study with the number of trials it had when it was created or last continued."""

TASK = "task"
"""The user attribute of a companion's trial: what it does, as JSON (:mod:`sweetspot.study.tasks`)."""

CONTINUED = "continued"
"""The user attribute of a study with how often it was created or continued."""

REPLACED = "another took its place"
"""The value of :data:`GIVEN_BACK` in trials that are not queued again."""


TEST_EXPORTED = "test_exported"
"""The user attribute of a study whose students' test accuracies were written to a table."""

OUT_OF_MEMORY = "out_of_memory"
"""The user attribute of an infeasible trial whose teacher's steps do not fit in memory, whatever the epochs."""


def is_given_back(trial: FrozenTrial) -> bool:
    """Whether a trial has failed and its parameters are queued again: it is as if it had not been."""
    return trial.state == TrialState.FAIL and GIVEN_BACK in trial.user_attrs


@dataclass(frozen=True)
class Counts:
    """The trials of a study by what became of them; those given back are none of these."""

    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial]) -> "Counts":
        states = [t.state for t in trials if not is_given_back(t)]
        return cls(
            complete=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            running=states.count(TrialState.RUNNING),
            waiting=states.count(TrialState.WAITING),
        )

    @property
    def finished(self) -> int:
        return self.complete + self.pruned


def is_finished(record: StudyRecord, trials: Iterable[FrozenTrial]) -> bool:
    """Whether the search asks for no further trial."""
    return record.ended is not None or Counts.of(trials).finished >= record.config.search.trials


def check_name(name: str) -> None:
    """Refuse what cannot be a study's name.

    Raises:
        UserError: if it is empty, too long, or has a "/", which is kept for companions.
    """
    if not name.strip() or "/" in name or len(name) > 200 or not name.isprintable():
        raise UserError(f"--name {name!r}: a study's name has 1 to 200 printable characters and no '/'")


def create_or_continue(store: Store, name: str, config: StudyConfig, data: StudyData) -> StudyRecord:
    """The study of this name: new, or the one that is there with the new values of what may change.

    Args:
        config: with every "auto" resolved.
        data: its content identifies the data.

    Raises:
        UserError: if the name belongs to a study with another configuration or other data, or to somebody else's.
    """
    there = store.studies.get(name)
    if there is None:
        is_taken = store.database.has_study(name)
        there = store.studies.get(name)  # again: another process may have created it between the two looks
        if there is None and is_taken:
            raise UserError(
                f"{shown(store.url)} has an Optuna study {name!r} that is not Sweetspot's: give another --name"
            )
        store.studies.add(name, config, data.hash)
        there = store.studies.get(name)
        assert there is not None
    if different := there.config.differences(config):
        raise UserError(
            f"the study {name!r} exists with another configuration: {'; '.join(different)}. "
            "Give another --name, or delete it with sweetspot delete"
        )
    if there.data_hash != data.hash:
        raise UserError(
            f"the study {name!r} was made with other images: its data has the hash {there.data_hash[:12]}, "
            f"this copy {data.hash[:12]}. Give another --name, or the right --data"
        )
    store.studies.set_config(name, config)
    store.studies.set_ended(name, None)
    study = open_study(store, name, METRIC)
    study.set_user_attr("dataset", config.data.dataset)
    study.set_user_attr("train_images", data.train_images)
    study.set_user_attr("classes", list(data.classes))
    study.set_user_attr("images", {"channels": data.channels, "size": data.image_size})
    study.set_user_attr("normalisation", {"mean": data.normalisation.mean, "std": data.normalisation.std})
    study.set_user_attr(BEFORE, len(study.get_trials(deepcopy=False)))
    study.set_user_attr(CONTINUED, study.user_attrs.get(CONTINUED, 0) + 1)
    if store.database.has_study(name + CONFIRM):
        companion = load(store, name + CONFIRM)
        companion.set_user_attr(BEFORE, len(companion.get_trials(deepcopy=False)))
    record = store.studies.get(name)
    assert record is not None
    return record


def open_study(store: Store, name: str, metric: str) -> optuna.Study:
    """The Optuna study of this name, created where it is missing; ``metric`` is what dashboards call its value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=name, storage=store.database.storage, direction="maximize", load_if_exists=True
        )
        study.set_metric_names([metric])
    return study


def get_study(store: Store, name: str | None) -> StudyRecord:
    """The study of this name, or the only one there is.

    Raises:
        UserError: if there is none, or the name is left out and there are several.
    """
    known = {record.name: record for record in store.studies.all()}
    if name is None:
        if len(known) == 1:
            return next(iter(known.values()))
        if not known:
            raise UserError(f"there is no study in {shown(store.url)}: start one with sweetspot optimize")
        raise UserError(f"which study? {shown(store.url)} has {', '.join(known)}")
    if name in known:
        return known[name]
    if not known:
        raise UserError(f"there is no study {name!r} in {shown(store.url)}, nor any other")
    raise unknown_name("study", name, known)


def load(store: Store, name: str) -> optuna.Study:
    """The Optuna study of a name that exists; made good where a process died between our row and Optuna's."""
    try:
        return optuna.load_study(study_name=name, storage=store.database.storage)
    except KeyError:
        return open_study(store, name, METRIC)


def companions(store: Store, name: str) -> list[str]:
    """The names of a study's companions (its confirmation), which are hidden from listings."""
    return store.database.study_names(f"{name}/")


def failures_in_a_row(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The last trials that finished, as long as they failed or were infeasible; latest first."""
    ended = [t for t in trials if t.state.is_finished() and not is_given_back(t)]
    row = []
    for trial in sorted(ended, key=lambda t: t.datetime_complete or datetime.min, reverse=True):
        if trial.state != TrialState.FAIL and "infeasible" not in trial.user_attrs:
            break
        row.append(trial)
    return row
