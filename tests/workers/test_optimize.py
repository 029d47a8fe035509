"""``sweetspot optimize`` as a user runs it: real processes, real digits."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from tiny_study import TINY, tiny_config, toml_settings

import sweetspot
from sweetspot.cli import main
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import UserError
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import GIVEN_BACK, create_or_continue, load


def command(*arguments: str, **values: Any) -> list[str]:
    """The command line of the tiny study; further values by key, "__" for "."."""
    return [
        *(sys.executable, "-m", "sweetspot", "optimize", "--dataset", "digits", "--device", "cpu"),
        *(*toml_settings(**values), *arguments),
    ]


def run(home: Path, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command line in this process, which spares it the imports; its workers are processes of their own."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setenv("SWEETSPOT_HOME", str(home))
        handler = signal.getsignal(signal.SIGTERM)
        try:
            status = main(arguments[3:])
        finally:
            signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


class Running:
    """A command that is under way, with all that it writes to stderr."""

    def __init__(self, home: Path, arguments: list[str]) -> None:
        environment = os.environ | {"SWEETSPOT_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._said: list[str] = []

    def until(self, beginning: str) -> None:
        """Read until a line begins so."""
        assert self.process.stderr is not None
        for line in iter(self.process.stderr.readline, ""):
            self._said.append(line)
            if line.startswith(beginning):
                return
        raise AssertionError("".join(self._said))

    def rest(self) -> str:
        """All that it wrote, once it has ended."""
        assert self.process.stderr is not None
        self._said.append(self.process.stderr.read())
        self.process.wait(60)
        return "".join(self._said)


def started(home: Path) -> tuple[list[str], Running]:
    """A command, and its process when the first trial has finished and the second is under way."""
    arguments = command("--workers", "1", "--no-confirm", student__epochs=20)
    running = Running(home, arguments)
    running.until("1/4")
    return arguments, running


def answer(home: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    done = run(home, [sys.executable, "-m", "sweetspot", *arguments, "--json"])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def trials(home: Path, name: str = "digits") -> list[optuna.trial.FrozenTrial]:
    with Store(f"sqlite:///{home}/sweetspot.db", str(home / "artifacts")) as store:
        return load(store, name).trials


def test_optimize_runs_to_a_recommendation_and_run_again_continues(tmp_path: Path) -> None:
    first = run(tmp_path, command("--workers", "1"))
    assert first.returncode == 0, first.stderr
    assert "Verdict: " in first.stdout
    assert "4/4" in first.stderr
    assert "worker 0" not in first.stderr, "a worker has logged something"
    best = answer(tmp_path, "best")
    assert best["trials"] == {"complete": 4, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert best["cost"]["teacher_epochs_trained"] <= 2 * 3
    assert best["test_accuracy"]["replicates"] == 2

    more = run(tmp_path, command("--workers", "1", "--trials", "5", "--json"))
    assert more.returncode == 0, more.stderr
    continued = json.loads(more.stdout)
    assert (continued["study"], continued["trials"]["complete"]) == ("digits", 5)
    before = {t.number: t.params for t in trials(tmp_path)[:4]}
    assert len({tuple(sorted(t.params.items())) for t in trials(tmp_path)}) == 5
    assert before == {t.number: t.params for t in trials(tmp_path) if t.number < 4}

    lower = run(tmp_path, command("--workers", "1", "--trials", "2", "--timeout", "0"))
    assert lower.returncode == 0
    assert "ended early" not in lower.stdout, "a search that is done has not ended early"
    assert "--trials 2 is below this study's 5: that stays, and so does what is done." in lower.stderr
    with Store(f"sqlite:///{tmp_path}/sweetspot.db", str(tmp_path / "artifacts")) as store:
        record = store.studies.get("digits")
        assert record is not None
        assert record.config.search.trials == 5


def test_a_study_goes_on_with_its_own_sampler_unless_another_is_asked_for(tmp_path: Path) -> None:
    """As one that was begun when another was the default."""
    config = tiny_config(search__sampler="gp", search__trials=1)
    with Store(f"sqlite:///{tmp_path}/sweetspot.db", str(tmp_path / "artifacts")) as store:
        create_or_continue(store, "digits", config, load_study_data(config, data_folder(), torch.device("cpu")))
    done = run(tmp_path, command("--workers", "1", "--no-confirm", "--trials", "1"))
    assert done.returncode == 0, done.stderr
    assert 'this study was begun with search.sampler = "gp", and goes on with it.' in done.stderr
    assert answer(tmp_path, "best")["trials"]["complete"] == 1
    other = run(tmp_path, command("--workers", "1", "--no-confirm", search__sampler="cost-aware"))
    assert other.returncode == 2
    assert "exists with another configuration: search.sampler" in other.stderr


def test_a_configuration_in_python_asks_for_a_sampler_only_where_it_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path))
    config = tiny_config(search__sampler="gp", search__trials=1, confirm__seeds=0)
    sweetspot.optimize(config, workers=1, device="cpu", quiet=True)
    unsaid = tiny_config(search__trials=1, confirm__seeds=0)
    result = sweetspot.optimize(unsaid, workers=1, device="cpu", quiet=True)
    assert (result.config.search.sampler, result.counts.complete) == ("gp", 1)
    with pytest.raises(UserError, match=r"exists with another configuration: search\.sampler"):
        sweetspot.optimize(StudyConfig.from_json(unsaid.to_json()), workers=1, device="cpu", quiet=True)


@pytest.mark.ci
def test_two_workers_share_a_study_exactly(tmp_path: Path) -> None:
    done = run(tmp_path, command("--workers", "2", "--json", "--no-confirm", search__trials=6))
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)
    assert best["trials"]["complete"] == 6
    assert best["confirmed"] is None
    found = trials(tmp_path)
    assert len({tuple(sorted(t.params.items())) for t in found}) == 6, "no point's work is done twice"
    # Both trajectories were trained once, whoever needed them.
    assert best["cost"]["teacher_epochs_trained"] == 2 * 3


@pytest.mark.ci
def test_a_seeded_search_with_one_worker_repeats_exactly(tmp_path: Path) -> None:
    answers = []
    for home in (tmp_path / "a", tmp_path / "b"):
        done = run(home, command("--workers", "1", "--seed", "3", "--no-confirm", "--quiet"))
        assert done.returncode == 0, done.stderr
        answers.append([(t.params, t.value, t.intermediate_values) for t in trials(home)])
    assert answers[0] == answers[1]


def test_a_profile_says_where_the_time_went(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "profile"
    arguments = command("--workers", "1", "--no-confirm", "--profile", str(folder), search__trials=1)
    done = run(tmp_path, [*arguments, "--json"])
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "profiler_" in line], "torch's profiler has said something"
    profile = json.loads(done.stdout)["profile"]
    assert (profile["workers"], profile["killed"]) == (1, 0)
    assert profile["epochs"] == {"teacher": answer(tmp_path, "best")["cost"]["teacher_epochs_trained"], "students": 4}
    assert sum(profile["seconds"].values()) == pytest.approx(profile["wall_seconds"])
    parts = (
        "loading", "views", "teacher", "measuring", "batchnorm", "responses", "students", "database", "artifacts",
        "dashboard", "tracing",
    )  # fmt: skip
    assert not [part for part in parts if profile["seconds"][part] <= 0]
    with gzip.open(folder / "trace-1-students.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"sweetspot: students", "sweetspot: views", "aten::addmm"} <= names

    again = run(tmp_path, arguments)
    assert again.returncode == 0, again.stderr
    assert "0 teacher epochs, 0 student epochs" in again.stdout
    assert [path.name for path in folder.iterdir()] == ["profile-1.json"], "the earlier traces are gone"


@pytest.mark.ci
def test_ctrl_c_leaves_a_study_that_continues_with_the_same_command(tmp_path: Path) -> None:
    arguments, running = started(tmp_path)
    os.kill(running.process.pid, signal.SIGINT)
    said = running.rest()
    assert running.process.returncode == 130, said
    assert said.splitlines()[-1].startswith("error: interrupted"), said
    states = [t.state.name for t in trials(tmp_path)]
    assert "RUNNING" not in states, states
    done = run(tmp_path, arguments)
    assert done.returncode == 0, done.stderr
    assert not [t for t in trials(tmp_path) if t.state.name in ("RUNNING", "WAITING")]
    finished = [t for t in trials(tmp_path) if t.state.name == "COMPLETE"]
    assert len(finished) == 4
    assert len({tuple(sorted(t.params.items())) for t in finished}) == 4


@pytest.mark.ci
def test_a_profile_that_is_interrupted_has_what_was_counted_and_misses_who_died(tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    running = Running(tmp_path, command("--workers", "1", "--no-confirm", "--profile", str(folder), student__epochs=20))
    running.until("1/4")
    with Store(f"sqlite:///{tmp_path}/sweetspot.db", str(tmp_path / "artifacts")) as store:
        (worker,) = [w for w in store.workers.of_study("digits") if not w.ended]
    os.kill(worker.pid, signal.SIGKILL)
    running.until("2/4")
    os.kill(running.process.pid, signal.SIGINT)
    said = running.rest()
    assert running.process.returncode == 130, said
    assert "of 1 worker went: " in said
    assert "1 of 2 workers died before they could write" in said
    assert [json.loads((folder / f"profile-{i}.json").read_text())["complete"] for i in (1, 2)] == [False, True]


@pytest.mark.ci
def test_a_run_that_was_killed_is_taken_up_again(tmp_path: Path) -> None:
    """kill -9 of everything at once: the next run fails the trial that was under way and runs its parameters again."""
    arguments, running = started(tmp_path)
    with Store(f"sqlite:///{tmp_path}/sweetspot.db", str(tmp_path / "artifacts")) as store:
        (worker,) = [w for w in store.workers.of_study("digits") if not w.ended]
        os.kill(running.process.pid, signal.SIGKILL)
        os.kill(worker.pid, signal.SIGKILL)
        running.rest()
        deadline = time.monotonic() + 30
        while not store.workers.has_ended(worker.id) and time.monotonic() < deadline:
            pass
    done = run(tmp_path, arguments)
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path)
    assert sum(t.state.name == "COMPLETE" for t in found) == 4
    assert not [t for t in found if t.state.name in ("RUNNING", "WAITING")]
    lost = [t for t in found if GIVEN_BACK in t.user_attrs]
    assert len(lost) <= 1
    for trial in lost:
        assert any(t.params == trial.params and t.state.name == "COMPLETE" for t in found)


@pytest.mark.ci
def test_workers_end_when_their_supervisor_dies(tmp_path: Path) -> None:
    _, running = started(tmp_path)
    with Store(f"sqlite:///{tmp_path}/sweetspot.db", str(tmp_path / "artifacts")) as store:
        (worker,) = [w for w in store.workers.of_study("digits") if not w.ended]
        os.kill(running.process.pid, signal.SIGKILL)
        running.rest()
        deadline = time.monotonic() + 30
        while not store.workers.has_ended(worker.id) and time.monotonic() < deadline:
            pass
        assert store.workers.has_ended(worker.id)
    assert [t.state.name for t in trials(tmp_path) if t.state.name == "RUNNING"] == []


@pytest.mark.ci
def test_nan_losses_end_a_study_with_exit_status_1(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        command(
            "--workers", "1", "--no-confirm", search__epochs=list(range(1, 13)), search__trials=20,
            teacher__optimizer={"name": "sgd", "lr": 1e30},
        ),
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: failed: 10 trials in a row")
    assert "not finite in epoch 1 at learning rate" in last
    assert all(t.state.name == "PRUNED" and "infeasible" in t.user_attrs for t in trials(tmp_path))


@pytest.mark.ci
def test_a_timeout_ends_the_search_and_a_worker_from_a_second_terminal_takes_it_up(tmp_path: Path) -> None:
    done = run(tmp_path, command("--workers", "1", "--timeout", "0", "--no-confirm"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: no trial was completed (the 0 s of --timeout were over)")
    assert len(trials(tmp_path)) < 4
    with Store(f"sqlite:///{tmp_path}/sweetspot.db", str(tmp_path / "artifacts")) as store:
        store.studies.set_ended("digits", None)
    joined = run(tmp_path, [sys.executable, "-m", "sweetspot", "worker", "--name", "digits", "--device", "cpu"])
    assert joined.returncode == 0, joined.stderr
    assert sum(t.state.name == "COMPLETE" for t in trials(tmp_path)) == 4


def test_optimize_in_python_is_the_same_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path))
    overrides = {key.replace(".", "__"): value for key, value in TINY.items()} | {"search__trials": 2}
    result = sweetspot.optimize("digits", workers=1, device="cpu", quiet=True, confirm__seeds=0, **{
        key: value for key, value in overrides.items() if key != "confirm__seeds"
    })  # fmt: skip
    assert result.counts.complete == 2
    assert result.best is not None
    assert sweetspot.load_result("digits").to_dict() == result.to_dict()
