"""Simulated workers on one store, on a fake clock, stopped between any two steps: what must hold whatever happens.

The code is the real one, and so are the database, the blobs and the training. Each worker is a thread that runs only
while it is its turn: it hands over before every transaction, around every write of a blob, at every training step and
where it would sleep. One that is killed does nothing more, not even what stands in its ``finally`` clauses.
"""

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select
from sqlalchemy.orm import Session, sessionmaker

from sweetspot.config import StudyConfig
from sweetspot.data.digits import Digits
from sweetspot.data.images import Images
from sweetspot.data.study_data import StudyData
from sweetspot.store import Artifacts, Leases
from sweetspot.store.database import Database, open_database
from sweetspot.store.outage import Outages
from sweetspot.store.schema import Base, CheckpointRow, LeaseRow, SnapshotRow
from sweetspot.store.trajectories import TrajectoryStore, run_of
from sweetspot.store.url import database_url
from sweetspot.teacher import trajectory as trajectory_module
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.training import TeacherTraining
from sweetspot.teacher.trajectory import Trajectory
from sweetspot.training.engine import OnStep
from sweetspot.training.weights import to_bytes

EXPIRY = 60.0
EXAMPLES = 15
LADDER = (2, 4, 6)
LONGEST = 6
MOST_WORKERS = 4
SCHEDULES = {"constant": {"name": "constant"}, "wsd": {"name": "wsd", "decay": 0.5, "warmup": 0}}


class Few(Digits):
    """The first hundred digits."""

    def train(self) -> Images:
        images = super().train()
        return images.subset(torch.arange(100))


def config(schedule: str) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "data": {"dataset": "digits", "validation": 0.4, "augmentation": []},
            "teacher": {
                "model": "mlp", "lr_rule": {"name": "none"}, "schedule": SCHEDULES[schedule], "precision": "float32",
            },
            "student": {"batch_size": 20},
            "search": {"batch_size": [20], "epochs": LADDER},
        }
    )  # fmt: skip


# -- processes --------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """Ends the thread of a killed process; no handler for exceptions sees it."""


class Process(threading.Thread):
    """A worker that brings a teacher to an epoch and reads it, a step at a time."""

    def __init__(self, number: int, world: "World", epochs: int, checkpoint_seconds: float) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.is_stalled = False
        self.is_killed = False
        self.was_disturbed = False
        self.has_ended = False
        self.error: BaseException | None = None
        self._turn, self._pause = threading.Semaphore(0), threading.Semaphore(0)
        self._epochs = epochs
        self._world = world
        self.leases = Leases(world.database(), f"worker {number}", EXPIRY, clock=lambda: world.now)
        store = TrajectoryStore(world.database(), Stepped(world.folder))
        self._trajectory = Trajectory(
            world.recipe, world.data, store, self.leases, torch.device("cpu"), LADDER, 4.0, checkpoint_seconds
        )
        self.start()

    def run(self) -> None:
        self._turn.acquire()
        try:
            if not self.is_killed:
                self._trajectory.bring_to(self._epochs)
                teacher = self._trajectory.teacher(self._epochs)
                self._world.check_teacher(self._trajectory.branch_of(self._epochs), self._epochs, teacher)
        except KilledError:
            pass
        except BaseException as error:
            self.error = error
        self.has_ended = True
        self._pause.release()

    def hand_over(self) -> None:
        """Called by its own thread: let the others have their turn."""
        if not self.is_killed:
            self._pause.release()
            self._turn.acquire()
        if self.is_killed:
            raise KilledError

    def step(self) -> None:
        """Called by the scheduler: run until it hands over, or ends."""
        if not self.has_ended:
            self._turn.release()
            self._pause.acquire()
            if self.error is not None:
                raise self.error

    def kill(self) -> None:
        self.is_killed = self.was_disturbed = True
        self._turn.release()
        self.join()


def hand_over() -> None:
    process = threading.current_thread()
    if isinstance(process, Process):
        process.hand_over()


class Sessions:
    """A session maker that hands over before every transaction."""

    def __init__(self, inner: "sessionmaker[Session]") -> None:
        self._inner = inner

    def __call__(self) -> Session:
        hand_over()
        return self._inner()

    def begin(self) -> AbstractContextManager[Session]:
        hand_over()
        return self._inner.begin()


@dataclass
class SteppedDatabase:
    session: Sessions
    outages: Outages


class Stepped(Artifacts):
    """Artifacts that hand over around every write, and in the middle of it."""

    def get(self, name: str) -> bytes:
        hand_over()
        return super().get(name)

    def discard(self, name: str) -> None:
        hand_over()
        super().discard(name)

    def _write(self, path: str, content: bytes) -> None:
        hand_over()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        half = Path(f"{path}.{threading.get_ident()}.partial")
        half.write_bytes(content[: len(content) // 2])
        hand_over()
        half.unlink()
        super()._write(path, content)
        hand_over()


# -- the world --------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    name: str
    epoch: int
    step: int
    blob: str
    other: str


class World:
    """The shared database and artifacts, and what is known of an undisturbed run."""

    def __init__(self, folder: Path, schedule: str) -> None:
        self.folder = str(folder / "artifacts")
        self._database: Database = open_database(database_url(f"sqlite:///{folder}/study.db"))
        study = config(schedule)
        self.data = StudyData(Few(), study, torch.device("cpu"))
        self.recipe = Recipe(study, self.data.hash, 20)
        self.now = 0.0
        self.epochs_trained: list[tuple[Process, int, int]] = []
        self.undisturbed = self._run_undisturbed()
        self.clear()

    def database(self) -> Any:
        return SteppedDatabase(Sessions(self._database.session), self._database.outages)

    def clear(self) -> None:
        self.now, self.epochs_trained = 0.0, []
        with self._database.session.begin() as session:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name.removeprefix("sweetspot_") in (
                    "snapshot",
                    "epoch",
                    "request",
                    "checkpoint",
                    "lease",
                    "recipe",
                ):
                    session.execute(delete(table))
        shutil.rmtree(self.folder, ignore_errors=True)
        Artifacts(self.folder).set_owner("this world")

    def _run_undisturbed(self) -> dict[tuple[int, int], tuple[str, str]]:
        """The names of weights, and the hash of the network as it teaches, by (branch, epoch)."""
        store = TrajectoryStore(self._database, Artifacts(self.folder))
        leases = Leases(self._database, "undisturbed", EXPIRY)
        found = {}
        every = tuple(range(1, LONGEST + 1))
        trajectory = Trajectory(self.recipe, self.data, store, leases, torch.device("cpu"), every, 4.0, 1e9)
        for epochs in every:
            trajectory.bring_to(epochs)
        for branch in (0, *every):
            for snapshot in store.snapshots(self.recipe.hash, branch):
                network = to_bytes(trajectory._as_teacher(trajectory._model(snapshot)).state_dict())
                found[branch, snapshot.epoch] = snapshot.weights, hashlib.sha256(network).hexdigest()
        return found

    def check_teacher(self, branch: int, epochs: int, teacher: torch.nn.Module) -> None:
        network = hashlib.sha256(to_bytes(teacher.state_dict())).hexdigest()
        assert network == self.undisturbed[branch, epochs][1], "a reader sees what an undisturbed run has made"

    def written(self) -> set[Written]:
        """All rows of snapshots and checkpoints, with all that is in them but when they were used."""
        snapshots, checkpoints = self.rows()
        return {
            *(Written(run_of(s.recipe, s.branch), s.epoch, 0, s.weights, s.optimizer or "") for s in snapshots),
            *(Written(c.run, c.epoch, c.step, c.state, "") for c in checkpoints),
        }

    def owner(self, run: str) -> str:
        with self._database.session() as session:
            lease = session.get(LeaseRow, run)
            return lease.owner if lease is not None else ""

    def rows(self) -> tuple[list[SnapshotRow], list[CheckpointRow]]:
        with self._database.session() as session:
            return list(session.scalars(select(SnapshotRow))), list(session.scalars(select(CheckpointRow)))


class Workers(RuleBasedStateMachine):
    """Starts, runs, kills, stalls and wakes workers, and lets time pass, in any order."""

    worlds: dict[str, World]

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[Process] = []
        self.number = 0

    @initialize(schedule=st.sampled_from(sorted(SCHEDULES)))
    def begin(self, schedule: str) -> None:
        self.world = self.worlds[schedule]
        self.world.clear()

    def _pick(self, number: int) -> Process:
        return self.workers[number % len(self.workers)]

    @rule(rung=st.sampled_from(LADDER), checkpoint_seconds=st.sampled_from([-1.0, 1e9]))
    def start(self, rung: int, checkpoint_seconds: float) -> None:
        self.start_worker(rung, checkpoint_seconds)

    def start_worker(self, epochs: int, checkpoint_seconds: float) -> None:
        if len(self.workers) < MOST_WORKERS:
            self.number += 1
            self.workers.append(Process(self.number, self.world, epochs, checkpoint_seconds))

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, MOST_WORKERS - 1), steps=st.integers(1, 60))
    def run_some(self, number: int, steps: int) -> None:
        worker = self._pick(number)
        for _ in range(steps):
            if not worker.is_stalled:
                self._step(worker)
        self._bury()

    def _step(self, worker: Process) -> None:
        """One step, of at most one transaction: what it writes, it writes as the owner of the lease."""
        before = self.world.written()
        worker.step()
        for run in self.world.written() - before:
            assert self.world.owner(run.name) == worker.leases.owner, "a late writer's rows bounce"

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, MOST_WORKERS - 1))
    def kill(self, number: int) -> None:
        self._pick(number).kill()
        self._bury()

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, MOST_WORKERS - 1))
    def stall(self, number: int) -> None:
        """Neither trains nor renews, as a process whose machine sleeps, or whose database is out of reach."""
        worker = self._pick(number)
        worker.is_stalled = worker.was_disturbed = True

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, MOST_WORKERS - 1))
    def wake(self, number: int) -> None:
        self._pick(number).is_stalled = False

    @precondition(lambda self: len(self.workers) > 1)
    @rule(number=st.integers(0, MOST_WORKERS - 1))
    def stall_until_taken_for_dead(self, number: int) -> None:
        self.stall(number)
        for _ in range(10):  # a lease is taken over once somebody has watched its silence for so long
            self.let_time_pass()
            for worker in self.workers:
                if not worker.is_stalled:
                    self._step(worker)
                    self._step(worker)
        self._bury()

    @rule()
    def let_time_pass(self) -> None:
        self.world.now += EXPIRY / 8
        for worker in self.workers:
            if not worker.is_stalled:
                worker.leases.renew()

    def _bury(self) -> None:
        self.workers = [worker for worker in self.workers if not worker.has_ended]

    @invariant()
    def no_row_is_without_its_blob(self) -> None:
        snapshots, checkpoints = self.world.rows() if hasattr(self, "world") else ([], [])
        for name in {s.weights for s in snapshots} | {s.optimizer for s in snapshots} | {c.state for c in checkpoints}:
            if name is not None:
                self.check_blob(name)

    def check_blob(self, name: str) -> None:
        content = Path(self.world.folder, "blobs", name[:2], name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == name

    @invariant()
    def every_snapshot_is_that_of_an_undisturbed_run(self) -> None:
        for snapshot in self.world.rows()[0] if hasattr(self, "world") else []:
            assert snapshot.weights == self.world.undisturbed[snapshot.branch, snapshot.epoch][0]

    @invariant()
    def no_epoch_is_trained_twice_while_its_owner_lives(self) -> None:
        first: dict[tuple[int, int], Process] = {}
        for worker, branch, epoch in self.world.epochs_trained if hasattr(self, "world") else []:
            owner = first.setdefault((branch, epoch), worker)
            assert owner is worker or owner.was_disturbed, f"epoch {epoch} of branch {branch} was trained twice"
            first[branch, epoch] = worker

    def teardown(self) -> None:
        """Nobody waits for ever: with time, everybody who lives comes to an end."""
        try:
            for worker in self.workers:
                worker.is_stalled = False
            for _ in range(400):
                if not self.workers:
                    break
                self.let_time_pass()
                for worker in self.workers:
                    for _ in range(50):
                        self._step(worker)
                self._bury()
            assert not self.workers, "somebody waits for ever"
            if hasattr(self, "world"):
                self.no_row_is_without_its_blob()
                self.every_snapshot_is_that_of_an_undisturbed_run()
                self.no_epoch_is_trained_twice_while_its_owner_lives()
        finally:
            for worker in self.workers:
                worker.kill()


class WorkersOnABadDisk(Workers):
    """The same with blobs that are altered, truncated or lost, and with epochs that are no rung.

    An epoch that nobody had asked for when it was passed is trained again, and so is what was lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.damaged: set[str] = set()

    @rule(epochs=st.integers(1, LONGEST), checkpoint_seconds=st.sampled_from([-1.0, 1e9]))
    def start_between(self, epochs: int, checkpoint_seconds: float) -> None:
        self.start_worker(epochs, checkpoint_seconds)

    @rule(number=st.integers(0, 30), how=st.sampled_from(["altered", "truncated", "missing"]))
    def damage(self, number: int, how: str) -> None:
        if not (paths := sorted(Path(self.world.folder, "blobs").glob("*/" + 64 * "[0-9a-f]"))):
            return
        path = paths[number % len(paths)]
        if how == "missing":
            path.unlink()
        else:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"!" + content[1:])
        self.damaged.add(path.name)

    def check_blob(self, name: str) -> None:
        if name not in self.damaged:
            super().check_blob(name)

    @invariant()
    def no_epoch_is_trained_twice_while_its_owner_lives(self) -> None:
        pass


@pytest.fixture(scope="module")
def worlds() -> Any:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="sweetspot-machine-") as folder:
        found = {}
        for schedule in SCHEDULES:
            Path(folder, schedule).mkdir()
            found[schedule] = World(Path(folder, schedule), schedule)
        yield found


@pytest.fixture
def _stepped(worlds: dict[str, World], monkeypatch: pytest.MonkeyPatch) -> None:
    inner = TeacherTraining.train_epoch

    def train_epoch(training: TeacherTraining, total: int, on_step: OnStep) -> tuple[float, float]:
        def stepping(step: int, loss: torch.Tensor) -> None:
            hand_over()
            on_step(step, loss)

        result = inner(training, total, stepping)
        process = threading.current_thread()
        if isinstance(process, Process):
            process._world.epochs_trained.append((process, total, training.epoch))
        return result

    def sleep(seconds: float) -> None:
        assert seconds <= 2
        hand_over()

    monkeypatch.setattr(TeacherTraining, "train_epoch", train_epoch)
    monkeypatch.setattr(trajectory_module.time, "sleep", sleep)
    monkeypatch.setattr(Workers, "worlds", worlds, raising=False)


MACHINES: Any = pytest.mark.parametrize("machine", [Workers, WorkersOnABadDisk])
USUAL: Any = {
    "deadline": None,
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}


@MACHINES
@pytest.mark.usefixtures("_stepped")
def test_whatever_happens_to_the_workers(machine: Callable[[], Workers]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=40, derandomize=True, database=None, **USUAL),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@MACHINES
@pytest.mark.usefixtures("_stepped")
def test_whatever_happens_to_the_workers_for_long(machine: Callable[[], Workers]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=1000, stateful_step_count=60, **USUAL))
