"""Processes that stand ready, and run when their turn comes."""

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pkgutil import resolve_name
from typing import Any, Self

import psutil
import torch

from benchmarks.throughput_job import Job
from benchmarks.throughput_limit import matmul_rate
from sweetspot.errors import RunError, UserError
from sweetspot.training.device import resolve_precision

_LOOK_SECONDS = 0.2
"""How often the memory of processes is looked at where it is wanted."""


@dataclass(frozen=True)
class Span:
    """What one process did in a round.

    Attributes:
        begin, end: of what is timed, on the monotonic clock, which all processes share.
        images: trained on in it; an image counts once for each student.
        memory: the highest number of bytes on the GPU; 0 on the CPU.
    """

    begin: float
    end: float
    images: int
    memory: int


class Runner(ABC):
    """One process of an arm: made in it, and called again and again."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.device = torch.device(job.device)

    @abstractmethod
    def run(self, epochs: int) -> Span:
        """Train for so many epochs; the reference, which is slower, always for one or less."""

    def limit(self, seconds: float) -> float:
        """FLOP per second of matrix products in the engine's precision."""
        return matmul_rate(self.device, resolve_precision("auto", self.job.device), seconds)

    def peak_memory(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.job.is_cuda else 0


@dataclass(frozen=True)
class Maker:
    """How the processes of an arm are made.

    Attributes:
        source: ``"module:class"`` of a runner, called as (job, index of the process within the arm, **options). It is
            imported in the arm's processes alone: what the others do not need takes them neither time nor memory.
        processes: how many.
        students: that each trains in a round.
    """

    source: str
    processes: int
    students: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, job: Job, index: int) -> Runner:
        made = resolve_name(self.source)(job, index, **self.options)
        assert isinstance(made, Runner)
        return made


def rate(spans: Sequence[Span]) -> float:
    """Images per second of all processes together, from the first one's beginning to the last one's end."""
    seconds = max(span.end for span in spans) - min(span.begin for span in spans)
    return sum(span.images for span in spans) / seconds


class Arm:
    """Processes that begin together; between their rounds they wait, and use no processor.

    They are started at once, and :meth:`wait_until_ready` waits until all have imported and built what they need.
    """

    def __init__(self, make: Maker, job: Job) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for index in range(make.processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(make, job, index, theirs))
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            for process in self._processes:
                process.terminate()
        for connection in self._connections:
            with suppress(OSError):
                connection.send(None)
            connection.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.terminate()
                process.join()

    def wait_until_ready(self) -> None:
        """
        Raises:
            UserError, RunError: what a process failed of.
        """
        self._answers(self._connections)

    def warm_up(self) -> tuple[float, int]:
        """One round, watched: images per second, and the highest number of bytes that were seen.

        On a GPU those that are allocated there; on a CPU those of all processes of the arm, a page that n of them
        share counted as a part of n in each (Linux; elsewhere as a whole).

        Raises:
            RunError: a process failed.
        """
        self._ask("run", 1)
        highest = 0
        while not wait(self._connections, _LOOK_SECONDS):
            highest = max(highest, sum(_memory(process.pid) for process in self._processes))
        spans = self._answers(self._connections)
        return rate(spans), sum(span.memory for span in spans) or highest

    def run(self, epochs: int = 1, processes: int | None = None) -> float:
        """One round of all processes, or of the first ones alone: images per second.

        Raises:
            RunError: a process failed.
        """
        return rate(self._answers(self._ask("run", epochs, processes)))

    def limit(self, seconds: float) -> float:
        """FLOP per second of matrix products, of all processes at the same time.

        Raises:
            RunError: a process failed.
        """
        return float(sum(self._answers(self._ask("limit", seconds))))

    def _ask(self, name: str, value: float, processes: int | None = None) -> list[Connection]:
        asked = self._connections[:processes]
        for connection in asked:
            connection.send((name, value))
        return asked

    @staticmethod
    def _answers(connections: Sequence[Connection]) -> list[Any]:
        answers = []
        for connection in connections:
            try:
                answers.append(connection.recv())
            except (EOFError, ConnectionError):
                raise RunError("a process of the benchmark was killed: does the memory suffice?") from None
            if isinstance(answers[-1], Exception):
                raise answers[-1]
        return answers


def _memory(pid: int | None) -> int:
    """Bytes of a process and of those that it has started."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                info = each.memory_full_info()
                total += getattr(info, "pss", info.rss)
    return total


def _serve(make: Maker, job: Job, index: int, connection: Connection) -> None:
    """A process of an arm: answers calls until it is told to end, or nobody is there who could."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's, which ends the others
    try:
        runner = make(job, index)
        connection.send(None)
        with suppress(EOFError):
            while (call := connection.recv()) is not None:
                name, value = call
                if job.is_cuda:
                    torch.cuda.reset_peak_memory_stats(job.device)
                connection.send(getattr(runner, name)(value))
    except UserError as error:
        connection.send(error)
    except BrokenPipeError:
        return
    except Exception as error:
        connection.send(RunError(f"{type(error).__name__}: {error}"))
