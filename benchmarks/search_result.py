"""What many replayed searches come to: regrets, costs, the goals; as JSON and for people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_bench import Bench, Repetition
from benchmarks.search_methods import METHODS, VARIANTS, allowed
from benchmarks.search_pruning import PRUNERS, comparison
from benchmarks.search_regret import Course, Curve, Split
from sweetspot.study.space import Point

MEDIAN_GOAL, HIGH_GOAL = 0.2, 0.5
"""Points of regret: at the median, and at the 90th percentile."""
PLAIN_GOAL = 1 / 3
DEFAULTS = ("default_middle", "default_most_accurate")

_DIGITS = 3


def summary(courses: Sequence[Course], splits: Sequence[Split], points: Sequence[Point]) -> dict[str, Any]:
    """Of the searches of one method: regrets in points, seconds.

    Args:
        splits: what each of the searches has seen, and perhaps more of them.
        points: those of the splits' regrets.
    """
    regrets = 100 * np.array([course.regrets[-1] for course in courses])
    curve = Curve.of(courses)
    return {
        **_regrets(regrets),
        **_errors([points.index(course.chosen) for course in courses], splits[: len(courses)]),
        "cost_median": round(float(np.median([course.seconds[-1] for course in courses])), _DIGITS),
        "cost_to_goal": curve.seconds_to(MEDIAN_GOAL / 100),
        "cost_to_both_goals": curve.seconds_to(MEDIAN_GOAL / 100, HIGH_GOAL / 100),
        "chosen": _most_chosen([course.chosen for course in courses]),
        "repetitions": len(courses),
    }


def oracle(bench: Bench, splits: Sequence[Split]) -> dict[str, Any]:
    points = bench.recording.points
    return {
        **_regrets(100 * np.array([each.oracle for each in splits])),
        "cost_median": None,
        "cost_to_goal": None,
        "cost_to_both_goals": None,
        "chosen": _most_chosen([points[index] for each in splits for index in each.oracle_points]),
        "repetitions": len(splits),
    }


def _regrets(points: NDArray[np.float64]) -> dict[str, float]:
    return {
        "regret_median": round(float(np.median(points)), _DIGITS),
        "regret_p90": round(float(np.quantile(points, 0.9)), _DIGITS),
        "regret_mean": round(float(points.mean()), _DIGITS),
    }


def _errors(chosen: Sequence[int], splits: Sequence[Split]) -> dict[str, float | None]:
    """The jackknife's standard errors of the quantiles over the teachers that judge; None where they are too few."""
    teachers = sorted({teacher for split in splits for teacher in split.without})
    without = [
        100 * np.array([s.without[teacher][i] for i, s in zip(chosen, splits, strict=True) if teacher in s.without])
        for teacher in teachers
    ]
    found: dict[str, float | None] = {}
    for name, share in (("regret_median_error", 0.5), ("regret_p90_error", 0.9)):
        quantiles = np.array([np.quantile(regrets, share) for regrets in without if len(regrets)])
        known = len(quantiles) > 1
        spread = np.sqrt((len(quantiles) - 1) * quantiles.var()) if known else 0.0
        found[name] = round(float(spread), _DIGITS) if known else None
    return found


def _most_chosen(chosen: Sequence[Point]) -> dict[str, Any]:
    ((point, times),) = Counter(chosen).most_common(1)
    return {"batch_size": point.batch_size, "epochs": point.epochs, "share": round(times / len(chosen), _DIGITS)}


def goals(found: Mapping[str, Mapping[str, Any]], points: int) -> dict[str, Any]:
    """Whether the search is good, and cheap; and whether that is a result, or anybody's default does it, too.

    ``defaults_as_good``: those that have a regret as good, with their share of the exhaustive cost;
    ``defaults_that_meet_it``: those of them that cost no more than the goal allows: what they do is no result.
    """
    ours, plain, exhaustive = (found[name] for name in ("sweetspot", "plain_optuna", "exhaustive"))
    share = allowed(points)
    of_exhaustive = ours["cost_median"] / exhaustive["cost_median"]
    # A plain search that never gets there has cost all of itself in vain.
    reached, by_plain = ours["cost_to_both_goals"], plain["cost_to_both_goals"] or plain["cost_median"]
    of_plain = None if reached is None else reached / by_plain
    good = {name: _is_good(found[name]) for name in ("sweetspot", *DEFAULTS)}
    shares = {name: found[name]["cost_median"] / exhaustive["cost_median"] for name in DEFAULTS}
    parts = {
        "regret": {
            "median": ours["regret_median"],
            "median_error": ours["regret_median_error"],
            "p90": ours["regret_p90"],
            "p90_error": ours["regret_p90_error"],
            "met": good["sweetspot"],
        },
        "of_exhaustive": {"ratio": round(of_exhaustive, 4), "goal": share, "met": of_exhaustive <= share},
        "of_plain_optuna": {
            "ratio": None if of_plain is None else round(of_plain, 4),
            "plain_gets_there": plain["cost_to_both_goals"] is not None,
            "goal": round(PLAIN_GOAL, 4),
            "met": of_plain is not None and of_plain <= PLAIN_GOAL,
        },
    }
    return {
        **parts,
        "met": all(part["met"] for part in parts.values()),
        "defaults_as_good": {name: round(shares[name], 4) for name in DEFAULTS if good[name]},
        "defaults_that_meet_it": [name for name in DEFAULTS if good[name] and shares[name] <= share],
    }


def _is_good(method: Mapping[str, Any]) -> bool:
    return bool(method["regret_median"] <= MEDIAN_GOAL and method["regret_p90"] <= HIGH_GOAL)


def by_method(done: Iterable[Repetition], names: Iterable[str]) -> dict[str, list[Course]]:
    done = list(done)
    return {name: [each.courses[name] for each in done if name in each.courses] for name in names}


def result(bench: Bench, done: Sequence[Repetition]) -> dict[str, Any]:
    """What the JSON says of the methods, the variants and the pruners that were run."""
    splits = [each.split for each in done]
    courses = by_method(done, METHODS)
    points = bench.recording.points
    found = {name: summary(of, splits, points) for name, of in courses.items()}
    told = {
        **found,
        "oracle": oracle(bench, splits),
        "points": len(points),
        "goals": goals(found, len(points)),
        "judge_error": round(100 * float(np.mean([each.judge_error for each in splits])), _DIGITS),
        "search": {
            "trials": bench.config.search.trials,
            "replicates": bench.config.student.replicates.model_dump(),
            "sampler": bench.config.search.sampler,
        },
    }
    ran = {name for each in done for name in each.courses}
    if VARIANTS.keys() <= ran:
        told["variants"] = {n: summary(of, splits, points) for n, of in by_method(done, VARIANTS).items()}
    if PRUNERS.keys() <= ran:
        pruned = by_method(done, PRUNERS)
        beside = comparison(pruned)
        told["pruning"] = {n: summary(of, splits, points) | beside[n] for n, of in pruned.items()}
    told["curves"] = {name: _drawn(Curve.of(of)) for name, of in courses.items()}
    return told


def _drawn(curve: Curve) -> dict[str, list[float]]:
    """A curve thinned out to what a picture shows."""
    there = np.isfinite(curve.high)
    seconds = curve.seconds[there]
    wanted = np.geomspace(seconds[0], seconds[-1], min(len(seconds), 60))
    at = np.unique(np.searchsorted(seconds, wanted * (1 + 1e-12), side="right") - 1)
    return {
        "seconds": seconds[at].round(_DIGITS).tolist(),
        **{name: (100 * getattr(curve, name)[there][at]).round(_DIGITS).tolist() for name in ("median", "low", "high")},
    }


def shown(told: Mapping[str, Any]) -> str:
    """The result, for people."""
    lines = [
        f"{'':<32} {'regret, points':^22} {'seconds':^22}",
        f"{'':<32} {'median':>7} {'p90':>7} {'mean':>6} {'to the end':>12} {'to goal':>9}  chosen most",
        *(_line(name, told[name]) for name in (*METHODS, "oracle")),
    ]
    if "variants" in told:
        lines += ["", "sampler, pruner", *(_line(name, found) for name, found in told["variants"].items())]
    if "pruning" in told:
        lines += ["", "pruned by; beside no pruning: regret added (standard error), cost saved"]
        lines += [
            f"{_line(name, found)}; {found['regret_added']:+.2f} ({found['regret_added_error']:.2f}), "
            f"{found['cost_saved']:.0%}, of students {found['student_cost_saved']:.0%}"
            for name, found in told["pruning"].items()
        ]
    lines.append("")
    met, ours = told["goals"], told["sweetspot"]
    errors = [ours[name] for name in ("regret_median_error", "regret_p90_error")]
    judged = "the teachers that judge are too few to say how sure that is"
    if None not in errors:
        judged = "standard errors over the teachers that judge: {:.2f} and {:.2f} points".format(*errors)
    lines.append(
        f"{told['points']} points, {ours['repetitions']} searches of {told['search']['trials']} trials; of sweetspot's "
        f"median and p90, {judged}"
    )
    ratio = met["of_plain_optuna"]["ratio"]
    lines.append(
        f"goals {'met' if met['met'] else 'not met'}: cost {met['of_exhaustive']['ratio']:.3f} of exhaustive "
        f"(<= {met['of_exhaustive']['goal']:g}), {'-' if ratio is None else f'{ratio:.2f}'} of plain Optuna's to "
        f"both goals of regret (<= 1/3){'' if met['of_plain_optuna']['plain_gets_there'] else ', never reached'}"
    )
    for name, cost in met["defaults_as_good"].items():
        lines.append(f"{name}, without a search: a regret as good, at {cost:.2f} of the exhaustive cost")
    if met["defaults_that_meet_it"]:
        lines.append(
            f"not a result: {' and '.join(met['defaults_that_meet_it'])} has the regret and the cost asked for"
        )
    return "\n".join(lines)


def _line(name: str, found: Mapping[str, Any]) -> str:
    seconds = ["-" if found[key] is None else f"{found[key]:,.0f}" for key in ("cost_median", "cost_to_goal")]
    chosen = found["chosen"]
    return (
        f"{name:<32} {found['regret_median']:7.2f} {found['regret_p90']:7.2f} {found['regret_mean']:6.2f} "
        f"{seconds[0]:>12} {seconds[1]:>9}  batch {chosen['batch_size']}, {chosen['epochs']} epochs "
        f"({chosen['share']:.0%})"
    )
