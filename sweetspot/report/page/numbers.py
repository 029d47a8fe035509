"""A report as numbers: the JSON that ``sweetspot report -o FILE.json`` writes and ``--json`` prints."""

import math
from typing import Any

from sweetspot.report.arms import arm_summaries
from sweetspot.report.page.answer import answer
from sweetspot.report.page.contents import Report
from sweetspot.report.page.toml import study_file
from sweetspot.report.points import table
from sweetspot.report.result_json import claim_dict
from sweetspot.study.arms import ARMS, BEST
from sweetspot.study.inference import Interval
from sweetspot.study.space import Alone


def numbers(report: Report) -> dict[str, Any]:
    """Everything of a report: what ``sweetspot best --json`` prints, and the keys below. No path to the data is in it.

    Accuracies and gains are fractions, times seconds, entropies nats; what is not known, or not finite, is null. Before
    a trial has finished the keys of ``best`` are there, and null where there is nothing to say.

    - ``answer``: ``standing`` ("confirmed", "undecided", "decided against", "not confirmed", "no answer"), the
      ``sentence``, ``remarks``; ``accuracy`` with ``mean``, ``low``, ``high`` (95 %) and its ``split``.
    - ``arms``: of the confirmation, by name: ``point``, the ``name`` that people know it by, the earlier arm that it is
      the ``same_as``, ``accuracies`` (one for each student), ``interval``, and the ``gain`` of the best point over it,
      both with ``mean``, ``low``, ``high`` (95 %), ``lower_one_sided``, ``upper_one_sided``, ``standard_error`` and its
      degrees of freedom, ``dof``.
    - ``points``: one entry for each that was visited; ``all_trials``: as ``sweetspot trials --json``.
    - ``pruning``: trials that were ``pruned``, ``let_run`` although they would have been, and how many of these were
      ``wrong``: within ``confirm.margin`` of the best.
    - ``curves``: along the epochs of each teacher; ``trunk`` is the run that longer ones share, ``teachers`` are rungs.
    - ``classes`` and ``class_similarity``: of the best teacher: ``matrix`` (row k: mean response to images of class k),
      ``images`` of each class, ``temperature``, and the pairs found most ``alike``.
    - ``config`` and ``config_toml``: the study's configuration, as values and as a study file.
    - ``written`` (UTC), ``machine``, ``versions``, ``builds`` of the teachers, ``data_hash``.
    """
    result = report.result
    wrong, let_run = result.would_have_pruned
    found = {
        **(_nothing_yet(report) if result.best is None else result.to_dict()),
        "dataset": report.config.data.dataset,
        "answer": _answer(report),
        "arms": _arms(report),
        "points": table(result.points),
        "all_trials": result.trials_list(),
        "pruning": {
            "pruned": result.pruned,
            "infeasible": result.infeasible,
            "let_run": let_run,
            "wrong": wrong,
        },
        "curves": [
            {
                "batch_size": curve.batch_size,
                **dict(curve.others),
                "trunk": [vars(point) for point in curve.trunk],
                "teachers": [vars(point) for point in curve.teachers],
            }
            for curve in result.curves
        ],
        "classes": list(report.classes),
        "class_similarity": _similarity(report),
        "config": report.config.model_dump(mode="json"),
        "config_toml": study_file(report.config),
        "written": f"{report.written.isoformat()}Z",
        "machine": report.machine,
        "versions": dict(report.versions),
        "builds": list(report.builds),
        "data_hash": result.record.data_hash,
    }
    return {key: _finite(value) for key, value in found.items()}


def _nothing_yet(report: Report) -> dict[str, Any]:
    """The keys of ``best --json``, before there is a best point."""
    result = report.result
    unknown = (
        "batch_size", "epochs", "steps", "under_trained", "accuracy", "test_accuracy", "teacher_accuracy",
        "similarity_entropy", "similarity_information", "delivered_similarity", "confirmed",
    )  # fmt: skip
    return {
        "study": result.name,
        "teacher": result.config.teacher.model if result.config.search.teacher.model is None else None,
        "student": result.config.student.model,
        **dict.fromkeys(unknown),
        "epochs_mean": result.epochs_mean,
        "verdict": "no trial has finished yet",
        **claim_dict(result),
        "baselines": dict.fromkeys(ARMS[1:]),
        "gain": {f"over_{arm}": None for arm in ARMS[1:]},
        "economy": None,
        "equal_steps": None,
        "trials": result.trials_dict(),
        "cost": result.cost_dict(),
    }


def _answer(report: Report) -> dict[str, Any]:
    said = answer(report)
    confirmed = report.result.confirmation
    accuracy: dict[str, Any] | None = None
    if confirmed is not None:
        interval = confirmed.intervals[BEST]
        accuracy = {"mean": interval.mean, "low": interval.low, "high": interval.high, "split": "test"}
    elif (best := report.best) is not None:
        accuracy = {"mean": best.mean, "low": best.low, "high": best.high, "split": "validation"}
    return {
        "standing": said.standing,
        "sentence": said.sentence,
        "accuracy": accuracy,
        "remarks": list(said.remarks),
    }


def _arms(report: Report) -> dict[str, Any]:
    confirmed = report.result.confirmation
    if confirmed is None:
        return {}
    return {
        each.arm: {
            "point": None if isinstance(each.source, Alone) else each.source.params,
            "name": each.name,
            "same_as": each.same_as,
            "accuracies": list(each.accuracies),
            "interval": _interval(each.interval),
            "gain": _interval(each.gain),
        }
        for each in arm_summaries(report.result.config, confirmed)
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {
        name: getattr(interval, name)
        for name in ("mean", "low", "high", "lower_one_sided", "upper_one_sided", "standard_error", "dof")
    }


def _similarity(report: Report) -> dict[str, Any] | None:
    if report.similarity is None:
        return None
    return {
        "temperature": report.result.config.teacher.probe_temperature,
        "matrix": [[round(float(value), 7) for value in row] for row in report.similarity.matrix],
        "images": report.similarity.images.tolist(),
        "alike": [vars(pair) for pair in report.alike(20)],
    }


def _finite(value: Any) -> Any:
    """With null for every number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
