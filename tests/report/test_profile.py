"""The table of where a run's time went."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweetspot.report.profile import profile_text, read_profile


def totals(wall: float, seconds: dict[str, float], **values: Any) -> dict[str, Any]:
    return {
        "complete": True, "wall_seconds": wall, "seconds": seconds, "beside_seconds": {}, "epochs": {}, **values,
    }  # fmt: skip


def write(folder: Path, *workers: dict[str, Any]) -> None:
    for i, each in enumerate(workers, 1):
        (folder / f"profile-{i}.json").write_text(json.dumps(each))


def said(folder: Path) -> list[str]:
    console = Console(width=80, record=True, file=StringIO())
    console.print(profile_text(folder), soft_wrap=True)
    return [line.rstrip() for line in console.export_text().splitlines()]


TWO = (
    totals(
        60, {"views": 3, "teacher": 20, "measuring": 4, "database": 1},
        epochs={"teacher": 10, "students": 20}, beside_seconds={"database": 0.5},
    ),
    totals(40, {"students": 30, "responses": 4, "database": 2}, epochs={"students": 20}),
)  # fmt: skip
KILLED = totals(0, {}, complete=False)


def test_workers_add_up_and_the_rest_is_other(tmp_path: Path) -> None:
    write(tmp_path, *TWO)
    profile = read_profile(tmp_path)
    assert (profile.workers, profile.killed, profile.wall) == (2, 0, 100)
    assert profile.seconds["database"] == 3
    assert profile.seconds["other"] == 36
    assert sum(profile.seconds.values()) == profile.wall
    assert profile.epochs == {"teacher": 10, "students": 40}
    assert profile.beside == {"database": 0.5}


def test_an_epoch_is_one_of_those_that_a_part_belongs_to(tmp_path: Path) -> None:
    write(tmp_path, *TWO)
    per_epoch = read_profile(tmp_path).to_dict()["seconds_per_epoch"]
    assert per_epoch["teacher"] == pytest.approx(20 / 10)
    assert per_epoch["measuring"] == pytest.approx(4 / 10)
    assert per_epoch["students"] == pytest.approx(30 / 40)
    assert per_epoch["responses"] == pytest.approx(4 / 40)
    assert per_epoch["views"] == pytest.approx(3 / 50)
    assert "other" not in per_epoch


def test_the_table_fits_80_columns_and_says_what_it_counts(tmp_path: Path) -> None:
    write(tmp_path, *TWO)
    (tmp_path / "trace-1-teacher.json.gz").touch()
    lines = said(tmp_path)
    assert "Where 100 s of 2 workers went: 10 teacher epochs, 40 student epochs" in lines
    rows = {" ".join(line.split()) for line in lines}
    assert "training the teacher 20.0 20.0% 2,000.0 teacher" in rows
    assert "training students 30.0 30.0% 750.0 student" in rows
    assert "database 3.0 3.0% 60.0 teacher or student" in rows
    assert "other 36.0 36.0%" in rows
    assert "In threads beside that (heartbeats, leases): database 0.5 s." in rows
    assert f"1 trace for chrome://tracing or ui.perfetto.dev in {tmp_path}" in lines
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert not [row for row in rows if "died" in row]


def test_a_worker_that_was_killed_is_missed(tmp_path: Path) -> None:
    write(tmp_path, *TWO, KILLED)
    profile = read_profile(tmp_path)
    assert (profile.workers, profile.killed, profile.wall) == (3, 1, 100)
    lines = said(tmp_path)
    assert "Where 100 s of 2 workers went: 10 teacher epochs, 40 student epochs" in lines
    assert "1 of 3 workers died before they could write where their time went: it is not counted." in lines


def test_where_nothing_was_counted_there_is_no_table(tmp_path: Path) -> None:
    assert said(tmp_path) == []
    write(tmp_path, KILLED)
    assert said(tmp_path) == [
        "", "1 of 1 worker died before they could write where their time went: it is not counted.",
    ]  # fmt: skip
    assert read_profile(tmp_path).to_dict()["seconds_per_epoch"]["teacher"] is None
