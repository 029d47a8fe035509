"""``export``: the best point's teacher and a student of it as files that need no study to be loaded."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console
from rich.text import Text
from torch import nn

from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.models import build, count_parameters
from sweetspot.models.exported import CARD, CONFIG, WEIGHTS, load_student, load_teacher
from sweetspot.report.card import card
from sweetspot.report.exported import ExportedWeights, about
from sweetspot.report.result import StudyResult, read_result
from sweetspot.store import Store, Student
from sweetspot.store.artifacts import DamagedBlobError
from sweetspot.store.students import student_run
from sweetspot.store.url import data_folder
from sweetspot.student.distillation import TrainedStudent, correctness
from sweetspot.study.ranking import Ranked
from sweetspot.study.space import AnyPoint
from sweetspot.study.visit import Visit, distillation_at
from sweetspot.study.workplace import Workplace, registered
from sweetspot.training.device import devices, prepare
from sweetspot.training.engine import DivergedError, OutOfMemoryError, memory_errors
from sweetspot.training.weights import load_weights, to_bytes
from sweetspot.workers.pulse import Pulse
from sweetspot.workers.whole_folder import whole_folder


@dataclass(frozen=True)
class Exported:
    """An export that was written.

    Attributes:
        values: of its ``config.json``.
    """

    folder: Path
    values: dict[str, Any]


def export(
    name: str | None,
    folder: Path,
    console: Console,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
) -> Exported:
    """Export the best point of a study, or of the only one there is; the folder is complete, or as it was.

    What the store has lost of the two networks is trained again, and ``console`` is told.

    Raises:
        UserError: if the study, the storage, the data or the device is not to be had, the data is other data, or the
            folder must not be replaced.
        RunError: if no trial has finished, or a network that was lost cannot be trained again.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen, *others = devices(device)
    if others and "," in device:
        raise UserError(f"--device {device}: give one")
    with whole_folder(folder, "--output") as partial, Store(storage, artifacts) as store:
        result = read_result(store, name)
        best = result.best
        if best is None:
            raise RunError(f"the study {result.name!r} has no finished trial yet: see sweetspot status {result.name}")
        prepared = prepare(chosen, result.config.run)
        images = load_study_data(result.config, data or data_folder(), prepared)
        _check_data(result, images)
        with _workplace(store, result, images, prepared, chosen, console) as workplace:
            values = _write(partial, result, best, workplace)
    return Exported(folder, values)


def _check_data(result: StudyResult, data: StudyData) -> None:
    if data.hash != result.record.data_hash:
        raise UserError(
            f"the study {result.name!r} was made with other images: its data has the hash "
            f"{result.record.data_hash[:12]}, the copy here {data.hash[:12]}; give the right --data"
        )


@contextmanager
def _workplace(
    store: Store, result: StudyResult, data: StudyData, prepared: torch.device, device: str, console: Console
) -> Iterator[Workplace]:
    """This process as a worker, while it may have to train."""
    run = result.config.run
    told: set[str] = set()

    def progress(phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
        pulse.progress(phase, point, epoch, similarity_entropy)
        if phase not in told:
            console.print(Text(_LOST.get(phase, _WAITING).format(study=result.name)), soft_wrap=True)
        told.add(phase)

    with (
        registered(store, device, run) as leases,
        Pulse(store, leases.owner, run.heartbeat_seconds / 3) as pulse,
    ):
        pulse.begin(result.name, data.train_images)
        yield Workplace(result.name, store, leases, data, prepared, progress)


_LOST = {
    "teacher": "the teacher's weights are not in the store any more: training it again",
    "student": "the student's weights are not in the store any more: training it again",
}
_WAITING = "the teacher's weights are not in the store any more, and another worker is training it: waiting"


def _write(folder: Path, result: StudyResult, best: Ranked, workplace: Workplace) -> dict[str, Any]:
    """Write all files; the values of ``config.json``."""
    visit = Visit(result.config, best.point, workplace)
    student = chosen_student(workplace.store, result, best)
    with _failures(result):
        teacher = _teacher(visit, result, workplace)
        taught = _student(visit, student, workplace)
    values = about(result, best, student, workplace.data, teacher, taught)
    _save(folder / WEIGHTS["teacher"], teacher.content)
    _save(folder / WEIGHTS["student"], taught.content)
    _save(folder / CONFIG, f"{json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode())
    _save(folder / CARD, card(values).encode())
    for load in (load_teacher, load_student):
        load(folder)  # what cannot be loaded again is no export
    return values


def _save(path: Path, content: bytes) -> None:
    """Write a file; durable when it returns."""
    try:
        with open(path, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"--output: cannot write {path.name} ({error.strerror}): make room, or name another folder"
        ) from None


def chosen_student(store: Store, result: StudyResult, best: Ranked) -> Student:
    """The student that is exported: the highest validation accuracy, the lowest replicate of equals.

    Of the confirmation's fresh students where there are such of this teacher, otherwise of the search's; never by the
    test split.
    """
    students = list(best.students)
    if result.confirmation is not None and result.confirmation.plan.claim == "this teacher":
        plan = result.confirmation.plan
        key = distillation_at(result.config, result.record.data_hash, plan.best).hash
        rows = store.students.of([key], "confirm", plan.test_hash).get(key, [])
        students = [row for row in rows if row.replicate < plan.seeds]
    return max(students, key=lambda s: (s.accuracy, -s.replicate))


# -- the two networks -------------------------------------------------------------------------------------------------


def _teacher(visit: Visit, result: StudyResult, workplace: Workplace) -> ExportedWeights:
    recorded = result.best_measures["teacher_accuracy"]
    teacher = visit.teacher()
    return ExportedWeights(
        content=to_bytes(teacher.state_dict()),
        parameters=sum(p.numel() for p in teacher.parameters()),
        accuracy=_accuracy(teacher, workplace.data, visit.config.teacher.precision),
        recorded=recorded,
        is_trained_again=visit.epochs_trained > 0,
        is_same=visit.epochs_trained == 0,
    )


def _student(visit: Visit, student: Student, workplace: Workplace) -> ExportedWeights:
    content, is_same = _stored(student, workplace.store), True
    is_trained_again = content is None
    if content is None:
        trained = visit.distilled(student.purpose, [student.replicate])[0]
        content, is_same = trained.weights, _is_same(trained, student)
        _keep(workplace.store, student, content if is_same else None)
    config, data = visit.config.student, workplace.data
    with torch.random.fork_rng(devices=[]):
        model = build(config.model, classes=len(data.classes), channels=data.channels, image_size=data.image_size)
    parameters = count_parameters(model)
    load_weights(model, content)
    model.to(workplace.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    accuracy = _accuracy(model, data, config.precision)
    return ExportedWeights(content, parameters, accuracy, student.accuracy, is_trained_again, is_same)


def _stored(student: Student, store: Store) -> bytes | None:
    """A student's weights; None where they are lost, which is noted."""
    if not student.weights:
        return None
    try:
        return store.artifacts.get(student.weights)
    except DamagedBlobError:
        store.students.forget_weights(student.weights)
        return None


def _is_same(trained: TrainedStudent, student: Student) -> bool:
    """Whether a student that was trained again has trained as it did, epoch for epoch."""
    return student.curve == {"loss": list(trained.losses), "accuracy": list(trained.accuracies)}


def _keep(store: Store, student: Student, content: bytes | None) -> None:
    """Put back what was lost, where it is the same; the row stays what it is where it is not."""
    key = student.distillation, student.purpose, student.replicate
    if content is not None:
        store.students.restore_weights(*key, student.test_hash, store.artifacts.put(content))
    else:
        store.students.drop_checkpoint(student_run(*key))


def _accuracy(model: nn.Module, data: StudyData, precision: Any) -> float:
    correct = correctness(model, data.validation, precision)
    return int(correct.sum()) / len(correct)


@contextmanager
def _failures(result: StudyResult) -> Iterator[None]:
    try:
        with memory_errors():
            yield
    except DivergedError as error:
        raise RunError(f"a lost network of {result.name!r} could not be trained again here: {error}") from None
    except OutOfMemoryError as error:
        raise RunError(
            f"the networks of {result.name!r} do not fit in memory here ({error}): try --device cpu"
        ) from None
