"""Tables: what is written is what is read, and what is damaged is refused in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweetspot.config import StudyConfig
from sweetspot.errors import UserError
from sweetspot.report.table import (
    VERSION,
    Baselines,
    Epoch,
    LeftOut,
    Student,
    Table,
    TableData,
    TablePoint,
    Trajectory,
    check_export,
    read_table,
    table_dict,
    table_text,
    write_table,
)
from sweetspot.store.trajectories import MEASURES as STORED

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "benchmarks" / "tables").glob("*.json"))
MEASURES = {"similarity_entropy": 1.25, "accuracy": 0.5}


def student(replicate: int, **values: Any) -> Student:
    return Student(replicate, 0.5, (0.25, 0.5), 1.5, **values)


def epoch(number: int, **values: Any) -> Epoch:
    return Epoch(number, False, 2.5, 0.5, {**MEASURES, **values}, MEASURES)


TABLE = Table(
    study="tiny-grid",
    command="sweetspot grid --dataset digits",
    created="2026-01-02T03:04:05+00:00",
    machine={"cpu": "one", "cores": 2, "memory_gb": 8, "gpus": [], "system": "Linux", "trained_on": ["torch 2"]},
    versions={"python": "3.11"},
    config=StudyConfig(seed=7),
    data=TableData("abc", "digits", 10, 100, 20, None),
    replicates=2,
    teacher_seeds=1,
    temperature=4.0,
    trajectories=(
        Trajectory(64, 0, 0, 0, (epoch(1), epoch(2))),
        Trajectory(64, 0, 3, 2, (epoch(3, similarity_entropy=0.75),)),
    ),
    points=(
        TablePoint(64, 2, 0, 2, 0, 0.25, (student(0), student(1))),
        TablePoint(64, 3, 0, 3, 3, 0.5, (student(0), student(1))),
    ),
    left_out=(LeftOut(64, 4, 0, "it ran out of memory"),),
    baselines=Baselines((student(0),), {"0.1": (student(0), student(1))}),
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_table(TABLE, tmp_path / "table.json")
    return tmp_path / "table.json"


@pytest.fixture
def damaged(written: Path) -> Callable[..., str]:
    """Changes the values of a table's file; how reading it is refused then, without the file's name."""

    def run(change: Callable[[dict[str, Any]], Any]) -> str:
        values = json.loads(written.read_text())
        change(values)
        written.write_text(json.dumps(values))
        with pytest.raises(UserError) as refused:
            read_table(written)
        line = str(refused.value)
        assert line.isprintable()
        assert str(written) in line
        return line.replace(str(written), "FILE")

    return run


def test_what_is_written_is_what_is_read(written: Path) -> None:
    assert read_table(written) == TABLE
    looked_at = replace(
        TABLE,
        data=replace(TABLE.data, test_images=50),
        points=tuple(
            replace(p, students=tuple(replace(s, test_accuracy=0.75) for s in p.students)) for p in TABLE.points
        ),
        left_out=(),
        baselines=Baselines(),
    )
    write_table(looked_at, written)
    assert read_table(written) == looked_at
    assert [path.name for path in written.parent.iterdir()] == ["table.json"]


def test_a_file_has_a_line_for_each_epoch_and_each_point(written: Path) -> None:
    lines = written.read_text().splitlines()
    assert sum(line.startswith('{"epoch":') for line in lines) == 3
    assert sum('"students":' in line for line in lines) == 2
    assert all(" " not in line for line in lines if line.startswith(('{"epoch"', '{"batch"')))
    values = json.loads(written.read_text())
    assert (values["format"], values["version"]) == ("sweetspot-table", VERSION)
    assert values["measures"] == list(MEASURES)
    assert values["trajectories"][1]["epochs"][0]["train"] == [0.75, 0.5]
    assert "test_accuracy" not in values["points"][0]["students"][0]


def test_numbers_have_six_digits_and_the_config_all_of_its_own(written: Path) -> None:
    third = replace(student(0), accuracy=1 / 3, curve=(1 / 3, 1e-9 / 3))
    config = StudyConfig.model_validate({"student": {"alpha": 1 / 3}})
    write_table(replace(TABLE, config=config, baselines=Baselines((third,))), written)
    found = read_table(written)
    assert found.config.student.alpha == 1 / 3
    assert found.baselines.student_alone[0].accuracy == 0.333333
    assert found.baselines.student_alone[0].curve == (0.333333, 3.33333e-10)


def test_what_is_said_of_a_table() -> None:
    assert table_text(TABLE) == (
        "2 points, teachers of each: 1, students of each: 2; students without a teacher: 1 alone, "
        "2 with label smoothing 0.1; 1 left out, which could not be run"
    )
    assert table_text(replace(TABLE, baselines=Baselines(), left_out=())).endswith("without a teacher: none")
    assert table_dict(TABLE) == {
        "study": "tiny-grid",
        "command": "sweetspot grid --dataset digits",
        "points": 2,
        "teacher_seeds": 1,
        "replicates": 2,
        "students": 4,
        "left_out": 1,
        "baselines": {"student_alone": 1, "label_smoothing": {"0.1": 2}},
        "test_images": None,
    }


def keys(value: Any) -> set[str]:
    """Of all objects within a value, but those of a configuration."""
    if isinstance(value, list):
        return {key for part in value for key in keys(part)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {key for name, part in value.items() if name != "config" for key in keys(part)}


def test_every_key_of_a_table_is_documented(written: Path) -> None:
    write_table(replace(TABLE, baselines=Baselines((student(0, test_accuracy=0.5),))), written)
    documented = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8").partition("## The format")[2]
    values = json.loads(written.read_text()) | {"versions": {}}
    names = keys(values) | MEASURES.keys()
    assert len(names) > 40
    assert not [name for name in names if f"`{name}`" not in documented]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_tables_of_the_project_can_be_read_and_say_where_they_come_from(path: Path) -> None:
    table = read_table(path)
    assert table.command.startswith("sweetspot grid --dataset ")
    assert table.machine["trained_on"]
    assert table.versions["torch"]
    assert {len(p.students) for p in table.points} == {table.replicates}
    assert all(row.train.keys() == set(STORED) for t in table.trajectories for row in t.epochs)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_or_no_table(tmp_path: Path) -> None:
    for content, why in (
        (None, "No such file"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("\udcff".encode("utf-8", "surrogateescape"), "not JSON"),
        ("[]", 'its "format" is not "sweetspot-table"'),
        ('{"format": "sweetspot-export"}', 'its "format" is not "sweetspot-table"'),
    ):
        if content is not None:
            (tmp_path / "no.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=why) as refused:
            read_table(tmp_path / "no.json")
        assert str(refused.value).isprintable()


def test_a_table_of_another_version(damaged: Callable[..., str]) -> None:
    assert damaged(lambda t: t.update(version=2)).startswith(
        "FILE is a table of version 2, and this Sweetspot reads 1:"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.pop("points"), "points: Field required"),
        (lambda t: t.update(more=1), "more: "),
        (lambda t: t["points"][1]["students"][0].update(accuracy="high"), "points.1.students.0.accuracy: "),
        (lambda t: t["points"][0]["students"][0].update(accuracy=float("nan")), "points.0.students.0.accuracy: "),
        (lambda t: t["points"][0].update(epochs=None), "points.0.epochs: "),
        (lambda t: t["config"].update(sampler="tpe"), "config.sampler: "),
        (lambda t: t.pop("measures"), 'a row of measurements is not one number for each of "measures"'),
        (lambda t: t["trajectories"][0]["epochs"][0]["train"].pop(), "a row of measurements is not one number"),
        (lambda t: t["trajectories"][0]["epochs"][0].pop("train"), "its trajectories cannot be read"),
        (lambda t: t.update(trajectories=5), "its trajectories cannot be read"),
        (lambda t: t["trajectories"][0]["epochs"].pop(0), "batch 64, seed 0: epoch 1 of branch 0 is missing"),
        (lambda t: t["trajectories"].pop(), "batch 64, 3 epochs, seed 0: its teacher is missing"),
    ],
)
def test_a_table_that_is_damaged(damaged: Callable[..., str], change: Callable[..., Any], why: str) -> None:
    assert damaged(change).startswith(f"FILE is a damaged table: {why}")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--export .*table.txt: the suffix says what is written: .json$"):
        check_export(tmp_path / "table.txt")
    with pytest.raises(UserError, match=r"^--export .*: there is no folder "):
        check_export(tmp_path / "none" / "table.json")
    assert list(tmp_path.iterdir()) == []
