"""A survey: every teacher of a ladder in the store, each trajectory trained once, and what was measured of it."""

from dataclasses import replace

import pytest
from tiny_study import tiny_config

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Leases, Measurement, Store
from sweetspot.study.space import Point
from sweetspot.study.survey import SURVEYED, Survey, SurveyPoint, survey, surveyed
from sweetspot.study.visit import Visit
from sweetspot.study.workplace import Workplace, registered
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.trajectory import branch_of, lease_name

SCHEDULES = {
    "constant": {"name": "constant"},
    "wsd": {"name": "wsd", "warmup": 0.0, "decay": 0.34},
    "cosine": {"name": "cosine"},
}
EPOCHS = {"constant": 3, "wsd": 3 + 1 + 1, "cosine": 3 + 2 + 1}
"""What a trajectory of the ladder [1, 2, 3] trains."""
TRUNKS = {"constant": 3, "wsd": 2, "cosine": 0}


def config_of(schedule: str) -> StudyConfig:
    return tiny_config(teacher__model="mlp", teacher__schedule=SCHEDULES[schedule])


def diverging(schedule: str) -> StudyConfig:
    """Batch size 64 diverges in its first epoch; 1,024, of one step an epoch, does not."""
    return tiny_config(
        search__batch_size=[64, 1024],
        teacher__model="mlp",
        teacher__schedule=SCHEDULES[schedule],
        teacher__optimizer={"name": "sgd", "lr": 1e3},
        teacher__lr_rule={"name": "linear", "batch_size": 1024, "cap": 1.0},
    )


def stored(store: Store, config: StudyConfig, recipe: Recipe, branch: int, point: SurveyPoint) -> Measurement:
    measured = store.trajectories.measurements(recipe.hash, branch, config.teacher.probe_temperature)
    return measured[point.epochs, point.probe]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_trajectory_is_trained_once_and_a_second_survey_trains_nothing(
    schedule: str, workplace: Workplace
) -> None:
    config = config_of(schedule)
    first = survey(config, workplace)
    assert first.epochs_trained == 2 * EPOCHS[schedule] == sum(surveyed(config).values())
    assert first.epochs_requested == 2 * (1 + 2 + 3)
    again = survey(config, workplace)
    assert again == replace(first, epochs_trained=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_curves_are_what_the_store_has(schedule: str, workplace: Workplace) -> None:
    config = config_of(schedule)
    found = survey(config, workplace)
    assert [curve.batch_size for curve in found.curves] == [64, 128]
    for curve in found.curves:
        recipe = Recipe(config, workplace.data.hash, curve.batch_size)
        assert curve.recipe == recipe.hash
        for probe in ("train", "validation"):
            assert [p.epochs for p in curve.of("trunk", probe)] == list(range(1, TRUNKS[schedule] + 1))
            assert [p.epochs for p in curve.of("teacher", probe)] == [1, 2, 3]
        for point in curve.teachers:
            row = stored(workplace.store, config, recipe, branch_of(recipe, point.epochs), point)
            assert point.values == {name: row.values[name] for name in SURVEYED}
            assert point.recomputed
            assert point.steps == point.epochs * (workplace.data.train_images // curve.batch_size)
        for point in curve.trunk:
            row = stored(workplace.store, config, recipe, TRUNK, point)
            assert point.values == {name: row.values[name] for name in SURVEYED}
            assert point.recomputed == row.recomputed


def test_a_study_of_the_same_recipe_finds_its_teachers(workplace: Workplace) -> None:
    config = config_of("wsd")
    survey(config, workplace)
    visit = Visit(config, Point(64, 2), workplace)
    visit.train_teacher()
    assert visit.spent()["epochs_trained"] == 0


def test_a_survey_shows_its_own_ladder_whatever_else_is_in_the_store(workplace: Workplace) -> None:
    config = config_of("constant")
    survey(tiny_config(teacher__model="mlp", search__epochs=[1, 2, 3, 5]), workplace)
    found = survey(config, workplace)
    assert found.epochs_trained == 0
    assert {p.epochs for curve in found.curves for p in (*curve.trunk, *curve.teachers)} == {1, 2, 3}


def test_the_longest_run_comes_first_and_each_teacher_is_told_once(workplace: Workplace) -> None:
    config = config_of("wsd")
    told: list[tuple[Point, bool]] = []
    survey(config, workplace, lambda point, outcome, trained: told.append((point, trained)))
    assert told == [(Point(size, epochs), True) for size in (64, 128) for epochs in (3, 2, 1)]
    told.clear()
    survey(config, workplace, lambda point, outcome, trained: told.append((point, trained)))
    assert told == [(Point(size, epochs), False) for size in (64, 128) for epochs in (3, 2, 1)]


def test_a_batch_size_that_diverges_is_told_and_the_others_go_on(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited: list[Point] = []

    class Watched(Visit):
        def __init__(self, config: StudyConfig, point: Point, workplace: Workplace) -> None:
            visited.append(point)
            super().__init__(config, point, workplace)

    monkeypatch.setattr("sweetspot.study.survey.Visit", Watched)
    told: dict[Point, object] = {}
    found = survey(diverging("constant"), workplace, lambda point, outcome, trained: told.update({point: outcome}))
    broken, sound = found.curves
    why = "loss not finite in epoch 1 at learning rate 62.5"
    assert broken.diverged == {1: why, 2: why, 3: why}
    assert (broken.trunk, broken.teachers) == ((), ())
    assert {p.epochs for p in sound.teachers} == {1, 2, 3}
    assert sound.diverged == {}
    assert [told[Point(64, epochs)] for epochs in (1, 2, 3)] == [why] * 3
    assert isinstance(told[Point(1024, 3)], Measurement)
    # What three runs share diverges once.
    assert visited == [Point(64, 3), Point(1024, 3), Point(1024, 2), Point(1024, 1)]


def test_of_runs_that_share_nothing_each_is_tried(workplace: Workplace) -> None:
    broken, sound = survey(diverging("cosine"), workplace).curves
    assert broken.diverged.keys() | {p.epochs for p in broken.teachers} == {1, 2, 3}
    assert len(set(broken.diverged.values())) == len(broken.diverged) > 1  # each at a learning rate of its own
    assert {p.epochs for p in sound.teachers} == {1, 2, 3}


def test_a_trajectory_that_another_worker_extends_comes_last(workplace: Workplace) -> None:
    config = config_of("constant")
    other = Leases(workplace.store.database, workplace.store.workers.register("cpu"), 60.0)
    held = other.acquire(lease_name(Recipe(config, workplace.data.hash, 64), TRUNK), heading_for=3)
    assert held is not None
    order: list[Point] = []

    def told(point: Point, outcome: object, trained: bool) -> None:
        order.append(point)
        if point == Point(128, 3):
            held.release()

    survey(config, workplace, told)
    assert [point.batch_size for point in order] == [128, 128, 128, 64, 64, 64]


def test_a_survey_that_was_interrupted_goes_on(workplace: Workplace) -> None:
    config = config_of("constant")

    def interrupted(point: Point, outcome: object, trained: bool) -> None:
        if point == Point(128, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey(config, workplace, interrupted)
    assert survey(config, workplace).epochs_trained == 1


def test_what_programs_read_is_flat_and_finite(workplace: Workplace) -> None:
    config = config_of("wsd")
    found = survey(config, workplace)
    broken = replace(found.curves[0].teachers[0], values=dict.fromkeys(SURVEYED, float("nan")))
    curve = replace(found.curves[0], teachers=(broken, *found.curves[0].teachers[1:]), diverged={9: "why not"})
    answer = Survey(config, "hash", (curve, found.curves[1]), 12, 7).to_dict()
    assert (answer["dataset"], answer["teacher"], answer["schedule"]) == ("digits", "mlp", "wsd")
    assert (answer["epochs_mean"], answer["temperature"]) == ("annealed", 4.0)
    assert answer["diverged"] == [{"batch_size": 64, "epochs": 9, "why": "why not"}]
    assert answer["cost"] == {"teacher_epochs_requested": 12, "teacher_epochs_trained": 7}
    points = answer["points"]
    assert len(points) == 2 * 2 * (TRUNKS["wsd"] + 3)
    teachers = [p for p in points if p["kind"] == "teacher"]
    assert [p["similarity_entropy"] is None for p in teachers] == [True] + [False] * 11
    last = found.curves[1].of("teacher", "validation")[-1]
    assert teachers[-1] == {
        "batch_size": 128, "epochs": 3, "steps": last.steps, "probe": "validation", "kind": "teacher",
        "recomputed": True, **last.values,
    }  # fmt: skip


def test_a_process_is_a_worker_only_for_as_long_as_its_block(store: Store) -> None:
    def fail(leases: Leases) -> None:
        raise RuntimeError(leases.owner)

    with registered(store, "cpu", tiny_config().run) as leases:
        assert not store.workers.has_ended(leases.owner)
    assert store.workers.has_ended(leases.owner)
    with pytest.raises(RuntimeError) as failed, registered(store, "cpu", tiny_config().run) as leases:
        fail(leases)
    assert store.workers.has_ended(str(failed.value))
