"""The rows of students: the truth about a point is all of them, pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from sweetspot.store.artifacts import Artifacts
from sweetspot.store.checkpoints import (
    Checkpoint,
    checkpoint_of,
    discard_unused,
    drop_checkpoints,
    save_checkpoint,
)
from sweetspot.store.database import Database
from sweetspot.store.outage import outlasting_methods
from sweetspot.store.schema import CheckpointRow, StudentRow

Purpose = Literal["search", "confirm"]


RUNS = "student/"
"""What the names of students' checkpoints begin with."""


def student_run(distillation: str, purpose: Purpose, replicate: int) -> str:
    """The name of a student's training, under which its checkpoint is kept."""
    return f"{student_runs(distillation)}{purpose}/{replicate}"


def student_runs(distillation: str) -> str:
    """What the names of the trainings of a distillation's students begin with."""
    return f"{RUNS}{distillation}/"


@dataclass(frozen=True)
class Student:
    """One trained student; accuracies are fractions."""

    distillation: str
    purpose: Purpose
    replicate: int
    study: str
    accuracy: float
    curve: dict[str, Any]
    seconds: float
    weights: str
    """The blob of its network; empty where that was lost."""
    test_hash: str = ""
    """Of the test split's content; empty where it was not looked at."""
    test_correct: NDArray[np.bool_] | None = None
    """(test images,), or None where the test split was not looked at."""

    @property
    def test_accuracy(self) -> float | None:
        return None if self.test_correct is None else float(self.test_correct.mean())


@outlasting_methods
class StudentStore:
    """Students by the hash of their distillation and their replicate's index."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self.outages = database.outages
        self._session = database.session
        self.artifacts = artifacts

    def add(self, student: Student) -> None:
        """Record a student; its checkpoint goes. One that is there already stays: both were trained alike."""
        correct = student.test_correct
        row = StudentRow(
            distillation=student.distillation,
            purpose=student.purpose,
            replicate=student.replicate,
            study=student.study,
            accuracy=student.accuracy,
            curve=student.curve,
            seconds=student.seconds,
            weights=student.weights,
            test_hash=student.test_hash,
            test_accuracy=student.test_accuracy,
            test_correct=None if correct is None else _pack(correct),
        )
        run = student_run(student.distillation, student.purpose, student.replicate)
        try:
            with self._session.begin() as session:
                session.add(row)
        except IntegrityError:
            known = self.of([student.distillation], student.purpose, student.test_hash).get(student.distillation, [])
            if all(other.replicate != student.replicate for other in known):
                raise
        self.drop_checkpoint(run)

    def checkpoint(self, run: str) -> Checkpoint | None:
        """Where a student's training goes on after a crash; ``run`` is :func:`student_run`'s."""
        with self._session() as session:
            return checkpoint_of(session, run)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint of a student that trains; one that is further on stays."""
        there = self.checkpoint(checkpoint.run)
        if there is not None and there.position > checkpoint.position:
            return
        try:
            with self._session.begin() as session:
                old = save_checkpoint(session, checkpoint)
        except IntegrityError:  # another worker trains the same student, and was faster
            return
        if old is not None and old != checkpoint.state:
            self._discard_unused({old})

    def drop_checkpoint(self, run: str) -> None:
        """Forget the checkpoint of a student."""
        with self._session.begin() as session:
            states = set(drop_checkpoints(session, [run]))
        self._discard_unused(states)

    def of(self, distillations: Sequence[str], purpose: Purpose, test_hash: str = "") -> dict[str, list[Student]]:
        """The students of each distillation by rising replicate; those without any are left out.

        Args:
            test_hash: of the test split they were looked at with.
        """
        found: dict[str, list[Student]] = {}
        with self._session() as session:
            for chunk in range(0, len(distillations), 500):
                rows = session.scalars(
                    select(StudentRow)
                    .where(StudentRow.distillation.in_(distillations[chunk : chunk + 500]))
                    .where(StudentRow.purpose == purpose, StudentRow.test_hash == test_hash)
                    .order_by(StudentRow.replicate)
                )
                for row in rows:
                    found.setdefault(row.distillation, []).append(_student(row))
        return found

    def trained(self, distillation: str) -> list[tuple[str, int]]:
        """(purpose, replicate) of every student of a distillation, sorted."""
        with self._session() as session:
            rows = session.execute(
                select(StudentRow.purpose, StudentRow.replicate).where(StudentRow.distillation == distillation)
            )
            return sorted((row.purpose, row.replicate) for row in rows)

    def blobs(self) -> list[str]:
        """The blobs of all students' weights, one per row."""
        with self._session() as session:
            return list(session.scalars(select(StudentRow.weights).where(StudentRow.weights != "")))

    def forget_weights(self, name: str) -> None:
        """Note that a blob of students' weights is lost; what the students have shown stays."""
        with self._session.begin() as session:
            session.execute(update(StudentRow).where(StudentRow.weights == name).values(weights=""))

    def restore_weights(
        self, distillation: str, purpose: Purpose, replicate: int, test_hash: str, weights: str
    ) -> None:
        """Note where the weights of a student lie that were lost, and are as they were; its checkpoint goes."""
        with self._session.begin() as session:
            session.execute(
                update(StudentRow)
                .where(
                    StudentRow.distillation == distillation,
                    StudentRow.purpose == purpose,
                    StudentRow.replicate == replicate,
                    StudentRow.test_hash == test_hash,
                    StudentRow.weights == "",
                )
                .values(weights=weights)
            )
        self.drop_checkpoint(student_run(distillation, purpose, replicate))

    def delete(self, distillations: Sequence[str]) -> None:
        """Remove the students of these distillations, trained or half-trained, and their weights."""
        for distillation in distillations:
            with self._session.begin() as session:
                chosen = StudentRow.distillation == distillation
                names = set(session.scalars(select(StudentRow.weights).where(chosen)))
                session.execute(delete(StudentRow).where(chosen))
                runs = select(CheckpointRow.run).where(CheckpointRow.run.startswith(student_runs(distillation)))
                names |= set(drop_checkpoints(session, list(session.scalars(runs))))
            self._discard_unused(names)

    def _discard_unused(self, names: set[str]) -> None:
        if names:
            with self._session() as session:
                discard_unused(session, self.artifacts, names)


def _pack(correct: NDArray[np.bool_]) -> bytes:
    return len(correct).to_bytes(4, "big") + np.packbits(correct).tobytes()


def _unpack(packed: bytes) -> NDArray[np.bool_]:
    images = int.from_bytes(packed[:4], "big")
    return np.unpackbits(np.frombuffer(packed[4:], np.uint8), count=images).astype(bool)


def _student(row: StudentRow) -> Student:
    return Student(
        distillation=row.distillation,
        purpose="confirm" if row.purpose == "confirm" else "search",
        replicate=row.replicate,
        study=row.study,
        accuracy=row.accuracy,
        curve=row.curve,
        seconds=row.seconds,
        weights=row.weights,
        test_hash=row.test_hash,
        test_correct=None if row.test_correct is None else _unpack(row.test_correct),
    )
