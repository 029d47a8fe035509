"""The monkey: carries out a plan of faults on the real workers of a study, and keeps their number up."""

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import select, text

from benchmarks.chaos_audit import Disturbance
from benchmarks.chaos_faults import NAME, Fault, Kind, Server
from benchmarks.watched_worker import Worker, Workers
from sweetspot.store import Store
from sweetspot.store.outage import patience
from sweetspot.store.schema import CheckpointRow, SnapshotRow, StudentRow
from sweetspot.store.trajectories import run_of
from sweetspot.study.conclusion import confirmation
from sweetspot.study.ranking import ranking
from sweetspot.study.search import CONFIRM, Counts, companions, load

WORKERS = 3
HEARTBEAT_SECONDS = 1
GRACE_SECONDS = 15
CHECKPOINT_SECONDS = 0.3
PACE_SECONDS = 0.025
"""Added to each step of the disturbed study: faults take their time, and a fast machine would be done before them."""
CUT_SECONDS = 3.0
"""Longer than an attempt to connect, shorter than the outage that workers survive (two thirds of the grace period)."""
_STALLED_SECONDS = 90.0
"""After so long without a step the study is given up."""
_JOINING_SECONDS = 30.0
_LOOK_SECONDS = 0.3
_IN_TRANSACTION_SECONDS = 0.3
"""No transaction lasts so long, but that of a process that is stopped."""


_CHECKPOINTS = select(CheckpointRow).order_by(CheckpointRow.run)


@dataclass
class Monkey:
    """Carries out a plan on the workers of a study, and keeps their number up until the study is finished.

    Args:
        steps: that the undisturbed study trains.
        log: told what happens.
    """

    faults: Sequence[Fault]
    steps: int
    storage: str
    store: Store
    folder: Path
    workers: Workers
    server: Server | None
    count: int = WORKERS
    log: Callable[[str], None] = lambda line: None
    disturbance: Disturbance = field(default_factory=Disturbance)
    done: Counter[str] = field(default_factory=Counter)
    _living: list[Worker] = field(default_factory=list)
    _stopped: list[tuple[float, Worker]] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    _started: int = 0
    _finished: bool = False
    _looked: float = 0.0

    def run(self) -> None:
        """Until the study and its confirmation are finished, and every worker has ended.

        Raises:
            TimeoutError: if nothing is trained any more although it is not finished.
        """
        pending = list(self.faults)
        trained, since = -1, time.monotonic()
        while pending or not self._is_finished():
            self._resume(time.monotonic())
            self._keep_up()
            if (now := self._trained()) != trained:
                trained, since = now, time.monotonic()
            if time.monotonic() - since > _STALLED_SECONDS:
                raise TimeoutError(self._state())
            if pending and (now >= pending[0].at * self.steps or self._is_finished()):
                self._carry_out(pending.pop(0))
            time.sleep(0.05)
        self._say("finished")
        self._resume(float("inf"))
        self._end()

    def _trained(self) -> int:
        return sum(len(worker.events) for worker in self.disturbance.workers)

    def _say(self, line: str) -> None:
        self.log(f"{time.monotonic() - self._begun:7.1f} s  {self._trained() / self.steps:4.0%}  {line}")

    # -- workers ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._started += 1
        # Those with --forever are drained at the end; the others end when nothing is left.
        is_forever = self._started % 3 == 0
        worker = self.workers.start(NAME, self.storage, self.folder, forever=is_forever, pace=PACE_SECONDS)
        self._living.append(worker)
        self.disturbance.workers.append(worker)

    def _keep_up(self) -> None:
        """Start others in place of those that are gone."""
        for worker in [worker for worker in self._living if not worker.lives]:
            self._living.remove(worker)
            if not self._is_finished():
                self._say(f"worker {worker.pid} has ended of itself: {worker.status}")
                self.disturbance.ended_of_itself.append(worker)
        while len(self._living) < self.count and not self._is_finished():
            self._start()

    def _end(self) -> None:
        for worker in [worker for worker in self._living if worker.forever]:
            self._drain(worker, lambda worker: worker.signal(signal.SIGTERM))
        for worker in self._living:
            try:
                worker.until_it_has_ended()
            except AssertionError:
                raise TimeoutError(f"worker {worker.pid} does not end although all is done: {worker.said}") from None
            self.disturbance.ended_of_itself.append(worker)
        self._living = []

    def _is_finished(self) -> bool:
        """Whether the search, and the confirmation, are; as of a moment ago."""
        if not self._finished and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._finished = self._look()
            self._looked = time.monotonic()
        return self._finished

    def _look(self) -> bool:
        with patience(60):
            if not companions(self.store, NAME):
                return False
            record = self.store.studies.get(NAME)
            assert record is not None
            study = load(self.store, NAME)
            trials = study.get_trials(deepcopy=False)
            counts = Counts.of(trials)
            confirm = Counts.of(load(self.store, NAME + CONFIRM).get_trials(deepcopy=False))
            if counts.finished < record.config.search.trials or counts.running + confirm.running + confirm.waiting:
                return False
            ranked = ranking(self.store, record, trials, study.user_attrs["train_images"])
            return confirmation(self.store, record, ranked) is not None

    def _victims(self, *, has_begun: bool = True) -> list[Worker]:
        """Those that live and run, and have begun to train."""
        stopped = [worker for _, worker in self._stopped]
        return [w for w in self._living if w not in stopped and w.lives and (w.events or not has_begun)]

    def _victim(self, rng: random.Random, *, of_teacher: bool = False, has_begun: bool = True) -> Worker | None:
        """One of them, as soon as there is one; at a teacher if one is. None if there is none for long."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not self._is_finished():
            self._resume(time.monotonic())
            self._keep_up()
            if victims := self._victims(has_begun=has_begun):
                at_teacher = [w for w in victims if w.events and w.events[-1].is_of_teacher]
                return rng.choice(at_teacher if of_teacher and at_teacher else victims)
            time.sleep(0.05)
        return None

    def _gone(self, worker: Worker) -> None:
        self._living.remove(worker)

    def _state(self) -> str:
        said = "\n".join(f"worker {w.pid}: {w.said}" for w in self._living)
        with patience(60):
            trials = [
                (t.number, t.state.name, t.params, t.user_attrs)
                for name in (NAME, *companions(self.store, NAME))
                for t in load(self.store, name).get_trials(deepcopy=False)
                if t.state in (TrialState.RUNNING, TrialState.WAITING)
            ]
        return f"no step for {_STALLED_SECONDS:.0f} s; trials under way: {trials}\n{said}"

    # -- faults -------------------------------------------------------------------------------------------------------

    def _carry_out(self, fault: Fault) -> None:
        rng = random.Random(fault.seed)
        time.sleep(rng.uniform(0, 0.3))
        match fault.kind:
            case Kind.KILL:
                done = self._kill_at_some_moment(rng)
            case Kind.HUNT:
                done = self._hunt(rng)
            case Kind.STOP:
                done = self._stop(self._victim(rng))
            case Kind.DRAIN:
                done = self._drain(self._victim(rng), lambda worker: worker.signal(signal.SIGTERM))
            case Kind.DRAIN_ASKED:
                done = self._drain(self._victim(rng), self._ask_to_stop)
            case Kind.OVERWRITE | Kind.TRUNCATE | Kind.REMOVE:
                attempts = (self._damage(fault.kind, rng) for _ in range(20))
                done = next(filter(None, attempts), "")
            case _:
                done = self._disturb_database(fault.kind, rng)
        self.done[fault.kind.value] += bool(done)
        self._say(f"{fault.kind.value}: {done or 'nobody there'}")

    def _kill_at_some_moment(self, rng: random.Random) -> str:
        """At any, or just when something was saved: before what comes after it, like the release of a lease."""
        victim = self._victim(rng, has_begun=rng.random() < 0.8)
        if victim is not None and rng.random() < 0.4:
            seen, deadline = len(victim.events), time.monotonic() + 2
            while time.monotonic() < deadline and victim.lives:
                if any(event.what == "saved" for event in victim.events[seen:]):
                    break
                time.sleep(0.001)
        return self._kill(victim)

    def _kill(self, worker: Worker | None) -> str:
        if worker is None:
            return ""
        worker.kill()
        self._gone(worker)
        self.disturbance.killed.append(worker)
        return f"{worker.pid} {_doing(worker)}"

    def _hunt(self, rng: random.Random) -> str:
        """Kill whoever is at one point, three times and once more, each when it has saved something of it."""
        victim, kills, params = self._victim(rng, of_teacher=True), 0, None
        seen: dict[int, float] = {}
        deadline = time.monotonic() + 30
        while victim is not None and time.monotonic() < deadline and kills < 4 and not self._is_finished():
            self._resume(time.monotonic())
            self._keep_up()
            for worker, trial, point in self._at_work():
                since = seen.setdefault(trial, time.monotonic())
                saved = any(e.what == "saved" and e.at > since for e in worker.events)
                if saved and (worker is victim if params is None else point == params):
                    params = point
                    self._kill(worker)
                    kills += 1
                    break
            time.sleep(0.02)
            if params is None and not victim.lives:
                break
        return f"{kills} times at {params}" if kills else ""

    def _at_work(self) -> list[tuple[Worker, int, dict[str, Any]]]:
        """Workers with the number and the point of the trial that each is at."""
        with patience(60):
            running = load(self.store, NAME).get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            pids = {record.id: record.pid for record in self.store.workers.all() if not record.ended}
        workers = {worker.pid: worker for worker in self._victims()}
        at = [(workers.get(pids.get(t.user_attrs.get("worker", ""), 0)), t) for t in running]
        return [(worker, t.number, t.params) for worker, t in at if worker is not None and t.params]

    def _stop(self, worker: Worker | None) -> str:
        """SIGSTOP, but not within a transaction: there it would keep everybody from writing."""
        while worker is not None and worker.lives:
            worker.signal(signal.SIGSTOP)
            if not self._somebody_writes():
                self._stopped.append((time.monotonic() + GRACE_SECONDS + 2, worker))
                self.disturbance.stopped.append(worker)
                return f"{worker.pid} {_doing(worker)}"
            worker.signal(signal.SIGCONT)
            time.sleep(0.05)
        return ""

    def _somebody_writes(self) -> bool:
        if self.server is not None:
            long = f"now() - xact_start > interval '{_IN_TRANSACTION_SECONDS} s' AND pid <> pg_backend_pid()"
            query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {long}"
            time.sleep(1.5 * _IN_TRANSACTION_SECONDS)
            with self.store.database.engine.connect() as connection:
                return bool(connection.scalar(text(query)))
        try:
            with sqlite3.connect(str(self.store.url.database), timeout=1.0, isolation_level=None) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
        return False

    def _resume(self, now: float) -> None:
        """Those that were stopped for long enough go on."""
        for until, worker in list(self._stopped):
            if until <= now:
                self._stopped.remove((until, worker))
                worker.signal(signal.SIGCONT)
                self._say(f"{worker.pid} goes on")

    def _drain(self, worker: Worker | None, ask: Callable[[Worker], None], asked: float | None = None) -> str:
        if worker is None:
            return ""
        asked = asked or time.monotonic()
        ask(worker)
        with suppress(AssertionError):
            worker.until_it_has_ended()
        self.disturbance.drained.append((worker, time.monotonic() - asked))
        self._gone(worker)
        return f"{worker.pid} {worker.status} after {time.monotonic() - asked:.1f} s"

    def _ask_to_stop(self, worker: Worker) -> None:
        with patience(60):
            self.store.workers.drain([r.id for r in self.store.workers.all() if r.pid == worker.pid and not r.ended])

    def _damage(self, kind: Kind, rng: random.Random) -> str:
        """Of any network that is there, or from which a teacher goes on whose worker is killed at this moment."""
        victim = self._victim(rng, of_teacher=True) if rng.random() < 0.5 else None
        if victim is not None and victim.events[-1].is_of_teacher:
            victim.signal(signal.SIGSTOP)
            done = self._damage_one(kind, rng, victim.events[-1].run)
            return f"{done}, {self._kill(victim)} killed" if done else self._kill(victim) and ""
        return self._damage_one(kind, rng, None)

    def _damage_one(self, kind: Kind, rng: random.Random, run: str | None) -> str:
        with patience(60), self.store.database.session() as session:
            checkpoints = [(row.state, row.run, f"checkpoint at {row.epoch}") for row in session.scalars(_CHECKPOINTS)]
            snapshots = list(session.scalars(select(SnapshotRow).order_by(SnapshotRow.epoch)))
            students = [(row.weights, "", "weights of a student") for row in session.scalars(select(StudentRow))]
        weights = [(row.weights, run_of(row.recipe, row.branch), f"weights at {row.epoch}") for row in snapshots]
        optimizers = [
            (row.optimizer, run_of(row.recipe, row.branch), f"optimiser at {row.epoch}")
            for row in snapshots
            if row.optimizer
        ]
        if run is None:
            chosen = rng.choice([group for group in (weights, optimizers, students) if group] or [[]])
        else:
            chosen = [found for found in checkpoints if found[1] == run]
            chosen = chosen or [found for found in rng.choice([weights, optimizers]) if found[1] == run][-1:]
        if not chosen:
            return ""
        name, of, what = rng.choice(chosen)
        path = self.folder / "artifacts" / "blobs" / name[:2] / name
        try:
            size = path.stat().st_size
            if kind is Kind.OVERWRITE:
                path.write_bytes(rng.randbytes(size))
            elif kind is Kind.TRUNCATE:
                os.truncate(path, size // 2)
            else:
                path.unlink()
        except FileNotFoundError:  # another has taken its place meanwhile
            return ""
        self.disturbance.damaged.append((name, of))
        return f"{what} {of[:18]}"

    def _disturb_database(self, kind: Kind, rng: random.Random) -> str:
        assert self.server is not None
        self._until_all_have_joined()
        began = time.monotonic()
        drained: Worker | None = None
        match kind:
            case Kind.RESTART:
                self.server.restart("fast")
            case Kind.CRASH:
                self.server.restart("immediate")
            case Kind.CUT:
                with self.server.cut_off():
                    time.sleep(CUT_SECONDS)
            case _:
                with self.server.cut_off():
                    time.sleep(4 * CHECKPOINT_SECONDS)
                    victims = self._victims()
                    at_teacher = [worker for worker in victims if worker.events[-1].is_of_teacher]
                    if at_teacher or victims:
                        drained = rng.choice(at_teacher or victims)
                        drained.signal(signal.SIGTERM)
                        time.sleep(CUT_SECONDS)
                    self.disturbance.notes += len(self.store.artifacts.notes(""))
        self.disturbance.outages.append((began, time.monotonic()))
        done = f"{time.monotonic() - began:.1f} s"
        if kind is not Kind.DRAIN_CUT:
            return done
        return f"{done}, {self._drain(drained, lambda worker: None, began)}" if drained is not None else ""

    def _until_all_have_joined(self) -> None:
        """One that starts while there is no database says so, and ends: that is for whoever starts it to mend."""
        deadline = time.monotonic() + _JOINING_SECONDS
        while time.monotonic() < deadline and not self._is_finished():
            self._resume(time.monotonic())
            self._keep_up()
            with patience(60):
                joined = {record.pid for record in self.store.workers.of_study(NAME) if record.phase != "loading"}
            if all(worker.pid in joined for worker in self._living if worker.lives):
                return
            time.sleep(0.05)


def _doing(worker: Worker) -> str:
    return f"{worker.events[-1].run[:18]} {worker.events[-1].place}" if worker.events else "starting"
