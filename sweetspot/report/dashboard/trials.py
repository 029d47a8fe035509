"""What a trial carries for the dashboard: a note with its numbers, and pictures as artifacts."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
from optuna.artifacts import upload_artifact

from sweetspot.report.dashboard.attributes import Attributes, artifact_path, in_transaction, note_keys
from sweetspot.report.dashboard.note import merged
from sweetspot.report.notes import trial_note
from sweetspot.store import Store
from sweetspot.store.outage import DatabaseDownError
from sweetspot.study.findings import Findings
from sweetspot.timing import span

_log = logging.getLogger(__name__)

CURVES = "The students along their epochs"
SIMILARITY = "What the teacher says of other classes"


def describe_trial(store: Store, trial: optuna.Trial, findings: Findings) -> None:
    """Write a trial's note, and add its pictures, while it can still be written to.

    A picture that cannot be drawn or stored is left out with a warning.

    Raises:
        UpdateFinishedTrialError: if the trial has been taken away meanwhile.
        DatabaseDownError: if the database does not answer.
    """
    with span("dashboard"), TemporaryDirectory(prefix="sweetspot-") as folder:
        pictures = dict(_uploaded(store, trial, findings, Path(folder)))
    text = trial_note(findings, pictures)
    version, body = note_keys(trial._trial_id)

    def write(attributes: Attributes) -> None:
        attributes.set_text(body, merged(attributes.text(body), text, is_first=True))
        attributes.set(version, (attributes.get(version) or 0) + 1)

    in_transaction(store, trial.study._study_id, write)


def _uploaded(store: Store, trial: optuna.Trial, findings: Findings, folder: Path) -> Iterator[tuple[str, str]]:
    """Caption and address of each picture."""
    for caption, name, draw in _pictures(findings):
        try:
            path = folder / name
            path.write_bytes(draw())
            # Its row comes before its file: a file without a row would be found by nobody, and stay for ever.
            artifact = upload_artifact(artifact_store=store.artifacts, file_path=str(path), study_or_trial=trial)
        except (optuna.exceptions.UpdateFinishedTrialError, DatabaseDownError):
            raise
        except Exception as error:  # of matplotlib, or whatever each file system of fsspec has
            _log.warning("trial %d has no picture %s: %s: %s", trial.number, name, type(error).__name__, error)
        else:
            yield caption, artifact_path(trial, artifact)


def _pictures(findings: Findings) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Caption, file name, and what draws it."""
    from sweetspot.report.pictures import curves_picture, similarity_picture  # imports matplotlib, once a process

    if findings.students:
        yield CURVES, "students.png", lambda: curves_picture(findings.students)
    similarity = findings.similarity
    if similarity is not None:
        yield (
            SIMILARITY,
            "class-similarity.png",
            lambda: similarity_picture(similarity, findings.classes, findings.temperature),
        )
