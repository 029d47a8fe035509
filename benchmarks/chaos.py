"""Chaos: a study whose workers are killed, stopped and drained, whose database goes away, whose blobs are damaged.

``python -m benchmarks.chaos --kills N [--seed S] [--workers W] [--sqlite] [-o FILE]``

A plan is made from the seed: so many workers killed with SIGKILL, and of every other kind of fault about a fifth as
many, each when a certain share of the study's steps has been trained. Real workers (``sweetspot worker``, with and
without ``--forever``) on a real PostgreSQL of its own (or SQLite, without the faults of a server) search the digits and
confirm what they find; whoever carries out the plan starts another worker for each that is gone. The audit
(:mod:`benchmarks.chaos_audit`) compares what is there at the end with the same study undisturbed, to the bit.

The plan repeats with its seed; what each fault meets does not, as the processes run as they like.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.chaos_audit import Finding, audit, results
from benchmarks.chaos_faults import NAME, Fault, Server, plan
from benchmarks.chaos_monkey import CHECKPOINT_SECONDS, GRACE_SECONDS, HEARTBEAT_SECONDS, WORKERS, Monkey
from benchmarks.evidence import evidence, write
from benchmarks.watched_worker import Workers
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import create_or_continue
from sweetspot.study_file import Draft, find

_UNDISTURBED_SECONDS = 3600.0
"""So long the undisturbed study may take."""


def study(faults: int) -> StudyConfig:
    """A study of every point of its space, long enough for so many faults."""
    rungs = 3
    last = max(8, 3 * faults // 2)
    draft = Draft.read(find("digits"))
    values = {
        "search.batch_size": [16, 32],
        "search.epochs": sorted({max(1, last * rung // rungs) for rung in range(1, rungs + 1)}),
        "search.trials": 2 * rungs,
        "search.min_steps": 0,
        "student.epochs": max(3, faults // 5),
        "student.replicates": {"min": 2, "max": 2},
        "confirm.seeds": 2,
        # Without the cheapest teacher, which hangs on how long the epochs took.
        "confirm.arms": ["student_alone", "label_smoothing", "most_accurate_teacher", "longest_teacher"],
        "pruner": {"name": "none"},
        "run": {
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "grace_seconds": GRACE_SECONDS,
            "checkpoint_seconds": CHECKPOINT_SECONDS,
        },
    }
    for key, value in values.items():
        draft.set(key, value, key)
    return draft.config()


@dataclass(frozen=True)
class Outcome:
    """What a plan has done to a study.

    Attributes:
        done: how often each kind of fault met somebody.
        findings: what the audit found wrong; none is how it should be.
    """

    planned: dict[str, int]
    done: dict[str, int]
    summary: dict[str, Any]
    findings: list[Finding]


def go(
    faults: Sequence[Fault], folder: Path, workers: Workers, server: Server | None,
    count: int = WORKERS, log: Callable[[str], None] = lambda line: None,
) -> Outcome:  # fmt: skip
    """The study undisturbed, then disturbed, and the audit."""
    config = study(len(faults))
    data = load_study_data(config, data_folder(), torch.device("cpu"))
    calm, wild = folder / "undisturbed", folder / "disturbed"
    calm.mkdir()
    wild.mkdir()
    began = time.monotonic()
    with Store(f"sqlite:///{calm}/study.db", str(calm / "artifacts")) as store:
        create_or_continue(store, NAME, config, data)
        first = [workers.start(NAME, f"sqlite:///{calm}/study.db", calm) for _ in range(2)]
        for worker in first:
            worker.until_it_has_ended(_UNDISTURBED_SECONDS)
            assert worker.status == 0, worker.said
        expected = results(store, NAME)
    steps = sum(len(worker.events) for worker in first)
    calm_seconds = time.monotonic() - began
    log(f"undisturbed: {calm_seconds:.0f} s, {steps} steps")
    storage = server.url if server is not None else f"sqlite:///{wild}/study.db"
    began = time.monotonic()
    with Store(storage, str(wild / "artifacts")) as store:
        create_or_continue(store, NAME, config, data)
        monkey = Monkey(faults, steps, storage, store, wild, workers, server, count, log)
        findings: list[Finding] = []
        try:
            monkey.run()
        except TimeoutError as error:
            findings.append(Finding("finished", str(error)))
            workers.kill()
        seconds = time.monotonic() - began
        summary, found = audit(store, NAME, config, data.train_images, expected, monkey.disturbance)
        findings += found
    return Outcome(
        dict(Counter(fault.kind.value for fault in faults)),
        dict(monkey.done),
        {"seconds_undisturbed": round(calm_seconds, 1), "seconds": round(seconds, 1), **summary},
        findings,
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="workers killed; other faults in proportion")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the plan")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="W", help="at the study at once")
    parser.add_argument("--sqlite", action="store_true", help="SQLite, without the faults of a server")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the result there, as JSON")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending workers and server
    faults = plan(given.kills, given.seed, has_server=not given.sqlite)
    with ExitStack() as stack:
        # Not under a long path: that of the server's socket may be 107 bytes long.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)))
        server = None if given.sqlite else stack.enter_context(Server(folder / "pg"))
        workers = stack.enter_context(Workers())
        outcome = go(faults, folder, workers, server, given.workers, lambda line: print(line, flush=True))
    for kind, planned in sorted(outcome.planned.items()):
        print(f"{kind:<50} {outcome.done.get(kind, 0)} of {planned}")
    for key, value in outcome.summary.items():
        print(f"{key:<50} {value}")
    for finding in outcome.findings:
        print(f"FOUND {finding.prop}: {finding.message}")
    print("all as it should be" if not outcome.findings else f"{len(outcome.findings)} findings")
    if given.output:
        made_by = evidence("benchmarks.chaos", arguments)
        write(given.output, {"benchmark": "chaos", **made_by, "seed": given.seed, **asdict(outcome)})
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
