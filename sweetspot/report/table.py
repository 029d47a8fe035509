"""Tables: an exhaustive study as one versioned JSON file, which needs neither the study nor its database any more.

What is in it, key by key, is in ``docs/tables.md``. Accuracies are fractions, times seconds, entropies nats.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from sweetspot.config import StudyConfig
from sweetspot.errors import UserError
from sweetspot.report.output import check_output, write_output

FORMAT = "sweetspot-table"
VERSION = 1
"""Rises with every change after which an older Sweetspot could not read a table."""

PROBES = ("train", "validation")

_DIGITS = 6
"""Significant digits of the numbers in a file: more than any of them repeats to on another machine."""
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@with_config(_STRICT)
@dataclass(frozen=True)
class Student:
    """One student.

    Attributes:
        replicate: its index, which gives its seed.
        accuracy: on the validation split, after its last epoch.
        curve: the same after each epoch.
        seconds: of its training.
        test_accuracy: None where the test split was left alone.
    """

    replicate: int
    accuracy: float
    curve: tuple[float, ...]
    seconds: float
    test_accuracy: float | None = None


@with_config(_STRICT)
@dataclass(frozen=True)
class Epoch:
    """A teacher at one epoch.

    Attributes:
        recomputed: whether it was measured as it teaches, with BatchNorm's statistics recomputed.
        train_loss: mean over the epoch.
        seconds: of training this epoch, without measuring.
        train, validation: the measurements on training views and on the validation split, by name.
    """

    epoch: int
    recomputed: bool
    train_loss: float
    seconds: float
    train: Mapping[str, float]
    validation: Mapping[str, float]


@with_config(_STRICT)
@dataclass(frozen=True)
class Trajectory:
    """A trunk, or a decay branch that hangs from one.

    Attributes:
        branch: 0: the trunk; otherwise the epoch at which the branch ends.
        shared_epochs: of a branch: the epoch at which it leaves the trunk; of the trunk 0.
        epochs: ascending and without a gap, from ``shared_epochs + 1``.
    """

    batch_size: int
    teacher_seed: int
    branch: int
    shared_epochs: int
    epochs: tuple[Epoch, ...]


@with_config(_STRICT)
@dataclass(frozen=True)
class TablePoint:
    """A point of the grid with one of its teachers: the last epoch of the branch, or the ``epochs``-th of the trunk.

    Attributes:
        steps: of the teacher.
        measuring_seconds: that trials at it, of whatever study, spent on measuring teachers; one that was there already
            cost nothing.
        students: by rising replicate.
    """

    batch_size: int
    epochs: int
    teacher_seed: int
    steps: int
    branch: int
    measuring_seconds: float
    students: tuple[Student, ...]


@with_config(_STRICT)
@dataclass(frozen=True)
class LeftOut:
    """A point that could not be run, and why."""

    batch_size: int
    epochs: int
    teacher_seed: int
    reason: str


@with_config(_STRICT)
@dataclass(frozen=True)
class Baselines:
    """Students that no teacher taught, by rising replicate; empty where there are none.

    Attributes:
        label_smoothing: by its amount, as text.
    """

    student_alone: tuple[Student, ...] = ()
    label_smoothing: Mapping[str, tuple[Student, ...]] = field(default_factory=dict)


@with_config(_STRICT)
@dataclass(frozen=True)
class TableData:
    """The images.

    Attributes:
        hash: SHA-256 of the training set's content.
        dataset: the name; of a path the last component.
        classes: how many.
        train_images: without those that are held out for validation.
        test_images: None where the test split was left alone.
    """

    hash: str
    dataset: str
    classes: int
    train_images: int
    validation_images: int
    test_images: int | None


@with_config(_STRICT)
@dataclass(frozen=True)
class Table:
    """An exhaustive study.

    Attributes:
        command: records it anew.
        created: when it was written, ISO 8601 in UTC.
        replicates: students of each point and teacher.
        teacher_seeds: teachers of each point.
        temperature: at which the teachers' responses were measured.
    """

    study: str
    command: str
    created: str
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    config: StudyConfig
    data: TableData
    replicates: int
    teacher_seeds: int
    temperature: float
    trajectories: tuple[Trajectory, ...]
    points: tuple[TablePoint, ...]
    left_out: tuple[LeftOut, ...] = ()
    baselines: Baselines = Baselines()


def table_dict(table: Table) -> dict[str, Any]:
    """What ``sweetspot grid --export --json`` prints."""
    return {
        "study": table.study,
        "command": table.command,
        "points": len(_places(table)),
        "teacher_seeds": table.teacher_seeds,
        "replicates": table.replicates,
        "students": sum(len(point.students) for point in table.points),
        "left_out": len(table.left_out),
        "baselines": {
            "student_alone": len(table.baselines.student_alone),
            "label_smoothing": {amount: len(rows) for amount, rows in table.baselines.label_smoothing.items()},
        },
        "test_images": table.data.test_images,
    }


def table_text(table: Table) -> str:
    """What a table has, in a line."""
    smoothed = table.baselines.label_smoothing.items()
    untaught = {"alone": table.baselines.student_alone} | {f"with label smoothing {x}": rows for x, rows in smoothed}
    told = [f"{len(rows)} {how}" for how, rows in untaught.items() if rows]
    return (
        f"{len(_places(table))} points, teachers of each: {table.teacher_seeds}, students of each: {table.replicates}; "
        f"students without a teacher: {', '.join(told) or 'none'}"
        + (f"; {len(table.left_out)} left out, which could not be run" if table.left_out else "")
    )


def _places(table: Table) -> set[tuple[int, int]]:
    return {(point.batch_size, point.epochs) for point in table.points}


# -- reading ----------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> Table:
    """The table of a file that ``sweetspot grid --export`` wrote.

    Raises:
        UserError: if it cannot be read, is no table, or one of another version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the table {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no table: not JSON ({error}); sweetspot grid --export writes one") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f'{path} is no table: its "format" is not "{FORMAT}"; sweetspot grid --export writes one')
    if values.get("version") != VERSION:
        raise UserError(
            f"{path} is a table of version {values.get('version')!r}, and this Sweetspot reads {VERSION}: "
            "record it again, or use the Sweetspot that wrote it"
        )
    try:
        table = _TABLE.validate_python(_unfolded(values))
        _check(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is a damaged table: {where}: {first['msg']}") from None
    except ValueError as error:
        raise UserError(f"{path} is a damaged table: {error}") from None
    return table


_TABLE = TypeAdapter(Table)


def _unfolded(values: Mapping[str, Any]) -> dict[str, Any]:
    """With the measurements of every epoch by name."""
    names = values.get("measures")
    try:
        trajectories = [
            {**each, "epochs": [row | {probe: _named(names, row[probe]) for probe in PROBES} for row in each["epochs"]]}
            for each in values["trajectories"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its trajectories cannot be read ({type(error).__name__}: {error})") from None
    rest = {key: value for key, value in values.items() if key not in ("format", "version", "measures")}
    return rest | {"trajectories": trajectories}


def _named(names: Any, values: Any) -> dict[str, float]:
    if not isinstance(names, list) or not isinstance(values, list) or len(names) != len(values):
        raise ValueError('a row of measurements is not one number for each of "measures"')
    return dict(zip(names, values, strict=True))


def _check(table: Table) -> None:
    """Refuse a table some of whose teachers are missing.

    Raises:
        ValueError: says which.
    """
    there: set[tuple[int, int, int, int]] = set()
    for t in table.trajectories:
        for place, row in enumerate(t.epochs, t.shared_epochs + 1):
            if row.epoch != place:
                raise ValueError(
                    f"batch {t.batch_size}, seed {t.teacher_seed}: epoch {place} of branch {t.branch} is missing"
                )
            there.add((t.batch_size, t.teacher_seed, t.branch, row.epoch))
    for p in table.points:
        if (p.batch_size, p.teacher_seed, p.branch, p.epochs) not in there:
            raise ValueError(f"batch {p.batch_size}, {p.epochs} epochs, seed {p.teacher_seed}: its teacher is missing")


# -- writing ----------------------------------------------------------------------------------------------------------


def check_export(path: Path) -> None:
    """Refuse a file that :func:`write_table` could not write.

    Raises:
        UserError: if it is no JSON file, or its folder is not there or cannot be written.
    """
    try:
        check_output(path, (".json",))
    except UserError as error:
        raise UserError(str(error).replace("--output", "--export", 1)) from None


def write_table(table: Table, path: Path) -> None:
    """Write a table; what was there before stays until all of it is written.

    Raises:
        RunError: if it cannot be written.
    """
    write_output(path, table_json(table).encode(), "the same command elsewhere trains nothing")


def table_json(table: Table) -> str:
    """The text of a table's file, its numbers rounded: a line for each epoch, point and student without a teacher."""
    values = _TABLE.dump_python(table, mode="json")
    values = _rounded(values) | {"config": values["config"]}
    names = next((list(row["train"]) for t in values["trajectories"] for row in t["epochs"]), [])
    trajectories, points, baselines = (values.pop(key) for key in ("trajectories", "points", "baselines"))
    smoothed = {amount: _students(rows) for amount, rows in baselines["label_smoothing"].items()}
    told = {"format": FORMAT, "version": VERSION, **values, "measures": names}
    members = {key: _line(value) for key, value in told.items()} | {
        "trajectories": _list(_trajectory(each, names) for each in trajectories),
        "points": _list(_line(each | {"students": _told(each["students"])}) for each in points),
        "baselines": _object(
            {"student_alone": _students(baselines["student_alone"]), "label_smoothing": _object(smoothed)}
        ),
    }
    return _object(members) + "\n"


def _trajectory(values: dict[str, Any], names: Sequence[str]) -> str:
    rows = (row | {probe: [row[probe][name] for name in names] for probe in PROBES} for row in values["epochs"])
    told = {key: _line(value) for key, value in values.items()} | {"epochs": _list(map(_line, rows))}
    return _object(told)


def _students(values: Sequence[dict[str, Any]]) -> str:
    return _list(map(_line, _told(values)))


def _told(students: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without a test accuracy where there is none."""
    return [{key: value for key, value in each.items() if value is not None} for each in students]


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",\n".join(f"{json.dumps(key)}:{text}" for key, text in members.items()) + "}"


def _list(lines: Iterable[str]) -> str:
    return "[\n" + ",\n".join(lines) + "]"


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
