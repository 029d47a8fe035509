"""Samplers, pruners and racing, replayed on a recorded table: regret against cost, beside what people do without them.

``python -m benchmarks.search TABLE.json [--json] [--plot FILE.png|.svg] [--variants] [--pruning]``, 1 to 5 minutes

The table is one that ``sweetspot grid --export`` wrote. A replayed search is the real one (Optuna, sampler, pruner,
race), except that teachers and students are looked up: what they cost are the seconds that they took when the table was
recorded. What a regret is, and why it may be negative: :mod:`benchmarks.search_regret`. The methods:
:mod:`benchmarks.search_methods`.

A search has ``replicates.max`` = 3 students a point, trials for a quarter of the points (an eighth from 100 points on),
at least 10 and at most 40, and the ``--timeout`` of ``sweetspot optimize``: once 0.7 of what the goal allows is spent
(a quarter of the exhaustive cost, a tenth from 100 points on), no further trial begins. What an exhaustive search would
cost, ``--dry-run`` says before a study begins.

Costs are seconds of one worker: teacher epochs newly trained, decay branches included, their measuring, and students.
Where nothing is shared every trial trains its teacher from the start; those who do not measure do not pay for it. The
defaults without a search pay for their teachers and for the one student that is kept.

``cost_to_goal`` is when the median regret first is at most 0.2 points and stays so; ``cost_to_both_goals`` when the
90th percentile is at most 0.5, too, and this is what "plain Optuna gets there" means in the goals. Every draw follows
from the number of its repetition: a replay repeats exactly.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import Parser, count, errors_in_one_line
from benchmarks.evidence import evidence
from benchmarks.search_bench import Bench, repetitions
from benchmarks.search_methods import METHODS, VARIANTS
from benchmarks.search_plot import draw
from benchmarks.search_pruning import PRUNERS
from benchmarks.search_result import result, shown
from sweetspot.config import Replicates
from sweetspot.report.table import Table, read_table

REPETITIONS, FURTHER_REPETITIONS = 100, 30
"""Of the methods; of variants and pruners."""
REPLICATES = Replicates().max


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="benchmarks.search", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", type=Path, metavar="TABLE.json", help="written by sweetspot grid --export")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--repetitions",
        type=count,
        metavar="N",
        help=f"searches of each method ({REPETITIONS}; variants and pruners fewer)",
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--workers", type=count, default=cores, metavar="N", help="processes (%(default)s)")
    parser.add_argument("--trials", type=count, metavar="N", help="of each search (a quarter of the points, 10 to 40)")
    parser.add_argument(
        "--replicates", type=count, default=REPLICATES, metavar="N", help="students of a point, at most (%(default)s)"
    )
    parser.add_argument("--plot", type=_picture, metavar="FILE", help="regret against cost, .png or .svg")
    parser.add_argument("--variants", action="store_true", help="also other samplers, each with and without pruning")
    parser.add_argument("--pruning", action="store_true", help="also what other rules than the learned one prune by")
    given = parser.parse_args(arguments)
    with errors_in_one_line():
        table = read_table(given.table)
        bench = Bench.of(table, given.trials, given.replicates)
        names = [*METHODS, *(VARIANTS if given.variants else ()), *(PRUNERS if given.pruning else ())]
        times = {name: given.repetitions or (REPETITIONS if name in METHODS else FURTHER_REPETITIONS) for name in names}
        told = result(bench, repetitions(bench, times, given.workers))
        made_by = {"benchmark": "search", **evidence("benchmarks.search", arguments), "table": _identity(table)}
        if given.plot:
            draw(told, table.study, given.plot)
    print(json.dumps({**made_by, **told}, indent=2, ensure_ascii=False) if given.json else shown(told))


def _identity(table: Table) -> dict[str, Any]:
    return {
        "study": table.study,
        "data": table.data.dataset,
        "data_hash": table.data.hash,
        "created": table.created,
        "command": table.command,
        "machine": table.machine,
        "teacher_seeds": table.teacher_seeds,
        "replicates": table.replicates,
    }


def _picture(text: str) -> Path:
    if Path(text).suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png or .svg")
    return Path(text)


if __name__ == "__main__":
    main(sys.argv[1:])
