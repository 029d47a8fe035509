"""What is said of an export, as values: ``config.json`` for programs, from which the model card is written."""

import hashlib
import json
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

import numpy
import optuna
import safetensors
import torch
import torchvision

from sweetspot.data.study_data import StudyData
from sweetspot.models.exported import FORMAT, FORMAT_VERSION, distribution_of
from sweetspot.report.arms import ArmSummary, amount, arm_summaries, temperature
from sweetspot.report.result import StudyResult
from sweetspot.report.result_json import claim_dict
from sweetspot.report.sentences import MEANING, finalists, further, percent, without_path
from sweetspot.store import Student
from sweetspot.study.arms import BEST
from sweetspot.study.inference import Interval
from sweetspot.study.ranking import Ranked
from sweetspot.study.space import Alone, ExternalPoint, Point, config_at
from sweetspot.study.visit import distillation_at, recipe_at

_Z = 1.959964
_ROUNDING = 1e-6
"""Less than one image more or less."""


@dataclass(frozen=True)
class ExportedWeights:
    """One network of an export.

    Attributes:
        content: safetensors.
        parameters: how many numbers are trained.
        accuracy: on the validation split, of these very weights, measured when they were exported; a fraction.
        recorded: the same as the study has recorded it; None where it has not.
        is_trained_again: the study's own weights were lost.
        is_same: these weights are those that the study's numbers are about, as far as can be told.
    """

    content: bytes
    parameters: int
    accuracy: float
    recorded: float | None
    is_trained_again: bool
    is_same: bool

    @property
    def is_as_recorded(self) -> bool:
        """Whether it is as accurate as the study has recorded, or nothing was recorded."""
        return self.recorded is None or math.isclose(self.accuracy, self.recorded, abs_tol=_ROUNDING)


def about(
    result: StudyResult,
    best: Ranked,
    student: Student,
    data: StudyData,
    teacher_weights: ExportedWeights,
    student_weights: ExportedWeights,
) -> dict[str, Any]:
    """The values of ``config.json``. Accuracies are fractions, entropies nats; there is no path in it.

    Args:
        best: the point that is exported.
        student: the row of the student that was chosen.
        data: the study's.
    """
    config = config_at(result.config, best.point)
    confirmed = result.confirmation
    recipe = recipe_at(result.config, result.record.data_hash, best.point)
    images = len(data.validation)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "study": result.name,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {
            "name": without_path(config.data.dataset),
            "hash": result.record.data_hash,
            "train_images": data.train_images,
            "validation_images": images,
            "test_images": None if student.test_correct is None else len(student.test_correct),
            "augmentation": list(config.data.augmentation),
        },
        "images": {
            "classes": list(data.classes),
            "channels": data.channels,
            "size": data.image_size,
            "mean": list(data.normalisation.mean),
            "std": list(data.normalisation.std),
        },
        "teacher": {
            **_network(config.teacher.model, config.teacher.precision, teacher_weights),
            "accuracy": _of_images(teacher_weights.accuracy, images, "validation"),
            **{name: value for name, value in result.best_measures.items() if name != "teacher_accuracy"},
        },
        "student": {
            **_network(config.student.model, config.student.precision, student_weights),
            "purpose": student.purpose,
            "replicate": student.replicate,
            "chosen_by": "validation accuracy",
            "chosen_among": _chosen_among(result, best, student),
            "accuracy": _of_images(student_weights.accuracy, images, "validation"),
            "test_accuracy": _test_accuracy(student) if student_weights.is_same else None,
        },
        "point": {
            "batch_size": best.point.batch_size,
            "epochs": best.point.epochs,
            "parameters": dict(best.point.others),
            "steps": best.steps,
            "epochs_mean": result.epochs_mean,
            "meaning": MEANING[result.epochs_mean],
            "under_trained": best.is_under_trained,
            "settled": best.is_settled,
        },
        "recipe": {"hash": recipe.hash, "values": json.loads(recipe.json)},
        "distillation": {
            "hash": distillation_at(result.config, result.record.data_hash, best.point).hash,
            **config.student.model_dump(mode="json", exclude={"model", "precision", "replicates"}),
        },
        "students": {
            "validation": _validation(result, best),
            "test": _arm_accuracy(confirmed.accuracies[BEST], confirmed.intervals[BEST]) if confirmed else None,
        },
        "comparison": list(comparison(result)),
        "confirmed": result.confirmed,
        "verdict": _verdict(result),
        **{key: value for key, value in claim_dict(result).items() if key != "failed_arms"},  # why may name files
        "failed_arms": sorted(confirmed.failed) if confirmed else [],
        "further": [*finalists(result), *further(result)],
        "notes": list(_notes(result, best, student, teacher_weights, student_weights)),
        "versions": {
            "python": platform.python_version(),
            "sweetspot": distribution_of("").version,
            **{m.__name__: m.__version__ for m in (numpy, optuna, safetensors, torch, torchvision)},
        },
        "config": _config_without_path(result),
    }


def _config_without_path(result: StudyResult) -> dict[str, Any]:
    values: dict[str, Any] = result.config.model_dump(mode="json")
    values["data"]["dataset"] = without_path(result.config.data.dataset)
    return values


def _network(model: str, precision: str, weights: ExportedWeights) -> dict[str, Any]:
    return {
        "model": model,
        "distribution": distribution_of(model).model_dump(),
        "parameters": weights.parameters,
        "precision": precision,
        "sha256": hashlib.sha256(weights.content).hexdigest(),
        "bytes": len(weights.content),
        "trained_again": weights.is_trained_again,
    }


# -- accuracies -------------------------------------------------------------------------------------------------------


def _of_images(accuracy: float, images: int, split: str) -> dict[str, Any]:
    """The accuracy of one network, with a 95 % interval over further images (Wilson's)."""
    middle, z = accuracy * images, _Z**2
    centre = (middle + z / 2) / (images + z)
    half = _Z / (images + z) * math.sqrt(middle * (1 - accuracy) + z / 4)
    return {"value": accuracy, "low": centre - half, "high": centre + half, "images": images, "split": split}


def _test_accuracy(student: Student) -> dict[str, Any] | None:
    accuracy = student.test_accuracy
    if accuracy is None or student.test_correct is None:
        return None
    return _of_images(accuracy, len(student.test_correct), "test")


def _chosen_among(result: StudyResult, best: Ranked, student: Student) -> int:
    is_fresh = result.confirmation is not None and student.purpose == "confirm"
    return result.confirmation.plan.seeds if is_fresh and result.confirmation else len(best.students)


def _validation(result: StudyResult, best: Ranked) -> dict[str, Any]:
    """Of the search's students of the point, by which it was chosen."""
    point = next(point for point in result.points if point.point == best.point)
    return {
        "mean": fmean(best.accuracies),
        "std": stdev(best.accuracies) if len(best.accuracies) > 1 else None,
        "low": point.low,
        "high": point.high,
        "replicates": len(best.accuracies),
    }


def _arm_accuracy(accuracies: Sequence[float], interval: Interval) -> dict[str, Any]:
    return {
        **_interval(interval),
        "std": stdev(accuracies) if len(accuracies) > 1 else None,
        "replicates": len(accuracies),
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def comparison(result: StudyResult) -> Iterator[dict[str, Any]]:
    """The arms of the confirmation, in its order, each with the gain of the best point over it."""
    confirmed = result.confirmation
    if confirmed is None:
        return
    for each in arm_summaries(result.config, confirmed):
        if each.interval is None:
            continue
        source = each.source
        yield {
            "arm": each.arm,
            "batch_size": source.batch_size if isinstance(source, Point) else None,
            "epochs": None if isinstance(source, Alone) else source.epochs,
            "name": source.name if isinstance(source, ExternalPoint) else None,
            "model": None if isinstance(source, Alone) else config_at(result.config, source).teacher.model,
            "amount": amount(each.arm, source),
            "temperature": temperature(each.arm, source, result.config),
            "same_as": each.same_as,
            "same_as_best": each.same_as == BEST,
            "accuracy": _arm_accuracy(each.accuracies, each.interval),
            "gain_of_best": _gain(each),
        }


def _gain(arm: ArmSummary) -> dict[str, float] | None:
    """0 over what is the best point, too; None of itself."""
    if arm.gain is not None:
        return _interval(arm.gain)
    return dict.fromkeys(("mean", "low", "high"), 0.0) if arm.is_best and arm.arm != BEST else None


# -- words ------------------------------------------------------------------------------------------------------------


def _verdict(result: StudyResult) -> str:
    if result.confirmation is None and result.failed_arm is not None:  # what failed may name files
        return "not confirmed: the confirmation could not be finished"
    return result.verdict


def _notes(
    result: StudyResult, best: Ranked, student: Student, teacher: ExportedWeights, weights: ExportedWeights
) -> Iterator[str]:
    """What whoever uses the networks must know, in sentences."""
    if not best.is_settled:
        count, wanted = len(best.students), result.config.student.replicates.max
        yield f"This is the best point so far: it has {count} of the {wanted} students that it needs to be called best."
    elif result.confirmation is None:
        yield "The best point is not confirmed: it is the best so far, by the validation accuracy of its students."
    if result.confirmation is not None and result.confirmation.plan.claim == "this point":
        yield (
            "What was confirmed is the point, with fresh teachers of it: this teacher is the one that the search has "
            "trained, and may be better or worse than they are."
        )
    if best.is_under_trained:
        yield (
            f"The teacher is under-trained: its {best.steps:,} steps are fewer than search.min_steps = "
            f"{result.config.search.min_steps:,}."
        )
    if teacher.is_trained_again:
        yield f"The teacher's weights were lost: it was trained again for this export; {_compared(teacher)}."
    elif not teacher.is_as_recorded:
        yield f"Of the teacher, {_compared(teacher)}: this device or this torch rounds otherwise."
    if weights.is_trained_again:
        whose = "" if weights.is_same else ", and its test accuracy is not known"
        was = "it came out as it was" if weights.is_same else f"it came out otherwise: {_compared(weights)}{whose}"
        yield f"The student's weights were lost: it was trained again for this export; {was}."
    elif not weights.is_as_recorded:
        yield f"Of the student, {_compared(weights)}: this device or this torch rounds otherwise."
    if student.purpose == "search":
        yield "The student is one of the search's; it has not been looked at on the test split."


def _compared(weights: ExportedWeights) -> str:
    if weights.recorded is None:
        return f"its validation accuracy is {percent(weights.accuracy)}"
    if weights.is_as_recorded:
        return f"its validation accuracy is the recorded {percent(weights.recorded)}"
    return (
        f"its validation accuracy is {percent(weights.accuracy)} here, where {percent(weights.recorded)} was recorded"
    )
