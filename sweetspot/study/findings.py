"""Findings: what a trial of a search has to tell people, while it can still be written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweetspot.store import ClassSimilarity, Measurement, Probe, Student
from sweetspot.study.space import Point


@dataclass(frozen=True)
class Findings:
    """What a visit of a search to a point has found; a finished trial cannot be written to any more.

    Attributes:
        steps: of the teacher's training, had it reached the point.
        epoch: of the teacher that was measured last; 0 where none was.
        measurements: of that teacher, as far as there are any.
        similarity: what its response says of each class.
        students: of the point, those of earlier visits too; empty where none was trained.
        classes: their names, in the order of the labels.
        spent: as in the user attributes (:meth:`sweetspot.study.visit.Visit.spent`).
        ended: why the trial ends without a value; None: it has one.
    """

    point: Point
    steps: int
    epoch: int
    temperature: float
    measurements: Mapping[Probe, Measurement]
    similarity: ClassSimilarity | None
    students: tuple[Student, ...]
    classes: tuple[str, ...]
    spent: Mapping[str, Any]
    ended: str | None
