"""Sweetspot: how long, and at which batch size, to train a teacher so that its student is best.

Importing the package imports no torch; a name does so when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweetspot.config import StudyConfig
    from sweetspot.errors import RunError, UserError
    from sweetspot.models.exported import load_student, load_teacher
    from sweetspot.report.result import StudyResult
    from sweetspot.student.losses import distillation_loss
    from sweetspot.study.objective import Objective
    from sweetspot.study.pruner import SimilarityEntropyPruner
    from sweetspot.teacher.similarity import ResponseMeasures, measure_response, similarity_entropy
    from sweetspot.workers.optimize import load_result, optimize

__version__ = "0.1.0"

__all__ = [
    "Objective",
    "ResponseMeasures",
    "RunError",
    "SimilarityEntropyPruner",
    "StudyConfig",
    "StudyResult",
    "UserError",
    "distillation_loss",
    "load_result",
    "load_student",
    "load_teacher",
    "measure_response",
    "optimize",
    "similarity_entropy",
]

_HOMES = {
    "Objective": "sweetspot.study.objective",
    "ResponseMeasures": "sweetspot.teacher.similarity",
    "RunError": "sweetspot.errors",
    "SimilarityEntropyPruner": "sweetspot.study.pruner",
    "StudyConfig": "sweetspot.config",
    "StudyResult": "sweetspot.report.result",
    "UserError": "sweetspot.errors",
    "distillation_loss": "sweetspot.student.losses",
    "load_result": "sweetspot.workers.optimize",
    "load_student": "sweetspot.models.exported",
    "load_teacher": "sweetspot.models.exported",
    "measure_response": "sweetspot.teacher.similarity",
    "optimize": "sweetspot.workers.optimize",
    "similarity_entropy": "sweetspot.teacher.similarity",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sweetspot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
