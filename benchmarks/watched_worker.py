"""Workers in processes of their own, to be killed and stopped, that write down every step they train.

Run as a script, this is the process from which they are forked: it has imported once what each would import in seconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

Place = tuple[int, int]
"""Whole epochs that are done of a run, and steps of the next one."""


class Event(NamedTuple):
    """What a worker has done: ``what`` is "step", "saved", "holds" or "ended".

    Attributes:
        at: by the monotonic clock, seconds.
        run: the name of the run of a teacher or a student, as of its checkpoint.
        place: that a step has reached, or that was saved; (exit status, 0) at the end.
    """

    at: float
    what: str
    run: str
    place: Place

    @property
    def is_of_teacher(self) -> bool:
        return self.run.startswith("trajectory/")


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        hold: the beginning of a run's name and a place in it: that step does not end while the file ``gate`` is there.
        pace: seconds that are added to each step.
    """

    study: str
    storage: str
    artifacts: str
    events: str
    said: str
    status: str
    hold: tuple[str, Place] | None
    gate: str
    forever: bool
    pace: float


class Workers:
    """Starts workers. A context manager: on the way out all are killed."""

    def __init__(self) -> None:
        self._forks: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self._started: list[Worker] = []

    def start(
        self,
        study: str,
        storage: str,
        folder: Path,
        hold: tuple[str, Place] | None = None,
        *,
        forever: bool = False,
        pace: float = 0.0,
    ) -> "Worker":
        """A worker of a study; its artifacts are in ``folder``, and so is what it writes down.

        Args:
            hold, pace: where it waits, and how long at each step, as in :class:`Task`.
            forever: with ``--forever``.
        """
        name = f"{folder}/worker-{uuid.uuid4().hex}"
        gate = f"{name}.gate"
        Path(gate).touch()
        events, said, status = (f"{name}.{what}" for what in ("events", "said", "status"))
        task = Task(study, storage, f"{folder}/artifacts", events, said, status, hold, gate, forever, pace)
        Path(task.events).touch()
        Path(task.said).touch()
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        self._forks.stdin.write(json.dumps(asdict(task)) + "\n")
        self._forks.stdin.flush()
        worker = Worker(int(self._forks.stdout.readline()), task)
        self._started.append(worker)
        return worker

    def kill(self) -> None:
        """All that still live."""
        for worker in self._started:
            worker.kill()
        self._started = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._forks.communicate()


class Worker:
    """A worker's process, with what it has written down."""

    def __init__(self, pid: int, task: Task) -> None:
        self.pid = pid
        self._task = task
        self._events: list[Event] = []
        self._read = 0

    @property
    def events(self) -> Sequence[Event]:
        """All so far."""
        with open(self._task.events, "rb") as file:
            file.seek(self._read)
            *lines, _ = file.read().split(b"\n")
        self._read += sum(len(line) + 1 for line in lines)
        for line in lines:
            at, what, run, place = json.loads(line)
            self._events.append(Event(at, what, run, tuple(place)))
        return self._events

    @property
    def steps(self) -> list[Event]:
        return [event for event in self.events if event.what == "step"]

    @property
    def said(self) -> str:
        """What it has logged."""
        return Path(self._task.said).read_text()

    @property
    def lives(self) -> bool:
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    @property
    def forever(self) -> bool:
        return self._task.forever

    @property
    def status(self) -> int | None:
        """Its exit status, negative if a signal has ended it; None while it lives."""
        while not self.lives:
            with suppress(FileNotFoundError):
                return int(Path(self._task.status).read_text())
            time.sleep(0.001)
        return None

    def until(self, happened: Callable[[], Any], seconds: float = 120.0) -> None:
        """Wait for what happens while it lives.

        Raises:
            AssertionError: with what it has said, if it ends before, or takes too long.
        """
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.lives, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def until_it_holds(self) -> None:
        self.until(lambda: any(event.what == "holds" for event in self.events))

    def let_go(self) -> None:
        """From where it holds."""
        Path(self._task.gate).unlink()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        while self.lives:
            time.sleep(0.001)

    def until_it_has_ended(self, seconds: float = 120.0) -> None:
        """Raises AssertionError if it takes too long."""
        deadline = time.monotonic() + seconds
        while self.lives:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def ends_well(self) -> None:
        """Wait until it ends of itself, as it should."""
        self.until_it_has_ended()
        assert self.events[-1][1:] == ("ended", "", (0, 0)), self.said


# -- in the worker's process ------------------------------------------------------------------------------------------


def _watch(task: Task) -> Callable[[str, str, Place], None]:
    """Have this process write down what it trains and saves; what writes."""

    from sweetspot.store.checkpoints import Checkpoint
    from sweetspot.store.students import StudentStore
    from sweetspot.store.trajectories import TRUNK, Snapshot, TrajectoryStore, run_of
    from sweetspot.student import distillation
    from sweetspot.teacher.training import TeacherTraining
    from sweetspot.training.engine import Training

    file = os.open(task.events, os.O_WRONLY | os.O_APPEND)
    run_of_replicate: dict[int, str] = {}
    training = ""
    parent = os.getppid()

    def tell(what: str, run: str, place: Place) -> None:
        os.write(file, (json.dumps((time.monotonic(), what, run, place)) + "\n").encode())

    def stepped(run: str, place: Place) -> None:
        time.sleep(task.pace)
        tell("step", run, place)
        if task.hold is not None and run.startswith(task.hold[0]) and place == task.hold[1]:
            tell("holds", run, place)
            while Path(task.gate).exists() and os.getppid() == parent:
                time.sleep(0.01)

    teacher_epoch = TeacherTraining.train_epoch

    def train_teacher(self: TeacherTraining, total: int, on_step: Callable[..., None]) -> tuple[float, float]:
        def told(step: int, loss: Any) -> None:
            stepped(run_of(self.recipe.hash, TRUNK), (self.epoch, step))
            on_step(step, loss)

        return teacher_epoch(self, total, told)

    student_epoch, any_epoch = distillation._Student.train_epoch, Training.epoch

    def train_student(self: Any, *arguments: Any) -> None:
        nonlocal training
        training = run_of_replicate[self.replicate]
        try:
            student_epoch(self, *arguments)
        finally:
            training = ""

    def train_epoch(self: Training, *arguments: Any, on_step: Callable[..., None], **options: Any) -> float:
        if not training:  # a teacher's
            return any_epoch(self, *arguments, on_step=on_step, **options)
        run, epoch = training, arguments[3]

        def told(step: int, loss: Any) -> None:
            stepped(run, (epoch, step))
            on_step(step, loss)

        return any_epoch(self, *arguments, on_step=told, **options)

    look_up = StudentStore.checkpoint

    def checkpoint(self: StudentStore, run: str) -> Checkpoint | None:
        run_of_replicate[int(run.rsplit("/", 1)[-1])] = run  # as it begins, or goes on
        return look_up(self, run)

    save_student, save_teacher, add = StudentStore.save_checkpoint, TrajectoryStore.save_checkpoint, TrajectoryStore.add

    def student_saved(self: StudentStore, checkpoint: Checkpoint) -> None:
        save_student(self, checkpoint)
        tell("saved", checkpoint.run, checkpoint.position)

    def teacher_saved(self: TrajectoryStore, checkpoint: Checkpoint, *arguments: Any) -> None:
        save_teacher(self, checkpoint, *arguments)
        tell("saved", checkpoint.run, checkpoint.position)

    def snapshot_saved(self: TrajectoryStore, snapshot: Snapshot, *arguments: Any) -> None:
        add(self, snapshot, *arguments)
        tell("saved", run_of(snapshot.recipe, snapshot.branch), (snapshot.epoch, 0))

    replacements: list[tuple[Any, str, Any]] = [
        (TeacherTraining, "train_epoch", train_teacher),
        (distillation._Student, "train_epoch", train_student),
        (Training, "epoch", train_epoch),
        (StudentStore, "checkpoint", checkpoint),
        (StudentStore, "save_checkpoint", student_saved),
        (TrajectoryStore, "save_checkpoint", teacher_saved),
        (TrajectoryStore, "add", snapshot_saved),
    ]
    for owner, name, replacement in replacements:
        setattr(owner, name, replacement)
    return tell


def _work(task: Task) -> None:
    """The whole life of a worker's process: ``sweetspot worker``."""
    from sweetspot.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in enumerate((nothing, nothing, os.open(task.said, os.O_WRONLY | os.O_APPEND))):
        os.dup2(target, descriptor)
    os.environ |= {"SWEETSPOT_STORAGE": task.storage, "SWEETSPOT_ARTIFACTS": task.artifacts, "SWEETSPOT_TRACEBACK": "1"}
    status = 70
    try:
        tell = _watch(task)
        forever = ["--forever"] if task.forever else []
        status = main(["worker", "--name", task.study, "--device", "cpu", *forever])
        tell("ended", "", (status, 0))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _serve() -> None:
    import alembic.command  # noqa: F401 - what a worker imports late, this process imports once for all
    import psycopg  # noqa: F401 - likewise
    import sklearn.datasets  # noqa: F401 - likewise

    import sweetspot.cli.commands
    import sweetspot.workers.worker  # noqa: F401 - likewise

    paths: dict[int, str] = {}
    statuses: dict[int, int] = {}

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                statuses[ended[0]] = os.waitstatus_to_exitcode(ended[1])
        for pid in list(statuses):
            if (path := paths.pop(pid, None)) is not None:  # this may be interrupted by itself
                status = statuses.pop(pid)
                with suppress(FileNotFoundError):  # its folder is gone
                    Path(f"{path}.partial").write_text(str(status))
                    Path(f"{path}.partial").rename(path)

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        values = json.loads(line)
        if values["hold"] is not None:
            run, place = values["hold"]
            values["hold"] = run, tuple(place)
        task = Task(**values)
        if (pid := os.fork()) == 0:
            _work(task)
        paths[pid] = task.status
        reap()  # it may have ended already
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
