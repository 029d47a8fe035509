"""The supervisor: starts crashed workers again, more and more slowly, and gives up in the end."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweetspot.errors import RunError
from sweetspot.store import Store
from sweetspot.store.workers import worker_name
from sweetspot.workers import supervisor as module
from sweetspot.workers.optimize import Run, run_devices
from sweetspot.workers.supervisor import Supervisor

WORK = ["-m", "sweetspot", "worker"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


class Started:
    """What takes the place of each worker's command: the code of a Python program, by the order of the starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
        self.at: list[float] = []
        start = subprocess.Popen

        def instead(command: list[str], **options: object) -> "subprocess.Popen[str]":
            assert command[1:4] == WORK
            program = programs[min(len(self.at), len(programs) - 1)]
            self.at.append(time.monotonic())
            return start([sys.executable, "-c", program], **options)  # type: ignore[call-overload, no-any-return]

        monkeypatch.setattr(module.subprocess, "Popen", instead)


CRASH = "import os, signal; print('about to crash', file=__import__('sys').stderr, flush=True); os.kill(os.getpid(), 9)"


def supervise(store: Store, said: list[str], finished: list[int]) -> Supervisor:
    return Supervisor("tiny", store, ["cpu"], None, said.append, lambda: finished[0])


def test_a_worker_that_crashes_is_started_again_after_a_pause_that_grows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, said = Started(monkeypatch, CRASH, CRASH, "pass"), list[str]()
    supervise(store, said, [0]).wait(lambda: None)
    assert len(started.at) == 3
    assert started.at[1] - started.at[0] > 1
    assert started.at[2] - started.at[1] > 2
    name = said[0].partition(":")[0]
    assert name == worker_name(*name.rsplit("-", 1))  # type: ignore[arg-type]
    assert said[0] == f"{name}: about to crash"
    assert said[1] == f"{name} on cpu ended with signal SIGKILL: about to crash; starting another in 1 s"


def test_ten_crashes_without_a_trial_in_between_end_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    started = Started(monkeypatch, CRASH)
    with pytest.raises(
        RunError, match=r"10 workers crashed in a row, and no trial finished in between; the last: .*SIG"
    ):
        supervise(store, [], [0]).wait(lambda: None)
    assert len(started.at) == 10


def test_crashes_between_which_trials_finish_do_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    started, finished = Started(monkeypatch, *[CRASH] * 11, "pass"), [0]
    watched = supervise(store, [], finished)

    def a_trial_finishes() -> None:
        finished[0] = len(started.at) // 4

    watched.wait(a_trial_finishes)
    assert len(started.at) == 12


def test_a_worker_that_refuses_to_start_ends_the_run_with_what_it_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Started(monkeypatch, "import sys; print('error: no such data', file=sys.stderr); sys.exit(2)")
    with pytest.raises(RunError, match="ended with exit status 2: no such data"):
        supervise(store, [], [0]).wait(lambda: None)


def test_small_networks_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweetspot.workers.optimize.devices", lambda text: ["cuda:0", "cuda:1"])
    assert run_devices(Run("tiny", workers_per_gpu=2)) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert run_devices(Run("tiny", workers=3)) == ["cuda:0", "cuda:1", "cuda:0"]
