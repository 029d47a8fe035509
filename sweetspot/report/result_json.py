"""What a study has found as the JSON that programs read."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from optuna.trial import TrialState

from sweetspot.errors import RunError
from sweetspot.report.arms import ArmSummary, amount, arm_summaries, temperature
from sweetspot.report.result import StudyResult
from sweetspot.study.arms import ARMS, BEST, ECONOMY
from sweetspot.study.conclusion import Confirmation
from sweetspot.study.confirmation import FINALIST
from sweetspot.study.inference import Interval
from sweetspot.study.search import is_given_back
from sweetspot.study.space import ExternalPoint, Point, config_at, params_of


def best_dict(result: StudyResult) -> dict[str, Any]:
    """What ``sweetspot best --json`` prints.

    Raises:
        RunError: if no trial has finished.
    """
    best = result.best
    if best is None:
        raise RunError(f"the study {result.name!r} has no finished trial yet: see sweetspot status {result.name}")
    confirmed = result.confirmation
    arms = arm_summaries(result.config, confirmed) if confirmed else []
    return {
        "study": result.name,
        "dataset": result.config.data.dataset,
        "teacher": config_at(result.config, best.point).teacher.model,
        "student": result.config.student.model,
        **_point(best.point),
        "steps": best.steps,
        "under_trained": best.is_under_trained,
        "epochs_mean": result.epochs_mean,
        "accuracy": _accuracy(best.accuracies, "validation"),
        "test_accuracy": _accuracy(confirmed.accuracies[BEST], "test") if confirmed else None,
        **result.best_measures,
        "confirmed": result.confirmed,
        "verdict": result.verdict,
        **claim_dict(result),
        "baselines": {**dict.fromkeys(ARMS[1:]), **{a.arm: _baseline(result, a) for a in arms if _is_baseline(a)}},
        "gain": {
            **{f"over_{arm}": None for arm in ARMS[1:]},
            **{f"over_{arm.arm}": _gain(arm) for arm in arms if _is_baseline(arm)},
        },
        "economy": _economy(result),
        "equal_steps": result.equal_steps.to_dict() if result.equal_steps is not None else None,
        **_finalists(confirmed, arms),
        "trials": trials_dict(result),
        "cost": cost_dict(result),
    }


def claim_dict(result: StudyResult) -> dict[str, Any]:
    """What the confirmation is about, and what it rests on."""
    confirmed = result.confirmation
    plan = confirmed.plan if confirmed else None
    asked = {"lr_check": _lr_check(confirmed)} if result.config.confirm.lr_check else {}
    return {
        "claim": plan.claim if plan else None,
        "verdict_kind": confirmed.verdict.kind if confirmed else None,
        "stale": result.is_stale,
        "teachers": plan.teachers if plan else None,
        "seeds": plan.seeds if plan else None,
        "look": plan.look if plan else None,
        "test_looks": result.test_looks,
        "left_out": list(result.left_out),
        "failed_arms": dict(confirmed.failed) if confirmed else {},
        "pairing_correlation": dict(confirmed.correlations) if confirmed else {},
        **asked,
    }


def status_dict(result: StudyResult) -> dict[str, Any]:
    """One entry of what ``sweetspot status --json`` prints."""
    best, stage = result.best, result.stage
    return {
        "study": result.name,
        "dataset": result.config.data.dataset,
        "trials": {**trials_dict(result), "total": result.config.search.trials},
        "tasks": None if stage is None else {"stage": stage.name, "done": stage.done, "total": stage.total},
        "ended": result.record.ended,
        "best": None
        if best is None
        else {
            **_point(best.point),
            "accuracy": _accuracy(best.accuracies, "validation"),
            "confirmed": result.confirmed,
        },
        "workers": [
            {
                "host": worker.host,
                "device": worker.device,
                "pid": worker.pid,
                "phase": worker.phase,
                **worker.detail,
                "last_seen": worker.last_seen.isoformat(timespec="seconds") + "Z",
            }
            for worker in result.workers
        ],
        "cost": cost_dict(result),
    }


def trials_list(result: StudyResult) -> list[dict[str, Any]]:
    """What ``sweetspot trials --json`` prints: the trials in order, those given back left out."""
    shown = [t for t in result.trials if not is_given_back(t)]
    return [
        {
            "number": t.number,
            "state": t.state.name.lower(),
            **params_of(t),
            "value": t.value if t.state == TrialState.COMPLETE else None,
            **{k: v for k, v in sorted(t.user_attrs.items()) if k != "worker"},
        }
        for t in shown
    ]


def trials_dict(result: StudyResult) -> dict[str, int]:
    """How many trials of each kind there are."""
    counts = result.counts
    return {
        "complete": counts.complete,
        "pruned": counts.pruned,
        "failed": counts.failed,
        "running": counts.running,
        "waiting": counts.waiting,
    }


def cost_dict(result: StudyResult) -> dict[str, Any]:
    """What the study has cost."""
    cost = result.cost
    return {
        "teacher_epochs_requested": cost.teacher_epochs_requested,
        "teacher_epochs_trained": cost.teacher_epochs_trained,
        "student_epochs": cost.student_epochs,
        "seconds": round(cost.seconds, 3),
    }


# -- parts ------------------------------------------------------------------------------------------------------------


def _point(point: Point) -> dict[str, Any]:
    others = {"parameters": dict(point.others)} if point.others else {}
    return {"batch_size": point.batch_size, "epochs": point.epochs, **others}


def _is_baseline(arm: ArmSummary) -> bool:
    return arm.arm != BEST and not arm.arm.startswith(FINALIST)


def _baseline(result: StudyResult, arm: ArmSummary) -> dict[str, Any] | None:
    """An arm; None where it could not be trained."""
    if not arm.accuracies:
        return None
    found = _accuracy(arm.accuracies, "test") | {"same_as": arm.same_as}
    own = {
        "amount": amount(arm.arm, arm.source),
        "temperature": temperature(arm.arm, arm.source, result.config),
    }
    found |= {key: value for key, value in own.items() if value is not None}
    if isinstance(arm.source, Point):
        found |= {"batch_size": arm.source.batch_size, "epochs": arm.source.epochs}
    elif isinstance(arm.source, ExternalPoint):
        found |= {"name": arm.source.name, "model": arm.source.model, "epochs": arm.source.epochs}
    return found


def _gain(arm: ArmSummary) -> dict[str, float] | None:
    """That of the best point; 0 over itself, None over what could not be trained."""
    if arm.gain is not None:
        return _bounds(arm.gain)
    return dict.fromkeys(("mean", "low", "high"), 0.0) if arm.is_best and arm.accuracies else None


def _economy(result: StudyResult) -> dict[str, Any] | None:
    """The cheapest teacher that is as good, as far as is known."""
    cheapest, confirmed = result.cheapest, result.confirmation
    if cheapest is None:
        return None
    tested = BEST if result.best is not None and cheapest.point == result.best.point else ECONOMY
    accuracies = confirmed.accuracies.get(tested) if confirmed else None
    economy = confirmed.economy if confirmed and tested == ECONOMY and not result.is_stale else None
    return {
        **_point(cheapest.point),
        "accuracy": _accuracy(cheapest.accuracies, "validation"),
        "test_accuracy": _accuracy(accuracies, "test") if accuracies else None,
        "cost_ratio": result.cost_ratio,
        "confirmed": economy.confirmed if economy else None,
    }


def _finalists(confirmed: Confirmation | None, arms: Sequence[ArmSummary]) -> dict[str, Any]:
    """All finalists, where there are several."""
    there = [arm for arm in arms if arm.arm == BEST or (arm.arm.startswith(FINALIST) and arm.accuracies)]
    if confirmed is None or len(there) < 2:
        return {}
    return {
        "finalists": [
            {
                "arm": arm.arm,
                **(_point(arm.source) if isinstance(arm.source, Point) else {}),
                "test_accuracy": _accuracy(arm.accuracies, "test"),
                "confirmed": verdict.confirmed,
                "verdict_kind": verdict.kind,
                "verdict": verdict.words,
            }
            for arm, verdict in zip(there, confirmed.verdicts, strict=True)
        ]
    }


def _lr_check(confirmed: Confirmation | None) -> dict[str, Any] | None:
    check = confirmed.lr_check if confirmed else None
    if check is None:
        return None
    return {
        "batch_sizes": list(check.batch_sizes),
        "accuracies": [{"factor": f, "best": best, "runner_up": rival} for f, best, rival in check.accuracies],
    }


def _accuracy(values: Sequence[float], split: str) -> dict[str, Any]:
    return {
        "mean": fmean(values),
        "std": stdev(values) if len(values) > 1 else None,
        "replicates": len(values),
        "split": split,
    }


def _bounds(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
