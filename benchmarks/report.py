"""How long the report of a large study takes: reading it from the database, and making the page."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evidence import evidence, write
from benchmarks.large_study import write_large_study
from sweetspot.report.page.contents import read_report
from sweetspot.report.page.files import content
from sweetspot.store import Store


def measure(folder: Path, trials: int, rounds: int) -> dict[str, Any]:
    """Seconds of reading and of making the HTML page, each of them, and the page's bytes.

    Args:
        folder: for the database.
        trials: of the study, which is written first, and not timed.
        rounds: how often both are done. The first has the imports, too, which it shares with every command.
    """
    with Store(f"sqlite:///{folder}/study.db") as store:
        write_large_study(store, trials=trials)
        reading, making, page = [], [], b""
        for _ in range(rounds):
            seconds, report = _timed(lambda: read_report(store, None))
            reading.append(seconds)
            seconds, page = _timed(partial(content, report, ".html"))
            making.append(seconds)
    both = [round(a + b, 3) for a, b in zip(reading, making, strict=True)]
    return {
        "trials": trials,
        "bytes": len(page),
        "seconds": both,
        "median_seconds": round(statistics.median(both), 3),
        "reading": [round(a, 3) for a in reading],
        "making": [round(a, 3) for a in making],
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=2000, metavar="N", help="of the study (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often it is done (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.trials, given.rounds)
    print(
        f"{found['trials']:,} trials: {found['bytes'] / 1e6:.2f} MB in {found['seconds'][0]:.1f} s the first time, "
        f"{found['median_seconds']:.1f} s in the median of {given.rounds}"
    )
    if given.json:
        write(given.json, evidence("benchmarks.report", arguments) | found)


if __name__ == "__main__":
    main(sys.argv[1:])
