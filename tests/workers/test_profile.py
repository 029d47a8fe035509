"""A worker's profile: its totals, its traces, and the folder that they lie in."""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sweetspot import timing
from sweetspot.errors import UserError
from sweetspot.timing import Name, Recorder, span, step
from sweetspot.workers.profile import PROFILE, environment, make_folder, profiled, remove_earlier
from sweetspot.workers.tracer import TRACED_STEPS, Tracer


@pytest.fixture
def traced(tmp_path: Path) -> Recorder:
    tracer = Tracer("cpu", tmp_path / "profile-1.json")
    return Recorder(tracer)


def work(*names: Name, steps: int = 2) -> None:
    """Spans within each other, with steps of training in the innermost."""
    if names:
        with span(names[0]):
            work(*names[1:], steps=steps)
        return
    for _ in range(steps):
        torch.ones(3) @ torch.ones(3)
        step()


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"trace-1-{name}.json.gz") as file:
        return json.load(file)["traceEvents"]  # type: ignore[no-any-return]


def spans(folder: Path, name: str) -> Counter[str]:
    """How often each of our spans is in a trace."""
    found = (event["name"] for event in events(folder, name) if event.get("ph") == "X")
    return Counter(n.removeprefix("sweetspot: ") for n in found if n.startswith("sweetspot: "))


def steps(folder: Path, name: str) -> int:
    return sum(event["name"] == "aten::dot" and event.get("ph") == "X" for event in events(folder, name))


def traces(folder: Path) -> list[str]:
    assert not list(folder.glob("*.part"))
    return sorted(path.name for path in folder.glob("trace*"))


# -- traces -----------------------------------------------------------------------------------------------------------


def test_the_second_epoch_of_a_teacher_is_traced_with_what_lies_before_it(traced: Recorder, tmp_path: Path) -> None:
    with traced:
        for _ in range(3):
            work("teacher", "views")
            work("measuring", steps=0)
            work("database", steps=0)
    assert traces(tmp_path) == ["trace-1-teacher.json.gz"]
    assert spans(tmp_path, "teacher") == {"measuring": 1, "database": 1, "teacher": 1, "views": 1}
    assert steps(tmp_path, "teacher") == 2


def test_responses_and_students_are_traced_the_second_time(traced: Recorder, tmp_path: Path) -> None:
    with traced:
        for _ in range(3):
            work("responses", steps=0)
            work("students", "views")
            work("artifacts", steps=0)
    assert traces(tmp_path) == ["trace-1-responses.json.gz", "trace-1-students.json.gz"]
    assert spans(tmp_path, "responses") == {"responses": 1}
    assert spans(tmp_path, "students") == {"students": 1, "views": 1}


def test_a_trace_ends_after_so_many_steps(traced: Recorder, tmp_path: Path) -> None:
    with traced:
        for _ in range(2):
            work("students", "views", steps=TRACED_STEPS + 10)
        work("database")
    assert steps(tmp_path, "students") == TRACED_STEPS
    assert spans(tmp_path, "students") == {"students": 1, "views": 1}, "what is under way then is in it"


def test_what_follows_the_only_epoch_of_a_teacher_is_traced_up_to_the_students(
    traced: Recorder, tmp_path: Path
) -> None:
    with traced:
        work("teacher")
        work("measuring")
        work("responses")
        work("students")
    assert traces(tmp_path) == ["trace-1-teacher.json.gz"]
    assert spans(tmp_path, "teacher") == {"measuring": 1}


def test_tracing_is_nobody_elses_time(traced: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr("sweetspot.workers.tracer._export", lambda window, path: clock.__setitem__(0, clock[0] + 8))
    with traced:
        for _ in range(2):
            with span("students"):
                work(steps=TRACED_STEPS)
                clock[0] += 1
    assert traced.seconds == {"students": 2, "tracing": 8}


def test_a_trace_that_cannot_be_written_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Recorder(Tracer("cpu", tmp_path / "gone" / "profile-1.json")) as recorder:
        for _ in range(2):
            work("students")
    assert "cannot write the trace trace-1-students.json.gz" in caplog.text
    assert set(recorder.seconds) == {"students", "tracing"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_span_lasts_until_the_device_is_done(tmp_path: Path) -> None:
    tracer = Tracer("cuda:0", tmp_path / "profile-1.json")
    with Recorder(tracer):
        for _ in range(2):
            with span("students"):
                a = torch.randn(4096, 4096, device="cuda")
                for _ in range(20):
                    a = a @ a
                done = torch.cuda.Event()
                done.record()
            assert done.query()
    assert any(event.get("cat") == "kernel" for event in events(tmp_path, "students"))


# -- totals -----------------------------------------------------------------------------------------------------------


def test_totals_are_written_however_a_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path, 7).items():
        monkeypatch.setenv(name, value)

    def read() -> dict[str, Any]:
        return json.loads((tmp_path / "profile-7.json").read_text())  # type: ignore[no-any-return]

    def interrupted() -> None:
        with profiled("cpu"):
            assert not read()["complete"], "a worker that is killed has said that it began"
            for _ in range(2):
                with span("students", epochs=1):
                    work("views")
            with span("students", epochs=1):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    totals = read()
    assert totals["complete"]
    assert totals["epochs"] == {"students": 2}
    assert set(totals["seconds"]) == {"students", "views", "tracing"}
    assert 0 < sum(totals["seconds"].values()) <= totals["wall_seconds"]
    assert (tmp_path / "trace-7-students.json.gz").exists()


def test_a_worker_that_nobody_asked_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFILE, raising=False)
    with profiled("cpu"):
        assert timing._recorder is None


def test_a_profile_that_cannot_be_written_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PROFILE, str(tmp_path / "gone" / "profile-1.json"))
    with profiled("cpu"):
        work("teacher")
    assert "cannot write the profile profile-1.json: No such file or directory" in caplog.text


# -- the folder -------------------------------------------------------------------------------------------------------


def test_what_an_earlier_profile_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    make_folder(folder)
    others: Sequence[str] = ("profile-me.json", "trace.json.gz", "trace-1-mine.json.gz", "notes.txt")
    for name in ("profile-1.json", "profile-12.json.part", "trace-3-students.json.gz", "trace-3-teacher.json.part"):
        (folder / name).touch()
    for name in others:
        (folder / name).touch()
    remove_earlier(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(others)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--profile .*file is a file: name a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(UserError, match="Not a directory: name a folder that you may write in"):
        make_folder(tmp_path / "file" / "in-it")
    with pytest.raises(UserError, match="name a folder that you may write in"):
        make_folder(Path("/proc/profile"))
