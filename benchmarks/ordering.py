"""What workers wait for each other, with and without ordering, on a simulated clock.

``python -m benchmarks.ordering [--seeds N] [--json FILE]``, about 4 minutes

Several workers at one study wait when they want teachers of the same trajectory at once. Before: the sampler proposes
as if each worker were alone. After: it sees the leases and the running trials (:mod:`sweetspot.study.ordering`) and
prefers points that need no wait. Everything is real but the training: see :mod:`benchmarks.simulation`.

The study is the built-in one of CIFAR-100 (5 batch sizes x 10 rungs from 10 to 240 epochs, 40 trials) with the speeds
that its file gives for a GPU: 10,000 images/s of the teacher, 25,000 of a student, so that a trial's 3 students of 60
epochs take 324 s. Added is an assumed 2 ms for every step of the teacher: an epoch takes 5.9 s at batch size 64 and
4.6 s at 1,024. The less the students take, the more often teachers are waited for: the same with a tenth of the
students' time is the second case. Nothing is pruned, and the accuracies are made up.

For every seed the study is run twice, and the ratios after / before are paired. The two runs do not visit the same
points, which shows in the makespan, too; the idle fraction is what ordering is about.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import optuna

from benchmarks.evidence import evidence, write
from benchmarks.simulation import Costs, Outcome, simulate
from sweetspot.config import StudyConfig
from sweetspot.store import Store
from sweetspot.study.workplace import resolved
from sweetspot.study_file import Draft, find

WORKERS = 4
SEEDS = 10
SCHEDULES = ("constant", "wsd")
SAMPLERS = ("tpe", "random")
STUDENT_SECONDS = (324.0, 32.4)
_DIGITS = 4


def costs(student_seconds: float) -> Costs:
    """What the work takes on the GPU of the study file."""
    return Costs(images=45_000, images_per_second=10_000, step_seconds=0.002, student_seconds=student_seconds)


@dataclass(frozen=True)
class Pair:
    """One study, with the same seed, before and after."""

    seed: int
    before: Outcome
    after: Outcome


def study(schedule: str, sampler: str, seed: int) -> StudyConfig:
    """The built-in study of CIFAR-100 with another schedule, sampler and seed."""
    draft = Draft.read(find("cifar100"))
    if schedule != draft.values["teacher"]["schedule"]["name"]:
        draft.set("teacher.schedule", {"name": schedule}, "schedule")
    draft.set("search.sampler", sampler, "sampler")
    draft.set("seed", seed, "seed")
    return resolved(draft.config(), "cpu")


def measure(configs: Sequence[StudyConfig], workers: int, costs: Costs) -> list[Pair]:
    """Each study twice, each time in a new store."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.db"
        Store(f"sqlite:///{empty}").close()

        def outcome(config: StudyConfig, *, ordered: bool) -> Outcome:
            database = Path(folder) / f"{config.seed}-{ordered}.db"
            shutil.copy(empty, database)  # to create the schema anew takes as long as a study does
            with Store(f"sqlite:///{database}") as store:
                return simulate(config, store, workers, costs, ordered=ordered)

        return [Pair(c.seed, outcome(c, ordered=False), outcome(c, ordered=True)) for c in configs]


def summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Of the pairs of one case: every figure for every seed, its median and its range; ratios are after / before."""

    def of(figure: Callable[[Pair], float]) -> dict[str, Any]:
        values = [round(figure(pair), _DIGITS) for pair in pairs]
        return {"median": round(median(values), _DIGITS), "min": min(values), "max": max(values), "seeds": values}

    def side(which: Callable[[Pair], Outcome]) -> dict[str, Any]:
        return {
            "waiting_seconds_per_worker": of(lambda pair: fmean(which(pair).waiting)),
            "waiting_fraction": of(lambda pair: which(pair).waiting_fraction),
            "idle_fraction": of(lambda pair: which(pair).idle_fraction),
            "makespan_seconds": of(lambda pair: which(pair).makespan),
            "teacher_epochs_trained": of(lambda pair: which(pair).trained),
            "teacher_epochs_requested": of(lambda pair: which(pair).requested),
        }

    return {
        "before": side(lambda pair: pair.before),
        "after": side(lambda pair: pair.after),
        "idle_ratio": of(lambda pair: pair.after.idle_fraction / pair.before.idle_fraction),
        "makespan_ratio": of(lambda pair: pair.after.makespan / pair.before.makespan),
    }


def table(cases: Sequence[dict[str, Any]]) -> str:
    """The cases, a line each, for people: medians over the seeds, and the range of the ratio."""
    lines = [
        f"{'students':<9} {'schedule':<9} {'sampler':<8} {'waiting':<15} {'idle':<15} {'makespan':<19} ratio [range]",
        f"{'':<27} {'before -> after, % of worker time':<31} {'before -> after':<19} after / before",
    ]
    for case in cases:
        before, after, ratio = case["before"], case["after"], case["makespan_ratio"]
        cells = [
            f"{100 * before[key]['median']:4.1f} -> {100 * after[key]['median']:4.1f}"
            for key in ("waiting_fraction", "idle_fraction")
        ]
        makespan = f"{before['makespan_seconds']['median']:,.0f} -> {after['makespan_seconds']['median']:,.0f} s"
        seconds = f"{case['student_seconds']:g} s"
        lines.append(
            f"{seconds:<9} {case['schedule']:<9} {case['sampler']:<8} {cells[0]:<15} {cells[1]:<15} {makespan:<19} "
            f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ordering", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="studies of each case (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cases = []
    for seconds, schedule, sampler in product(STUDENT_SECONDS, SCHEDULES, SAMPLERS):
        pairs = measure([study(schedule, sampler, seed) for seed in range(given.seeds)], WORKERS, costs(seconds))
        case = {"student_seconds": seconds, "schedule": schedule, "sampler": sampler}
        cases.append({**case, **summary(pairs)})
    print(table(cases))
    if given.json:
        made_by = evidence("benchmarks.ordering", arguments)
        write(given.json, {"benchmark": "ordering", **made_by, "workers": WORKERS, "cases": cases})


if __name__ == "__main__":
    main(sys.argv[1:])
