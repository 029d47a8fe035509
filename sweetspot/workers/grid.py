"""``grid``: an exhaustive study, and the table that is made of it once its workers have recorded it."""

import json
import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from sweetspot.config import NoPruner, Replicates, StudyConfig, TeacherSearch
from sweetspot.data.registry import info
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.models import build
from sweetspot.report import table
from sweetspot.report.points import summaries
from sweetspot.report.sentences import counted, without_path
from sweetspot.store import TRUNK, DamagedBlobError, Measurement, Store, Student, StudyRecord
from sweetspot.store.url import data_folder
from sweetspot.student.distillation import correctness
from sweetspot.study.choices import SMOOTHINGS
from sweetspot.study.confirmation import baseline_tasks
from sweetspot.study.ranking import steps_of
from sweetspot.study.search import TEST_EXPORTED, get_study, is_given_back, load
from sweetspot.study.space import TEACHER_SEED, Alone, Point, config_at, point_of, points
from sweetspot.study.tasks import TRIES, open_tasks
from sweetspot.study.visit import distillation_at, recipe_at
from sweetspot.study_file import default_name, draft_for
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.trajectory import branch_of
from sweetspot.training.device import devices, prepare
from sweetspot.training.weights import load_weights
from sweetspot.workers.machine import machine

SUFFIX = "-grid"
"""What the name of a grid ends in by default."""

_PACKAGES = ("sweetspot", "torch", "torchvision", "numpy", "optuna", "sqlalchemy")


def grid_config(config: StudyConfig, teachers: int | None = None, replicates: int | None = None) -> StudyConfig:
    """The exhaustive study of a study's space: every point, every teacher, every student, nothing pruned.

    Args:
        teachers: of each point, seeds 0 and on; None: as ``search.teacher.seeds`` says, or one.
        replicates: students of each teacher; None: ``student.replicates.max``.

    Raises:
        UserError: if what is searched cannot be listed, or is not in a table.
    """
    search, several = config.search, config.search.teacher
    others = {
        "search.student.temperature": search.student.temperature,
        "search.student.alpha": search.student.alpha,
        "search.teacher.lr": several.lr,
    }
    for key, searched in others.items():
        if searched is not None:
            raise UserError(
                f"a grid has every point, and {key} is a continuous range: leave it out, or search it alone"
            )
    if several.model is not None:
        raise UserError(
            "a table is of one teacher's network, and search.teacher.model lists several: record each alone"
        )
    several = TeacherSearch(seeds=teachers or several.seeds or 1)
    count = replicates or config.student.replicates.max
    config = config.model_copy(
        update={
            "search": search.model_copy(update={"sampler": "grid", "teacher": several}),
            "student": config.student.model_copy(update={"replicates": Replicates(min=count, max=count)}),
            "pruner": NoPruner(),
            "confirm": config.confirm.model_copy(update={"seeds": 0}),
        }
    )
    return config.model_copy(update={"search": config.search.model_copy(update={"trials": len(points(config) or ())})})


# -- the table --------------------------------------------------------------------------------------------------------


def export_table(
    name: str | None,
    path: Path,
    console: Console,
    *,
    with_test: bool = False,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
) -> table.Table:
    """Write the table of a grid, or of the only study there is; trains nothing.

    Args:
        path: of the file; what was there is replaced.
        console: told when the test split is looked at.
        with_test: whether to look at it, which every later verdict on this data counts.
        data, device: where the images are, which the test split needs, and where students respond to it.

    Raises:
        UserError: if the study, the storage, the data or the device is not to be had, or the study is no grid.
        RunError: if points are missing, or students without a teacher, or students' weights that the test split needs,
            or it cannot be written.
    """
    table.check_export(path)
    with Store(storage, artifacts) as store:
        grid = _read(store, name)
        images, tested = None, {}
        if with_test:
            images = _load(grid, data, device)
            tested = _tested(store, grid, images, console)
        untaught = {amount: _rows(students, tested) for amount, students in grid.untaught.items()}
        found = table.Table(
            study=grid.record.name,
            command=shlex.join([*command_of(grid.record), "--export", _named(path), *["--with-test"] * with_test]),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=machine() | {"gpus": _gpus(), "trained_on": _builds(store, grid)},
            versions=_versions(),
            config=_without_path(grid.config),
            data=_data(grid, images, data),
            replicates=grid.replicates,
            teacher_seeds=grid.config.search.teacher.seeds or 1,
            temperature=grid.config.teacher.probe_temperature,
            trajectories=tuple(_trajectories(store, grid)),
            points=tuple(_points(store, grid, tested)),
            left_out=grid.left_out,
            baselines=table.Baselines(
                student_alone=untaught.pop(0.0, ()),
                label_smoothing={f"{amount:g}": students for amount, students in untaught.items()},
            ),
        )
    table.write_table(found, path)
    return found


# -- what a study has -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """A grid that is complete, as the store has it.

    Attributes:
        students: of each point that has them, the points in the order of the space.
        untaught: students without a teacher by the amount of label smoothing; without those that are not there.
    """

    record: StudyRecord
    train_images: int
    classes: int
    students: Mapping[Point, tuple[Student, ...]]
    left_out: tuple[table.LeftOut, ...]
    untaught: Mapping[float, tuple[Student, ...]]

    @property
    def config(self) -> StudyConfig:
        return self.record.config

    @property
    def replicates(self) -> int:
        return self.config.student.replicates.max

    def recipe(self, point: Point) -> Recipe:
        return recipe_at(self.config, self.record.data_hash, point)

    def teacher_seed(self, point: Point) -> int:
        return config_at(self.config, point).teacher.seed

    def every_student(self) -> Iterator[Student]:
        for students in (*self.students.values(), *self.untaught.values()):
            yield from students


def _read(store: Store, name: str | None) -> _Grid:
    record = get_study(store, name)
    config = record.config
    if config.search.sampler != "grid":
        raise UserError(f"{record.name!r} is a search, and a table has every point: record one with sweetspot grid")
    if config.student.replicates.min != config.student.replicates.max:
        raise UserError(
            f"{record.name!r} races its points, and a table has all students of each: record one with sweetspot grid"
        )
    study = load(store, record.name)
    trials: dict[Point, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if (point := point_of(trial)) is not None:
            trials.setdefault(point, []).append(trial)
    states = {s.point: s for s in summaries(config, [t for each in trials.values() for t in each], (), 0)}
    every = points(config) or []
    students = _students(store, record, every)
    ended = {
        point: s
        for point, s in states.items()
        if s.state in ("pruned", "infeasible") or (s.state == "failed" and _have_failed(trials[point]))
    }
    missing = [point for point in every if point not in students and point not in ended]
    continues = f"{shlex.join(command_of(record, with_path=True))} continues it"
    if missing:
        raise RunError(f"{len(missing)} of the {len(every)} points of {record.name!r} are missing: {continues}")
    if students and (open_ := open_tasks(store, record, baseline_tasks(config))):
        count = sum(task.count for task in open_)
        raise RunError(f"{counted(count, 'student')} without a teacher of {record.name!r} are missing: {continues}")
    return _Grid(
        record=record,
        train_images=study.user_attrs["train_images"],
        classes=len(study.user_attrs["classes"]),
        students=students,
        left_out=tuple(
            table.LeftOut(p.batch_size, p.epochs, config_at(config, p).teacher.seed, ended[p].reason or "")
            for p in every
            if p not in students
        ),
        untaught=_untaught(store, record),
    )


def _have_failed(trials: Sequence[FrozenTrial]) -> bool:
    """For good: as often as a task may. A point is tried once more each time that the grid is continued."""
    return sum(t.state == TrialState.FAIL and not is_given_back(t) for t in trials) >= TRIES


def _students(store: Store, record: StudyRecord, every: Sequence[Point]) -> dict[Point, tuple[Student, ...]]:
    """The students of the points that have all of theirs: each of a point's teachers has replicates of its own."""
    keys = {point: distillation_at(record.config, record.data_hash, point).hash for point in every}
    there = store.students.of(list(keys.values()), "search")
    count = record.config.student.replicates.max
    found = {}
    for point in every:
        first = count * int(dict(point.others).get(TEACHER_SEED, 0))
        rows = tuple(s for s in there.get(keys[point], ()) if s.replicate in range(first, first + count))
        if len(rows) == count:
            found[point] = rows
    return found


def _untaught(store: Store, record: StudyRecord) -> dict[float, tuple[Student, ...]]:
    """Those with the replicates that the grid's own teachers have; other studies on the data may have trained more."""
    keys = {x: distillation_at(record.config, record.data_hash, Alone(x)).hash for x in (0.0, *SMOOTHINGS)}
    there = store.students.of(list(keys.values()), "search")
    wanted = range((record.config.search.teacher.seeds or 1) * record.config.student.replicates.max)
    found = {x: tuple(s for s in there.get(key, ()) if s.replicate in wanted) for x, key in keys.items()}
    return {amount: students for amount, students in found.items() if students}


# -- as a table -------------------------------------------------------------------------------------------------------


def _trajectories(store: Store, grid: _Grid) -> Iterator[table.Trajectory]:
    """The trunk of each recipe, and the branches that hang from it, as far as the points reach."""
    by_recipe: dict[tuple[int, int], list[Point]] = {}
    for point in grid.students:
        by_recipe.setdefault((point.batch_size, grid.teacher_seed(point)), []).append(point)
    for (batch_size, seed), there in by_recipe.items():
        recipe = grid.recipe(there[0])
        leaving = {p.epochs: recipe.schedule.shared_epochs(p.epochs) for p in there}
        runs = [(TRUNK, 0, max(leaving.values()))]
        runs += [(epochs, shared, epochs) for epochs, shared in leaving.items() if shared < epochs]
        for branch, first, last in runs:
            if rows := _epochs(store, grid, recipe, branch, range(first + 1, last + 1)):
                yield table.Trajectory(batch_size, seed, branch, first, rows)


def _epochs(store: Store, grid: _Grid, recipe: Recipe, branch: int, wanted: range) -> tuple[table.Epoch, ...]:
    known = store.trajectories.measurements(recipe.hash, branch, grid.config.teacher.probe_temperature)
    return tuple(_epoch(known.get((e, "train")), known.get((e, "validation")), e, recipe) for e in wanted)


def _epoch(views: Measurement | None, validation: Measurement | None, epoch: int, recipe: Recipe) -> table.Epoch:
    if views is None or validation is None or views.seconds is None or views.train_loss is None:
        raise RunError(
            f"epoch {epoch} of a teacher of batch {recipe.batch_size} was not measured for this grid, as another study "
            "had trained it before: record it with a --storage of its own"
        )
    return table.Epoch(
        epoch, views.recomputed and validation.recomputed, views.train_loss, views.seconds,
        dict(views.values), dict(validation.values),
    )  # fmt: skip


def _points(store: Store, grid: _Grid, tested: Mapping[str, float]) -> Iterator[table.TablePoint]:
    measuring = _measuring(store, grid.record.data_hash)
    for point, students in grid.students.items():
        recipe = grid.recipe(point)
        yield table.TablePoint(
            batch_size=point.batch_size,
            epochs=point.epochs,
            teacher_seed=grid.teacher_seed(point),
            steps=steps_of(point, grid.train_images),
            branch=branch_of(recipe, point.epochs),
            measuring_seconds=measuring.get((recipe.hash, point.epochs), 0.0),
            students=_rows(students, tested),
        )


def _measuring(store: Store, data_hash: str) -> dict[tuple[str, int], float]:
    """Seconds that the trials of all searches have spent on measuring, by recipe and epochs: whichever study came first
    has measured a teacher."""
    spent: dict[tuple[str, int], float] = {}
    for record in store.studies.all():
        trials = load(store, record.name).get_trials(deepcopy=False) if record.data_hash == data_hash else ()
        for trial in trials:
            if (point := point_of(trial)) is not None:
                key = recipe_at(record.config, data_hash, point).hash, point.epochs
                spent[key] = spent.get(key, 0.0) + trial.user_attrs.get("seconds", {}).get("measuring", 0.0)
    return spent


def _rows(students: Iterable[Student], tested: Mapping[str, float]) -> tuple[table.Student, ...]:
    return tuple(
        table.Student(s.replicate, s.accuracy, tuple(s.curve["accuracy"]), s.seconds, tested.get(s.weights))
        for s in students
    )


def _data(grid: _Grid, images: StudyData | None, root: Path | None) -> table.TableData:
    return table.TableData(
        hash=grid.record.data_hash,
        dataset=without_path(grid.config.data.dataset),
        classes=grid.classes,
        train_images=grid.train_images,
        validation_images=_validation_images(grid, images, root),
        test_images=None if images is None else len(images.test()),
    )


def _validation_images(grid: _Grid, images: StudyData | None, root: Path | None) -> int:
    wanted = grid.config.data.validation
    if wanted >= 1:
        return int(wanted)
    known = info(grid.config.data.dataset)
    if known is not None:
        return known.train_images - grid.train_images
    return len((images or _load(grid, root, "cpu")).validation)


# -- the test split ---------------------------------------------------------------------------------------------------


def _load(grid: _Grid, root: Path | None, device: str) -> StudyData:
    chosen, *others = devices(device)
    if others and "," in device:
        raise UserError(f"--device {device}: give one")
    images = load_study_data(grid.config, root or data_folder(), prepare(chosen, grid.config.run))
    if images.hash != grid.record.data_hash:
        raise UserError(
            f"the study {grid.record.name!r} was made with other images: its data has the hash "
            f"{grid.record.data_hash[:12]}, the copy here {images.hash[:12]}; give the right --data"
        )
    return images


def _tested(store: Store, grid: _Grid, images: StudyData, console: Console) -> dict[str, float]:
    """The accuracy of every student on the test split, by the blob of its weights."""
    lost = sum(not student.weights for student in grid.every_student())
    if lost:
        raise RunError(f"the weights of {lost} students are lost: export without --with-test")
    looks = store.studies.count_test_look(grid.record.name)
    load(store, grid.record.name).set_user_attr(TEST_EXPORTED, True)
    told = f"looking at the test split of this data: look {looks}, which every later verdict on it counts"
    console.print(Text(told), soft_wrap=True)
    config, test = grid.config.student, images.test()
    model = build(config.model, classes=len(images.classes), channels=images.channels, image_size=images.image_size).to(
        test.labels.device, memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    found: dict[str, float] = {}
    for student in grid.every_student():
        if student.weights not in found:
            try:
                load_weights(model, store.artifacts.get(student.weights))
            except DamagedBlobError as error:
                raise RunError(f"the weights of a student are lost ({error}): export without --with-test") from None
            correct = correctness(model, test, config.precision)
            found[student.weights] = int(correct.sum()) / len(correct)
    return found


# -- the command ------------------------------------------------------------------------------------------------------


def command_of(record: StudyRecord, *, with_path: bool = False) -> list[str]:
    """The words of the command that records a grid anew, or continues it.

    Args:
        with_path: whether data that are given by their path are named by all of it, and not by the last part alone.
    """
    config = record.config
    dataset = config.data.dataset if with_path else without_path(config.data.dataset)
    plain = draft_for(without_path(config.data.dataset), None).config()
    plain = plain.model_copy(update={"data": plain.data.model_copy(update={"dataset": config.data.dataset})})
    teachers, replicates = config.search.teacher.seeds or 1, config.student.replicates.max
    words = ["sweetspot", "grid", "--dataset", dataset]
    if record.name != default_name(config.data.dataset, None) + SUFFIX:
        words += ["--name", record.name]
    words += ["--teachers", str(teachers), "--replicates", str(replicates)]
    differences = _differences(grid_config(plain, teachers, replicates).identity(), config.identity())
    words += [word for key, value in differences for word in ("--set", f"{key}={_toml(value)}")]
    return words


def _named(path: Path) -> str:
    """A file as a command names it that is handed on."""
    return path.name if path.is_absolute() else str(path)


def _differences(plain: Mapping[str, Any], mine: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys at which ``mine`` differs, with its values; a table of another kind as a whole."""
    for key, value in mine.items():
        there = plain.get(key)
        if value == there or value is None:
            continue
        if isinstance(value, dict) and isinstance(there, dict) and _is_like(value, there):
            yield from _differences(there, value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _is_like(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and one.get("name") == other.get("name")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


# -- the machine ------------------------------------------------------------------------------------------------------


def _without_path(config: StudyConfig) -> StudyConfig:
    dataset = without_path(config.data.dataset)
    return config.model_copy(update={"data": config.data.model_copy(update={"dataset": dataset})})


def _gpus() -> list[str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(i) for i in range(count)]


def _builds(store: Store, grid: _Grid) -> list[str]:
    """The torch builds and devices, or instruction sets, that trained the teachers."""
    recipes = {grid.recipe(point).hash for point in grid.students}
    return sorted({s.build for recipe in recipes for s in store.trajectories.of_recipe(recipe) if s.build})


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
