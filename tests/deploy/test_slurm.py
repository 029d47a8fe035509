"""The batch script, run by bash as Slurm would run it. Slurm's own commands are stubs that write down their calls."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sweetspot.workers import drain

SCRIPT = Path(__file__).parents[2] / "deploy/slurm/worker.sbatch"
PREFIX = "#SBATCH --"
WORKER = """#!/bin/bash
trap 'echo asked >>"$CALLS"; sleep 0.2; echo saved >>"$CALLS"; exit 0' TERM
echo "began $*" >>"$CALLS"
while [ ! -e "$CALLS.done" ]; do sleep 0.02; done
exit "$(cat "$CALLS.done")"
"""
STUB = """#!/bin/bash
echo "${0##*/} $*" >>"$CALLS"
"""


class Task:
    """A task of the array job."""

    def __init__(self, folder: Path, *arguments: str, state: str = "RUNNING", **slurm: str) -> None:
        self._calls = folder / "calls"
        commands = folder / "bin"
        commands.mkdir()
        for name, text in {"sweetspot": WORKER, "scontrol": STUB, "squeue": f"{STUB}echo {state}\n"}.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SWEETSPOT_"))}
        environment = outside | {"PATH": f"{commands}:{os.environ['PATH']}", "CALLS": str(self._calls)}
        environment |= {"SWEETSPOT_ARTIFACTS": str(folder / "artifacts"), **slurm}
        self.process = subprocess.Popen(
            ["bash", SCRIPT, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def until(self, is_so: Callable[[list[str]], bool]) -> None:
        while not is_so(self.calls()):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def worker_ends(self, status: int) -> None:
        whole = self._calls.with_suffix(".new")
        whole.write_text(str(status))
        whole.rename(f"{self._calls}.done")


ARRAY = {"SLURM_JOB_ID": "4713", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"}
QUEUE = "squeue --noheader --job=4711_2 --format=%T"


@pytest.fixture
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Task]:
    """A task whose worker works; in the state that the test's parameter says, by default RUNNING."""
    started = Task(tmp_path, "digits", state=getattr(request, "param", "RUNNING"), **ARRAY)
    try:
        started.until(lambda calls: calls == ["began worker --name digits"])
        yield started
    finally:
        started.kill()


def options() -> dict[str, str]:
    lines = [line.removeprefix(PREFIX) for line in SCRIPT.read_text().splitlines() if line.startswith(PREFIX)]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_it_asks_for_an_array_of_gpus_that_comes_back() -> None:
    wanted = options()
    assert wanted["array"]
    assert wanted["gres"] == "gpu:1"
    assert wanted["ntasks"] == "1"
    assert "requeue" in wanted
    assert wanted["open-mode"] == "append"  # otherwise the next turn's log replaces this one's


def test_the_signal_comes_early_enough_for_a_drain() -> None:
    whom, at = options()["signal"].split("@")
    assert whom == "B:USR1"
    assert int(at) >= 60 + drain._STEP_SECONDS + drain._LAST_SECONDS  # Slurm may send it up to a minute late


def test_options_stand_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(i for i, line in enumerate(lines) if line.startswith(PREFIX)) < first_command


def test_when_its_time_is_nearly_over_the_worker_is_asked_to_stop_and_the_task_comes_back(task: Task) -> None:
    task.process.send_signal(signal.SIGUSR1)  # to the shell alone
    assert task.process.wait(30) == 0
    assert task.calls()[1:] == ["asked", "saved", QUEUE, "scontrol requeue 4711_2"]


def test_preempted_with_a_grace_period_it_asks_the_worker_once_and_comes_back(task: Task) -> None:
    os.killpg(task.process.pid, signal.SIGTERM)  # to all processes of the task, as Slurm does
    assert task.process.wait(30) == 0
    assert task.calls()[1:] == ["asked", "saved", QUEUE, "scontrol requeue 4711_2"]


@pytest.mark.parametrize("task", ["COMPLETING", "PENDING", "CANCELLED", ""], indirect=True)
def test_cancelled_or_requeued_by_slurm_itself_it_asks_for_nothing(task: Task) -> None:
    os.killpg(task.process.pid, signal.SIGTERM)
    assert task.process.wait(30) == 0
    assert task.calls()[1:] == ["asked", "saved", QUEUE]


@pytest.mark.parametrize("status", [0, 1])
def test_when_the_worker_has_ended_of_itself_so_has_the_task(task: Task, status: int) -> None:
    task.worker_ends(status)
    assert task.process.wait(30) == status
    assert len(task.calls()) == 1


def test_the_log_says_which_turn_it_is(tmp_path: Path) -> None:
    task = Task(tmp_path, "digits", **ARRAY, SLURM_RESTART_COUNT="3")
    task.worker_ends(0)
    out, err = task.process.communicate(timeout=30)
    assert out.startswith("task 4711_2 on ")
    assert out.endswith(", start 4\n")
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "slurm", "words"),
    [
        ((), ARRAY, "which study?"),
        (("digits",), {}, "submit this script"),
        (("digits",), ARRAY | {"SWEETSPOT_ARTIFACTS": ""}, "all nodes see"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, arguments: tuple[str, ...], slurm: dict[str, str], words: str) -> None:
    task = Task(tmp_path, *arguments, **slurm)
    _, err = task.process.communicate(timeout=30)
    assert task.process.returncode != 0
    assert words in err
    assert task.calls() == []
