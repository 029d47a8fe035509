"""The table of a grid: what it has is what the store has, and it can be made again from its own command."""

import shlex
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_study import tiny_config

from sweetspot.cli import main
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.models import build
from sweetspot.report.table import Table, read_table
from sweetspot.store import TRUNK, Leases, Store, StudyRecord
from sweetspot.store.trajectories import MEASURES
from sweetspot.store.url import data_folder
from sweetspot.student.distillation import correctness
from sweetspot.study.claim import Outcome, run_next
from sweetspot.study.jobs import Search
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import Alone, Point, points
from sweetspot.study.visit import Visit, distillation_at, recipe_at
from sweetspot.study.workplace import Workplace
from sweetspot.training.weights import load_weights
from sweetspot.workers.grid import command_of, export_table, grid_config
from sweetspot.workers.optimize import Run
from sweetspot.workers.worker import work

CPU = torch.device("cpu")
GRID = grid_config(
    tiny_config(search__epochs=[2, 5], teacher__schedule={"name": "wsd", "warmup": 0, "decay": 0.4}),
    teachers=2,
    replicates=2,
)
"""Its teachers of 2 epochs leave the trunk after 1, those of 5 after 3."""


@pytest.fixture(scope="module")
def digits() -> StudyData:
    return load_study_data(GRID, data_folder(), CPU)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, digits: StudyData) -> str:
    """A storage with a grid that is complete, and one that is not begun."""
    url = f"sqlite:///{tmp_path_factory.mktemp('grid')}/study.db"
    with Store(url) as store:
        create_or_continue(store, "tiny-grid", GRID, digits)
        create_or_continue(store, "begun", grid_config(tiny_config(seed=1)), digits)
    work("tiny-grid", storage=url, device="cpu")
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened


@pytest.fixture
def record(store: Store) -> StudyRecord:
    found = store.studies.get("tiny-grid")
    assert found is not None
    return found


@pytest.fixture
def said() -> Console:
    return Console(record=True, file=StringIO(), width=200)


@pytest.fixture
def exported(url: str, tmp_path: Path, said: Console) -> Callable[..., Table]:
    """Exports the grid, and reads what was written."""

    def run(name: str = "tiny-grid", **options: Any) -> Table:
        export_table(name, tmp_path / "table.json", said, storage=url, device="cpu", **options)
        return read_table(tmp_path / "table.json")

    return run


def test_every_point_has_every_student_of_every_teacher(exported: Callable[..., Table], record: StudyRecord) -> None:
    table = exported()
    assert (table.replicates, table.teacher_seeds, table.temperature) == (2, 2, GRID.teacher.probe_temperature)
    places = {(p.batch_size, p.epochs, p.teacher_seed): p for p in table.points}
    assert len(places) == len(table.points)
    assert places.keys() == set(product((64, 128), (2, 5), (0, 1)))
    for (batch, epochs, seed), point in places.items():
        assert [s.replicate for s in point.students] == [2 * seed, 2 * seed + 1]
        assert {len(s.curve) for s in point.students} == {GRID.student.epochs}
        assert point.steps == epochs * (table.data.train_images // batch)
    assert table.left_out == ()
    assert table.config == record.config
    assert table.data.hash == record.data_hash
    assert (table.data.classes, table.data.validation_images, table.data.test_images) == (10, 300, None)
    assert table.data.train_images == 1397 - 300
    assert table.machine["trained_on"][0].startswith(f"torch {torch.__version__}, CPU")


def test_its_students_are_the_stores(exported: Callable[..., Table], store: Store, record: StudyRecord) -> None:
    for point in exported().points:
        source = Point(point.batch_size, point.epochs, (("teacher.seed", point.teacher_seed),))
        key = distillation_at(record.config, record.data_hash, source).hash
        rows = store.students.of([key], "search")[key]
        for mine, row in zip(point.students, rows, strict=True):
            assert (mine.replicate, mine.test_accuracy) == (row.replicate, None)
            assert mine.accuracy == pytest.approx(row.accuracy, rel=1e-5)
            assert mine.curve == pytest.approx(row.curve["accuracy"], rel=1e-5)
            assert mine.seconds == pytest.approx(row.seconds, rel=1e-5)


def test_a_trajectory_has_a_trunk_and_branches_with_every_measurement(
    exported: Callable[..., Table], store: Store, record: StudyRecord
) -> None:
    table = exported()
    runs = {(t.batch_size, t.teacher_seed, t.branch): t for t in table.trajectories}
    assert runs.keys() == set(product((64, 128), (0, 1), (TRUNK, 2, 5)))
    for (batch, seed, branch), run in runs.items():
        first, last = {TRUNK: (0, 3), 2: (1, 2), 5: (3, 5)}[branch]
        assert run.shared_epochs == first
        assert [row.epoch for row in run.epochs] == list(range(first + 1, last + 1))
        recipe = recipe_at(record.config, record.data_hash, Point(batch, 2, (("teacher.seed", seed),)))
        known = store.trajectories.measurements(recipe.hash, branch, table.temperature)
        for row in run.epochs:
            for probe, values in (("train", row.train), ("validation", row.validation)):
                stored = known[row.epoch, probe]  # type: ignore[index]
                assert list(values) == list(MEASURES)
                assert values == pytest.approx(dict(stored.values), rel=1e-5)
                assert (row.train_loss, row.seconds) == pytest.approx((stored.train_loss, stored.seconds), rel=1e-5)
                assert row.recomputed == stored.recomputed
    for point in table.points:
        assert point.branch == point.epochs
        assert runs[point.batch_size, point.teacher_seed, point.branch].epochs[-1].recomputed


def test_measuring_is_paid_for_once(exported: Callable[..., Table], store: Store) -> None:
    trials = load(store, "tiny-grid").get_trials(deepcopy=False)
    assert sum(p.measuring_seconds for p in exported().points) == pytest.approx(
        sum(t.user_attrs["seconds"]["measuring"] for t in trials), rel=1e-4
    )


def test_its_command_records_the_same_study(exported: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[StudyConfig, Run]] = []

    def stop(config: StudyConfig, run: Run, console: Console, *, quiet: bool) -> None:
        asked.append((config, run))
        raise RunError("enough")

    monkeypatch.setattr("sweetspot.workers.optimize.run_study", stop)
    words = shlex.split(exported().command)
    assert words[-2:] == ["--export", "table.json"]
    assert main(words[1:]) == 1
    ((config, run),) = asked
    assert config.differences(GRID) == []
    assert (run.name, run.trials) == ("tiny-grid", 8)


def test_what_is_missing_is_said_with_the_command_that_continues_it(
    exported: Callable[..., Table], store: Store, tmp_path: Path
) -> None:
    with pytest.raises(RunError) as refused:
        exported("begun")
    record = store.studies.get("begun")
    assert record is not None
    command = shlex.join(command_of(record, with_path=True))
    assert str(refused.value) == f"6 of the 6 points of 'begun' are missing: {command} continues it"
    assert "--name begun --teachers 1 --replicates 2 --set seed=1" in command
    assert list(tmp_path.iterdir()) == []


def test_a_search_has_no_table(exported: Callable[..., Table], store: Store, digits: StudyData) -> None:
    create_or_continue(store, "search", tiny_config(), digits)
    with pytest.raises(UserError, match=r"^'search' is a search, and a table has every point: "):
        exported("search")


def test_a_grid_that_races_has_no_table(exported: Callable[..., Table], store: Store, digits: StudyData) -> None:
    config = tiny_config(search__sampler="grid", student__replicates={"min": 2, "max": 3})
    create_or_continue(store, "races", config, digits)
    with pytest.raises(UserError, match=r"^'races' races its points, .*: record one with sweetspot grid$"):
        exported("races")


def test_a_point_that_cannot_be_run_is_left_out_with_its_reason(
    exported: Callable[..., Table], store: Store, digits: StudyData, url: str
) -> None:
    config = grid_config(tiny_config(
        search__batch_size=[64], search__epochs=[1], teacher__optimizer={"name": "sgd", "lr": 1e30},
    ))  # fmt: skip
    create_or_continue(store, "diverges", config, digits)
    work("diverges", storage=url, device="cpu")
    table = exported("diverges")
    assert (table.points, table.trajectories) == ((), ())
    (left_out,) = table.left_out
    assert (left_out.batch_size, left_out.epochs, left_out.teacher_seed) == (64, 1, 0)
    assert "not finite in epoch 1" in left_out.reason


def test_teachers_that_another_study_has_trained_and_not_measured_alike(
    exported: Callable[..., Table], store: Store, digits: StudyData, url: str
) -> None:
    config = grid_config(tiny_config(search__batch_size=[64], search__epochs=[2], seed=5), replicates=1)
    create_or_continue(store, "before", config, digits)
    teacher = config.teacher.model_copy(update={"probe_temperature": 2.0})
    create_or_continue(store, "after", config.model_copy(update={"teacher": teacher}), digits)
    for name in ("before", "after"):
        work(name, storage=url, device="cpu")
    assert len(exported("before").points) == 1
    with pytest.raises(RunError, match=r"^epoch 1 of a teacher of batch 64 was not measured for this grid, as another"):
        exported("after")


# -- students without a teacher ---------------------------------------------------------------------------------------


def test_baselines_are_those_that_the_grid_planned(
    exported: Callable[..., Table], store: Store, digits: StudyData, url: str
) -> None:
    config = grid_config(tiny_config(search__batch_size=[64], search__epochs=[1], seed=9))
    create_or_continue(store, "alone", config, digits)
    work("alone", storage=url, device="cpu")
    workplace = Workplace("alone", store, Leases(store.database, "me", 60), digits, CPU)
    alone = Visit(config, Alone(), workplace).train_students("search", range(3))
    smoothed = Visit(config, Alone(0.1), workplace).train_students("search", range(2))
    baselines = exported("alone").baselines
    assert [s.replicate for s in baselines.student_alone] == [0, 1], "the third is another study's"
    assert [s.accuracy for s in baselines.student_alone] == pytest.approx([s.accuracy for s in alone[:2]], rel=1e-5)
    (found,) = baselines.label_smoothing.items()
    assert (found[0], len(found[1])) == ("0.1", 2)
    assert found[1][1].curve == pytest.approx(smoothed[1].curve["accuracy"], rel=1e-5)


def test_baselines_that_are_missing_are_said_with_the_command_that_continues_it(
    exported: Callable[..., Table], store: Store, digits: StudyData, tmp_path: Path
) -> None:
    """Its workers died once the search was done."""
    config = grid_config(tiny_config(search__batch_size=[64], search__epochs=[1], seed=11))
    record = create_or_continue(store, "died", config, digits)
    workplace = Workplace("died", store, Leases(store.database, "me", 60), digits, CPU)
    job = Search(record, workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    Visit(config, Alone(), workplace).train_students("search", range(2))
    with pytest.raises(RunError) as refused:
        exported("died")
    command = shlex.join(command_of(record, with_path=True))
    assert str(refused.value) == f"2 students without a teacher of 'died' are missing: {command} continues it"
    assert list(tmp_path.iterdir()) == []
    Visit(config, Alone(0.1), workplace).train_students("search", range(2))
    assert len(exported("died").baselines.label_smoothing["0.1"]) == 2


# -- the test split ---------------------------------------------------------------------------------------------------


def test_the_test_split_is_left_alone_unless_it_is_asked_for(
    exported: Callable[..., Table], monkeypatch: pytest.MonkeyPatch, store: Store, record: StudyRecord
) -> None:
    def looked(data: StudyData) -> None:
        raise AssertionError("the test split was looked at")

    monkeypatch.setattr(StudyData, "test", looked)
    assert {s.test_accuracy for p in exported().points for s in p.students} == {None}
    assert store.studies.get(record.name) == record


def test_with_the_test_split_every_student_is_looked_at_and_every_later_verdict_counts_it(
    exported: Callable[..., Table], store: Store, record: StudyRecord, digits: StudyData, said: Console
) -> None:
    before = record.test_looks
    table = exported(with_test=True)
    test = digits.test()
    assert table.data.test_images == len(test)
    for point in table.points:
        source = Point(point.batch_size, point.epochs, (("teacher.seed", point.teacher_seed),))
        key = distillation_at(record.config, record.data_hash, source).hash
        for student, row in zip(point.students, store.students.of([key], "search")[key], strict=True):
            model = build(GRID.student.model, classes=10, channels=1, image_size=8)
            load_weights(model, store.artifacts.get(row.weights))
            accuracy = correctness(model, test, "float32").double().mean().item()
            assert student.test_accuracy == pytest.approx(accuracy, rel=1e-5)
    now = store.studies.get(record.name)
    assert now is not None
    assert now.test_looks == before + 1
    assert f"look {store.studies.count_test_look('begun') - 1}, which every later verdict" in said.export_text()
    assert table.command.endswith("--export table.json --with-test")


@pytest.mark.parametrize("how", ["damaged", "forgotten"])
def test_students_whose_weights_are_lost(
    exported: Callable[..., Table], store: Store, record: StudyRecord, tmp_path: Path, how: str
) -> None:
    point = (points(record.config) or [])[-1]
    key = distillation_at(record.config, record.data_hash, point).hash
    row = store.students.of([key], "search")[key][0]
    content = store.artifacts.get(row.weights)
    if how == "damaged":
        Path(store.artifacts_url, "blobs", row.weights[:2], row.weights).write_bytes(content[:-1])
    else:
        store.students.forget_weights(row.weights)
    try:
        with pytest.raises(RunError, match=r"weights of (1|a) students? (are|is) lost.*: export without --with-test$"):
            exported(with_test=True)
        assert list(tmp_path.iterdir()) == []
        assert len(exported().points) == 8
    finally:
        store.artifacts.put(content)
        store.students.restore_weights(key, "search", row.replicate, "", row.weights)


def test_data_that_is_not_the_studys_is_not_looked_at(
    exported: Callable[..., Table], store: Store, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("mine") / "mine.npz"
    images = np.random.default_rng(0).integers(256, size=(200, 8, 8), dtype=np.uint8)
    labels = np.arange(200) % 10

    def write(pixels: "np.ndarray[Any, Any]") -> None:
        np.savez(file, train_x=pixels, train_y=labels, test_x=images, test_y=labels)

    write(images)
    config = grid_config(tiny_config(
        data__dataset=f"npz:{file}", data__validation=0.2, search__batch_size=[32], search__epochs=[1],
        student__epochs=1, student__batch_size=32,
    ))  # fmt: skip
    create_or_continue(store, "mine", config, load_study_data(config, data_folder(), CPU))
    work("mine", storage=url, device="cpu")
    table = exported("mine")
    assert (table.data.dataset, table.config.data.dataset) == ("npz:mine.npz", "npz:mine.npz")
    assert table.data.validation_images == 40
    assert str(file.parent) not in (table.command + str(table.config))
    write(255 - images)
    with pytest.raises(UserError, match="the study 'mine' was made with other images"):
        exported("mine", with_test=True)
    assert store.studies.get("mine").test_looks == 0  # type: ignore[union-attr]


# -- what can be recorded ---------------------------------------------------------------------------------------------


def test_a_grid_is_every_point_and_prunes_nothing() -> None:
    assert (GRID.search.sampler, GRID.search.teacher.seeds, GRID.search.trials) == ("grid", 2, 8)
    assert (GRID.student.replicates.min, GRID.student.replicates.max, GRID.pruner.name) == (2, 2, "none")
    assert GRID.confirm.seeds == 0
    plain = grid_config(tiny_config(student__replicates={"min": 1, "max": 3}))
    assert (plain.search.teacher.seeds, plain.search.trials) == (1, 6)
    assert (plain.student.replicates.min, plain.student.replicates.max) == (3, 3)
    assert StudyConfig.from_json(GRID.to_json()) == GRID


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("search.teacher.lr", {"low": 0.01, "high": 0.1}, "search.teacher.lr is a continuous range"),
        ("search.student.alpha", {"low": 0.1, "high": 0.9}, "search.student.alpha is a continuous range"),
        ("search.student.temperature", {"low": 1, "high": 8}, "search.student.temperature is a continuous range"),
        ("search.teacher.model", ["mlp", "convnet"], "search.teacher.model lists several"),
    ],
)
def test_what_a_table_cannot_have(key: str, value: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        grid_config(tiny_config(**{key: value}))


def test_grids_with_other_replicates_leave_each_others_students_alone(
    tmp_path: Path, digits: StudyData, said: Console
) -> None:
    url, base = f"sqlite:///{tmp_path}/study.db", tiny_config(search__batch_size=[64], search__epochs=[1])
    with Store(url) as store:
        for name, replicates in (("one", 1), ("two", 2)):
            create_or_continue(store, name, grid_config(base, teachers=2, replicates=replicates), digits)
            work(name, storage=url, device="cpu")
            export_table(name, tmp_path / "table.json", said, storage=url, device="cpu")
            taught = {
                p.teacher_seed: [s.replicate for s in p.students] for p in read_table(tmp_path / "table.json").points
            }
            assert taught == {seed: [replicates * seed + r for r in range(replicates)] for seed in (0, 1)}
        trained = [t.user_attrs["student_epochs"] for t in load(store, "two").trials]
        assert sum(trained) == 3 * base.student.epochs, "one of the four students was there"
