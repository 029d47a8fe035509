"""A worker's process of :mod:`benchmarks.fleet`: the real one, but that it rests where it would train.

Replaced are the teacher's and the students' training (:class:`Resting`); all else is what ``sweetspot worker`` runs. It
writes down, trial by trial, how long what took and what was asked of the database.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import alembic.command  # noqa: F401 - what a worker imports late, the process they are forked from imports once
import numpy as np
import optuna
import psycopg  # noqa: F401 - likewise
import sklearn.datasets  # noqa: F401 - likewise
from optuna.samplers import TPESampler
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from benchmarks.simulation import accuracy
from sweetspot.data.seeding import seed_of
from sweetspot.store import Leases, Measurement, Probe, Student
from sweetspot.store.database import Storage
from sweetspot.store.students import Purpose
from sweetspot.study import claim, objective
from sweetspot.study.jobs import Search
from sweetspot.study.ordering import Ordering
from sweetspot.study.sampler import PointSampler
from sweetspot.study.space import Point
from sweetspot.study.visit import Test, Visit
from sweetspot.workers import worker
from sweetspot.workers.drain import Drain

_SAYS_SECONDS = 2.0
"""Between two epochs: a worker says each to the database."""


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        seconds: of a trial, on average.
        notes: the file into which the worker writes a line for each trial.
    """

    study: str
    storage: str
    artifacts: str
    seconds: float
    notes: str


@dataclass
class Note:
    """One trial; the times by the monotonic clock, seconds.

    Attributes:
        wanted: when the worker wanted a trial: it was free.
        claimed: when it held the claim at last.
        suggested: when all parameters were.
        released: when others could claim.
        returned: when the objective had returned.
        ended: when the result was told and the worker was free again.
        cpu: seconds of the process since it was free before.
        seconds: of its main thread, by what it was at ("claim/sweep/read"), each without what is listed under it.
        asked: of the database, by "claim", "trial", "finish" and "background": {"statements": n, …}.
    """

    wanted: float
    claimed: float = 0.0
    suggested: float = 0.0
    released: float = 0.0
    returned: float = 0.0
    ended: float = 0.0
    number: int = -1
    cpu: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    asked: dict[str, Counter[str]] = field(default_factory=dict)


class Resting(Visit):
    """A visit that rests where it would train, half of the time for the teacher, and makes up what it measures."""

    mean_seconds = 0.0

    def train_teacher(self, on_rung: Callable[[int, Measurement], None] = lambda epoch, measurement: None) -> None:
        assert self._point is not None
        assert self._trajectory is not None
        spent, before = self._trajectory.spent, 0
        for rung in (epochs for epochs in self.config.search.ladder if epochs <= self._point.epochs):
            self._rest(self._seconds / 2 * (rung - before) / self._point.epochs, "teacher", rung)
            spent.epochs_reached = spent.epochs_trained = before = rung
            self._trajectory.on_saved()
            on_rung(rung, self._measured(rung, "train"))

    def measurements(self) -> dict[Probe, Measurement]:
        assert self._point is not None
        probes: tuple[Probe, ...] = ("train", "validation")
        return {probe: self._measured(self._point.epochs, probe) for probe in probes}

    def train_students(
        self, purpose: Purpose, replicates: range, test: Test = lambda model: None, test_hash: str = ""
    ) -> list[Student]:
        assert isinstance(self._point, Point)
        self._rest(self._seconds / 2, "students", self.config.student.epochs)
        value = accuracy(self.config.seed, self._point, self._workplace.data.train_images)
        name = self.distillation.hash
        return [Student(name, purpose, index, self._workplace.study, value, {}, 0.0, "") for index in replicates]

    @property
    def _seconds(self) -> float:
        """Of this point's trial; different ones differ by up to a half."""
        draw = random.Random(seed_of(self.config.seed, "rest", str(self._point)))
        return draw.uniform(0.5, 1.5) * self.mean_seconds

    def _measured(self, epoch: int, probe: Probe) -> Measurement:
        names = ("similarity_entropy", "similarity_information", "delivered_similarity", "non_target_mass", "accuracy")
        values = dict.fromkeys(names, 0.5 + float(np.exp(-epoch / 40)))
        return Measurement(epoch, self.config.teacher.probe_temperature, probe, True, values)

    def _rest(self, seconds: float, phase: str, epoch: int) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._progress(phase, epoch, 0.5)
            time.sleep(min(left, _SAYS_SECONDS))


class Notes:
    """Watches this process, whose main thread has one trial after another."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")
        self._thread = threading.get_ident()
        self._path = ["claim"]
        self._since = time.perf_counter()
        self._cpu = time.process_time()
        self._note = Note(time.monotonic())
        self._held = False

    def watch(self) -> None:
        """Replace what is to be watched, in this process, for good."""
        for owner, name, what in (
            (claim, "sweep", "sweep"),
            (Search, "wants_trial", "wants_trial"),
            (Search, "sampler", "ordering"),
            (Ordering, "must_wait", "ordering"),
            (PointSampler, "sample_relative", "sampler"),
            (optuna.Study, "add_trials", "shadow study"),
            (TPESampler, "sample_relative", "tpe"),
            (TPESampler, "infer_relative_search_space", "tpe"),
            (Leases, "acquire", "lease"),
            (Leases, "release", "lease"),
            (Drain, "wait", "back-off"),
            (Storage, "_get_trials", "read trials"),
            (Storage, "get_trial", "read a trial"),
            (Storage, "_create_new_trial", "create a trial"),
            (Storage, "_set_trial_param", "write"),
            (Storage, "set_trial_user_attr", "write"),
            (Storage, "set_trial_system_attr", "write"),
            (Storage, "set_trial_intermediate_value", "write"),
            (Storage, "set_trial_state_values", "write"),
        ):
            self._time(owner, name, what)
        self._follow()
        event.listen(Engine, "before_cursor_execute", lambda *_: self._count("statements"))
        event.listen(Engine, "commit", lambda *_: self._count("commits"))
        event.listen(Pool, "checkout", lambda *_: self._count("checkouts"))
        event.listen(Pool, "connect", lambda *_: self._count("connections"))

    def _follow(self) -> None:
        """Know which stage a trial is at."""
        acquire, release, suggest, run = Leases.acquire, Leases.release, Search.suggest, Search.run

        def acquired(leases: Leases, name: str, heading_for: int = 0) -> Any:
            lease = acquire(leases, name, heading_for)
            if lease is not None:
                self._note.claimed = time.monotonic()
            return lease

        def released(leases: Leases, lease: Any) -> None:
            release(leases, lease)
            if self._note.suggested and not self._note.released:
                self._note.released = time.monotonic()
                self._at("trial")

        def suggested(search: Search, trial: optuna.Trial) -> Any:
            point = suggest(search, trial)
            self._note.number, self._note.suggested = trial.number, time.monotonic()
            return point

        def ran(search: Search, trial: optuna.Trial, point: Any) -> float:
            try:
                return run(search, trial, point)
            finally:
                self._note.returned = time.monotonic()
                self._at("finish")

        def ended(*arguments: Any) -> claim.Outcome:
            outcome = claim.run_next(*arguments)
            if outcome == claim.Outcome.RAN:
                self._end()
            return outcome

        replacements: list[tuple[Any, str, Any]] = [
            (Leases, "acquire", acquired),
            (Leases, "release", released),
            (Search, "suggest", suggested),
            (Search, "run", ran),
            (worker, "run_next", ended),
        ]
        for owner, name, replacement in replacements:
            setattr(owner, name, replacement)

    def begin(self) -> None:
        """The worker is ready: it wants its first trial."""
        self._at("claim")
        self._cpu, self._note = time.process_time(), Note(time.monotonic())

    def _end(self) -> None:
        self._at("claim")
        cpu, note = time.process_time(), self._note
        note.ended, note.cpu = time.monotonic(), cpu - self._cpu
        self._cpu, self._note = cpu, Note(note.ended)
        self._file.write(json.dumps(vars(note)) + "\n")
        self._file.flush()

    def _at(self, stage: str) -> None:
        self._switch()
        self._path = [stage]

    def _switch(self) -> None:
        now = time.perf_counter()
        path, seconds = "/".join(self._path), self._note.seconds
        seconds[path] = seconds.get(path, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def _within(self, what: str) -> Iterator[None]:
        """In the block, the main thread is at this."""
        if threading.get_ident() != self._thread or self._path[-1] == what:
            yield
            return
        self._switch()
        path = self._path
        path.append(what)
        try:
            yield
        finally:
            self._switch()
            if path is self._path:  # or else the next stage has begun
                path.pop()

    def _time(self, owner: Any, name: str, what: str) -> None:
        if (function := getattr(owner, name, None)) is None:
            return

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self._within(what):
                return function(*arguments, **options)

        setattr(owner, name, timed)

    def _count(self, what: str) -> None:
        is_main = threading.get_ident() == self._thread
        stage = self._path[0] if is_main else "background"
        self._note.asked.setdefault(stage, Counter())[what] += 1


def work(task: Task) -> None:
    """The whole life of a worker's process: ``sweetspot worker``."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ |= {"SWEETSPOT_STORAGE": task.storage, "SWEETSPOT_ARTIFACTS": task.artifacts}
    Resting.mean_seconds = task.seconds
    notes = Notes(Path(task.notes))
    notes.watch()
    search_and_confirm = worker.search_and_confirm

    def begin(*arguments: Any) -> None:
        notes.begin()
        search_and_confirm(*arguments)

    replacements: list[tuple[Any, str, Any]] = [
        (objective, "Visit", Resting),
        (worker, "search_and_confirm", begin),
    ]
    for owner, name, replacement in replacements:
        setattr(owner, name, replacement)
    worker.work(task.study, device="cpu")
