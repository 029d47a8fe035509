"""Trajectories: what is trained, shared, measured and announced, and that nothing of it depends on who was stopped."""

import copy
import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import update
from torch import nn

from sweetspot import config as options
from sweetspot.config import StudyConfig
from sweetspot.data.digits import Digits
from sweetspot.data.images import Images
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.models import build
from sweetspot.store import TRUNK, Lease, Leases, Measurement, Snapshot, Store
from sweetspot.store.artifacts import ArtifactsError
from sweetspot.store.schema import LeaseRow
from sweetspot.store.url import data_folder
from sweetspot.teacher import training as training_module
from sweetspot.teacher import trajectory as trajectory_module
from sweetspot.teacher.recipe import FORMAT, Recipe
from sweetspot.teacher.similarity import measure_response
from sweetspot.teacher.training import TeacherTraining
from sweetspot.teacher.trajectory import Trajectory, lease_name
from sweetspot.training.device import build_of
from sweetspot.training.engine import DivergedError, OnStep, recompute_batchnorm, respond
from sweetspot.training.optimizers import optimizer
from sweetspot.training.resume import load_training_state
from sweetspot.training.weights import load_weights

CPU = torch.device("cpu")
NEVER = 1e9
ALWAYS = 1e-9
NewStore = Callable[[], Store]

CONSTANT = {"name": "constant"}
BY_EPOCHS = {"name": "multistep", "milestones": [3.0]}
BY_FRACTIONS = {"name": "multistep", "milestones": [0.5]}
WSD = {"name": "wsd", "decay": 0.5}
COSINE = {"name": "cosine"}
SGD = {"name": "sgd", "lr": 0.1}
ADAMW = {"name": "adamw", "lr": 0.01}


NORMALISED = "convnet-narrow"  # a network with BatchNorm; the others here are quicker without


class StoppedError(Exception):
    """Raised by a test where a worker would be drained, pruned or killed."""


def study(
    schedule: dict[str, Any] = CONSTANT,
    ladder: tuple[int, ...] = (1, 2, 4),
    batch_size: int = 64,
    augmentation: Sequence[str] = ("crop",),
    **teacher: Any,
) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "data": {"dataset": "digits", "validation": 200, "augmentation": augmentation},
            "teacher": {
                "model": "mlp",
                "optimizer": SGD,
                "lr_rule": {"name": "none"},
                "schedule": schedule,
                "precision": "float32",
            }
            | teacher,
            "student": {"batch_size": 64},
            "search": {"batch_size": [batch_size], "epochs": ladder},
        }
    )


def trajectory(
    config: StudyConfig, digits: StudyData, store: Store, *, leases: Leases | None = None, worker: str = "me",
    temperature: float = 4.0, checkpoint_seconds: float = NEVER, **callbacks: Any,
) -> Trajectory:  # fmt: skip
    return Trajectory(
        Recipe(config, digits.hash, config.search.batch_size[0]),
        digits,
        store.trajectories,
        leases or Leases(store.database, worker, expiry=60),
        CPU,
        config.search.ladder,
        temperature,
        checkpoint_seconds,
        **callbacks,
    )


def stop_after(*epochs: int, phase: str = "teacher") -> Callable[[str, int, float | None], None]:
    def on_epoch(now: str, epoch: int, entropy: float | None) -> None:
        if now == phase and (epoch in epochs or not epochs):
            raise StoppedError

    return on_epoch


def bring(worker: Trajectory, epochs: int) -> list[int]:
    """The epochs at which a rung was announced."""
    rungs: list[int] = []
    worker.bring_to(epochs, lambda epoch, measurement: rungs.append(epoch))
    return rungs


def snapshots(worker: Trajectory, *branches: int) -> list[Snapshot]:
    """Of these branches, by branch and epoch; a blob's name is the hash of its content."""
    return [s for branch in branches for s in worker.store.snapshots(worker.recipe.hash, branch)]


def epochs_of(worker: Trajectory, branch: int) -> list[int]:
    return [s.epoch for s in snapshots(worker, branch)]


Numbers = tuple[bool, float | None, dict[str, float]]


def rows(worker: Trajectory, branch: int, temperature: float = 4.0) -> dict[tuple[int, str], Numbers]:
    """What was measured on a branch, without the seconds that it took."""
    known = worker.store.measurements(worker.recipe.hash, branch, temperature)
    return {key: (m.recomputed, m.train_loss, dict(m.values)) for key, m in known.items()}


def blobs(store: Store) -> list[Path]:
    return [path for path in Path(store.artifacts_url, "blobs").rglob("*") if path.is_file()]


def damage(store: Store, name: str | None, how: str) -> None:
    """Do to a blob what a full disk or a careless person does."""
    (path,) = [path for path in blobs(store) if path.name == name]
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "unreadable":  # what root, too, cannot read
        path.unlink()
        path.symlink_to(path)
    else:
        path.write_bytes(content[: len(content) // 2])


damages = pytest.mark.parametrize("how", ["missing", "altered", "truncated", "unreadable"])
blob_kinds = pytest.mark.parametrize("kind", ["weights", "optimizer"])


# -- growing ----------------------------------------------------------------------------------------------------------


def test_a_teacher_learns(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(model="convnet", ladder=(4,)), digits, store)
    worker.bring_to(4)
    measured = worker.measurements(4)
    assert measured["validation"].values["accuracy"] > 0.8
    assert measured["train"].values["accuracy"] > 0.8
    losses = [rows(worker, TRUNK)[epoch, "train"][1] for epoch in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True)


def test_it_tells_of_every_epoch_with_its_similarity_entropy(digits: StudyData, store: Store) -> None:
    told: list[tuple[str, int, float | None]] = []
    worker = trajectory(study(WSD), digits, store, on_epoch=lambda *event: told.append(event))
    worker.bring_to(4)
    entropies = {epoch: rows(worker, TRUNK if epoch <= 2 else 4)[epoch, "train"][2] for epoch in (1, 2, 3, 4)}
    assert told == [("teacher", epoch, values["similarity_entropy"]) for epoch, values in entropies.items()]


# every pair of a schedule, an optimiser, a precision and an augmentation
SCHEDULES = [CONSTANT, BY_EPOCHS, BY_FRACTIONS, WSD, COSINE]
PAIRWISE = [
    (schedule, optimizer, precision, augmentation)
    for number, schedule in enumerate(SCHEDULES)
    for optimizer, precision, augmentation in (
        [(SGD, "float32", []), (SGD, "bfloat16", ["crop"]), (ADAMW, "float32", ["flip"])],
        [(ADAMW, "bfloat16", []), (ADAMW, "float32", ["crop", "flip"]), (SGD, "float32", ["crop"])],
        [(SGD, "bfloat16", ["flip"]), (ADAMW, "float32", ["crop"]), (ADAMW, "bfloat16", ["crop", "flip"])],
        [(ADAMW, "bfloat16", ["flip"]), (SGD, "float32", ["crop", "flip"]), (ADAMW, "float32", [])],
        [(SGD, "bfloat16", ["crop", "flip"]), (ADAMW, "bfloat16", ["crop"]), (SGD, "float32", ["flip"])],
    )[number]
]


class StoppedAtStep:
    """Stops a training after so many steps, wherever in an epoch that is: an ``OnStep`` around another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        inner = TeacherTraining.train_epoch

        def train_epoch(training: TeacherTraining, total: int, on_step: OnStep) -> tuple[float, float]:
            def stopping(step: int, loss: torch.Tensor) -> None:
                on_step(step, loss)
                self.left -= 1
                if self.left == 0:
                    raise StoppedError

            return inner(training, total, stopping)

        monkeypatch.setattr(TeacherTraining, "train_epoch", train_epoch)


@pytest.mark.parametrize(("schedule", "optimizer", "precision", "augmentation"), PAIRWISE)
def test_a_teacher_stopped_at_random_steps_equals_one_that_was_never_interrupted(
    new_store: NewStore, schedule: dict[str, Any], optimizer: dict[str, Any], precision: str, augmentation: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = study(
        schedule, ladder=(2, 5), model=NORMALISED, optimizer=optimizer, precision=precision, augmentation=augmentation
    )
    data = load_study_data(config, data_folder(), CPU)
    whole = trajectory(config, data, new_store())
    whole.bring_to(5)

    store = new_store()
    steps = data.train_images // 64
    rng = random.Random(f"{schedule}{optimizer}{precision}")
    stop = StoppedAtStep(monkeypatch)
    taken = stops = 0
    while True:
        torch.manual_seed(stops)
        worker = trajectory(config, data, store, worker=f"worker {stops}", checkpoint_seconds=ALWAYS)
        stop.left = planned = rng.randint(1, 2 * steps)
        try:
            worker.bring_to(5)
        except StoppedError:
            taken, stops = taken + planned, stops + 1
        else:
            taken += planned - stop.left
            break
    assert stops >= 2
    assert taken <= 5 * steps + stops, (
        "at every stop at most the last step of an epoch, which is saved with it, is lost"
    )
    assert snapshots(worker, TRUNK, 2, 5) == snapshots(whole, TRUNK, 2, 5)
    assert rows(worker, TRUNK) == rows(whole, TRUNK)
    assert rows(worker, 5) == rows(whole, 5)
    assert store.trajectories.checkpoints() == []
    assert len(blobs(store)) == len({n for s in snapshots(worker, TRUNK, 5) for n in (s.weights, s.optimizer) if n})


def test_a_teacher_with_dropout_stopped_within_an_epoch_goes_on_with_the_same_draws(
    digits: StudyData, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = build

    def with_dropout(name: str, **shape: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), inner(name, **shape))

    monkeypatch.setattr(training_module, "build", with_dropout)
    whole, parts = trajectory(study(), digits, new_store()), trajectory(study(), digits, new_store())
    parts.checkpoint_seconds = ALWAYS
    whole.bring_to(2)
    stop = StoppedAtStep(monkeypatch)
    for stop.left in (7, 20):
        with pytest.raises(StoppedError):
            parts.bring_to(2)
    parts.bring_to(2)
    assert snapshots(parts, TRUNK) == snapshots(whole, TRUNK)


def test_what_an_epoch_took_before_it_was_interrupted_counts(
    digits: StudyData, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(training_module.time, "monotonic", lambda: float(next(clock)))
    stop = StoppedAtStep(monkeypatch)
    worker = trajectory(study(), digits, store, checkpoint_seconds=ALWAYS)
    stop.left = 10
    with pytest.raises(StoppedError):
        worker.bring_to(1)
    checkpoint = store.trajectories.checkpoint(lease_name(worker.recipe, TRUNK))
    assert checkpoint is not None
    assert checkpoint.position == (0, 10)
    before = checkpoint.detail["seconds"]
    assert before > 0
    worker.bring_to(1)
    seconds = worker.store.measurements(worker.recipe.hash, TRUNK, 4.0)[1, "train"].seconds
    assert seconds is not None
    assert seconds > before


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_teacher_that_was_stopped_between_two_points_goes_on_from_the_last(
    digits: StudyData, new_store: NewStore, stop: int
) -> None:
    whole = trajectory(study(ladder=(2, 4)), digits, new_store())
    whole.bring_to(4)
    store = new_store()
    with pytest.raises(StoppedError):
        trajectory(study(ladder=(2, 4)), digits, store, on_epoch=stop_after(stop)).bring_to(4)
    worker = trajectory(study(ladder=(2, 4)), digits, store)
    worker.bring_to(4)
    assert worker.spent.epochs_trained == {1: 4, 2: 2, 3: 2}[stop]
    assert snapshots(worker, TRUNK) == snapshots(whole, TRUNK)
    assert rows(worker, TRUNK) == rows(whole, TRUNK)


def test_a_teacher_without_optimiser_state_resumes_too(digits: StudyData, new_store: NewStore) -> None:
    config = study(optimizer={"name": "sgd", "momentum": 0, "nesterov": False})
    whole, parts = trajectory(config, digits, new_store()), trajectory(config, digits, new_store())
    whole.bring_to(4)
    for epochs in (1, 2, 4):
        parts.bring_to(epochs)
    assert snapshots(parts, TRUNK) == snapshots(whole, TRUNK)


# -- sharing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [CONSTANT, BY_EPOCHS])
def test_a_prefix_of_a_truncated_run_equals_the_shorter_run(
    digits: StudyData, new_store: NewStore, schedule: dict[str, Any]
) -> None:
    long, short = (trajectory(study(schedule, model=NORMALISED), digits, new_store()) for _ in range(2))
    long.bring_to(4)
    short.bring_to(2)
    assert snapshots(short, TRUNK) == snapshots(long, TRUNK)[:2]
    short.bring_to(4)
    assert short.spent.epochs_trained == 4
    assert snapshots(short, TRUNK) == snapshots(long, TRUNK)
    long.bring_to(2)
    assert long.spent.epochs_trained == 4


def test_with_wsd_the_trunk_is_shared_and_each_length_pays_for_its_decay_alone(
    digits: StudyData, new_store: NewStore
) -> None:
    """Decay over half of the run: 4 = 2 + 2, 2 = 1 + 1, 8 = 4 + 4."""
    config = study(WSD, ladder=(2, 4, 8))
    worker = trajectory(config, digits, new_store())
    costs = {}
    for epochs in (4, 2, 8):
        before = worker.spent.epochs_trained
        worker.bring_to(epochs)
        costs[epochs] = worker.spent.epochs_trained - before
    assert costs == {4: 2 + 2, 2: 1, 8: 2 + 4}
    assert epochs_of(worker, TRUNK) == [1, 2, 4]
    for epochs in (2, 4, 8):
        alone = trajectory(config, digits, new_store())
        alone.bring_to(epochs)
        assert snapshots(alone, epochs) == snapshots(worker, epochs)
        assert rows(alone, epochs) == rows(worker, epochs)


@pytest.mark.parametrize("schedule", [COSINE, BY_FRACTIONS])
def test_a_schedule_that_shares_nothing_trains_every_length_whole(
    digits: StudyData, store: Store, schedule: dict[str, Any]
) -> None:
    worker = trajectory(study(schedule), digits, store)
    worker.bring_to(4)
    worker.bring_to(2)
    assert worker.spent.epochs_trained == 6
    assert epochs_of(worker, TRUNK) == []
    two, four = snapshots(worker, 2), snapshots(worker, 4)
    assert [s.epoch for s in two] == [1, 2]
    assert [s.epoch for s in four] == [1, 2, 4]
    assert two[1].weights != four[1].weights


def test_recipes_share_nothing(digits: StudyData, store: Store) -> None:
    workers = [trajectory(config, digits, store) for config in (study(), study(batch_size=32), study(optimizer=ADAMW))]
    for worker in workers:
        worker.bring_to(1)
    assert [worker.spent.epochs_trained for worker in workers] == [1, 1, 1]
    assert len({s.weights for worker in workers for s in snapshots(worker, TRUNK)}) == 3


def test_two_studies_with_other_ladders_share_a_trajectory(digits: StudyData, new_store: NewStore) -> None:
    store = new_store()
    first, second = (trajectory(study(ladder=ladder), digits, store) for ladder in ((2, 4), (3, 5)))
    first.bring_to(4)
    second.bring_to(5)
    second.bring_to(3)
    assert second.spent.epochs_trained == 1 + 1
    whole = trajectory(study(ladder=(2, 3, 4, 5)), digits, new_store())
    whole.bring_to(5)
    assert snapshots(second, TRUNK) == snapshots(whole, TRUNK)


def test_the_optimisers_state_is_kept_where_a_run_may_go_on(digits: StudyData, new_store: NewStore) -> None:
    """Decay over a quarter of the run: the branches of 4 and 8 epochs hang from the trunk at 3 and 6."""
    decaying = trajectory(study({"name": "wsd", "decay": 0.25}, ladder=(4, 5, 8)), digits, new_store())
    decaying.bring_to(8)
    assert {s.epoch: bool(s.optimizer) for s in snapshots(decaying, TRUNK)} == {3: True, 4: True, 5: False, 6: True}
    assert [(s.epoch, s.optimizer) for s in snapshots(decaying, 8)] == [(8, None)]
    constant = trajectory(study(ladder=(2, 4)), digits, new_store())
    constant.bring_to(3)
    assert {s.epoch: bool(s.optimizer) for s in snapshots(constant, TRUNK)} == {2: True, 3: True}
    constant.bring_to(4)
    assert {s.epoch: bool(s.optimizer) for s in snapshots(constant, TRUNK)} == {2: True, 3: False, 4: True}
    cosine = trajectory(study(COSINE, ladder=(2, 3, 4)), digits, new_store())
    with pytest.raises(StoppedError):
        cosine.bring_to(4, _stop_at(3))
    assert {s.epoch: bool(s.optimizer) for s in snapshots(cosine, 4)} == {2: False, 3: True}
    cosine.bring_to(4)
    assert not any(s.optimizer for s in snapshots(cosine, 4))


def _stop_at(rung: int) -> Callable[[int, Measurement], None]:
    def on_rung(epoch: int, measurement: Measurement) -> None:
        if epoch == rung:
            raise StoppedError

    return on_rung


def test_every_snapshot_says_what_trained_it(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(), digits, store)
    worker.bring_to(2)
    assert {s.build for s in snapshots(worker, TRUNK)} == {build_of(CPU)}
    assert torch.__version__ in build_of(CPU)
    assert torch.backends.cpu.get_cpu_capability() in build_of(CPU)


def test_what_somebody_asks_for_while_another_trains_past_it_is_kept(digits: StudyData, store: Store) -> None:
    """A study with another ladder goes on as soon as its own epoch lands, and nothing is trained twice."""
    asker = trajectory(study(ladder=(3,)), digits, store, worker="asker", on_epoch=stop_after(phase="waiting"))
    lengths: list[list[int]] = []

    def on_epoch(phase: str, epoch: int, entropy: float | None) -> None:
        if epoch == 1:
            with pytest.raises(StoppedError):
                asker.bring_to(3)
        lengths.append(epochs_of(worker, TRUNK))
        if epoch == 3:
            assert bring(asker, 3) == [3]

    worker = trajectory(study(ladder=(2, 6)), digits, store, on_epoch=on_epoch)
    worker.bring_to(6)
    assert lengths == [[], [2], [2, 3], [2, 3], [2, 3], [2, 3, 6]]
    assert asker.spent.epochs_trained == 0


def test_a_branch_point_that_is_asked_for_while_another_trains_past_it_keeps_its_optimiser(
    digits: StudyData, store: Store
) -> None:
    """A run of 6 epochs branches at 3, which is none of the owner's points."""
    schedule = WSD | {"warmup": 0}
    asker = trajectory(
        study(schedule, ladder=(6,)), digits, store, worker="asker", on_epoch=stop_after(phase="waiting")
    )

    def on_epoch(phase: str, epoch: int, entropy: float | None) -> None:
        if epoch == 1:
            with pytest.raises(StoppedError):
                asker.bring_to(6)

    worker = trajectory(study(schedule, ladder=(8,)), digits, store, on_epoch=on_epoch)
    worker.bring_to(8)
    asker.bring_to(6)
    assert asker.spent.epochs_trained == 3


def test_the_training_that_this_format_of_recipes_means_has_not_changed(digits: StudyData, store: Store) -> None:
    """Recorded with FORMAT 1. Where these losses change, snapshots made before must not be mixed in: raise FORMAT."""
    config = study(WSD, ladder=(4,), model=NORMALISED, label_smoothing=0.1)
    worker = trajectory(config, digits, store)
    worker.bring_to(4)
    losses = [
        m[1] for branch in (TRUNK, 4) for (_, probe), m in sorted(rows(worker, branch).items()) if probe == "train"
    ]
    assert FORMAT == 1
    assert losses == pytest.approx([2.28967, 2.18257, 1.99188, 1.79265], rel=1e-3)


# -- rungs ------------------------------------------------------------------------------------------------------------

RUNGS = [
    (CONSTANT, 4, [1, 2, 3, 4]),
    (CONSTANT, 3, [1, 2, 3]),
    (WSD, 8, [1, 2, 3, 6, 8]),  # the trunk ends at 4, which is the branch point's
    (WSD, 6, [1, 2, 4, 6]),  # and here at 3
    (WSD, 1, [1]),
    (COSINE, 4, [1, 2, 3, 4]),
    (CONSTANT, 5, [1, 2, 3, 4, 5]),  # no rung of the ladder itself
]


@pytest.mark.parametrize(("schedule", "epochs", "rungs"), RUNGS)
def test_rungs_are_announced_once_ascending_and_the_own_epoch_last(
    digits: StudyData, store: Store, schedule: dict[str, Any], epochs: int, rungs: list[int]
) -> None:
    worker = trajectory(study(schedule, ladder=(1, 2, 3, 4, 6, 8)), digits, store)
    assert bring(worker, epochs) == rungs


@pytest.mark.parametrize(("schedule", "epochs", "rungs"), RUNGS)
def test_a_second_call_trains_nothing_and_announces_the_same(
    digits: StudyData, store: Store, schedule: dict[str, Any], epochs: int, rungs: list[int]
) -> None:
    config = study(schedule, ladder=(1, 2, 3, 4, 6, 8))
    first: list[tuple[int, float]] = []
    second: list[tuple[int, float]] = []
    trajectory(config, digits, store).bring_to(
        epochs, lambda epoch, m: first.append((epoch, m.values["similarity_entropy"]))
    )
    worker = trajectory(config, digits, store, on_epoch=stop_after())
    worker.bring_to(epochs, lambda epoch, m: second.append((epoch, m.values["similarity_entropy"])))
    assert worker.spent.epochs_trained == 0
    assert [epoch for epoch, _ in second] == rungs
    assert second == first


def test_a_longer_trunk_does_not_announce_what_lies_beyond_the_branch_point(digits: StudyData, store: Store) -> None:
    """There the trunk is another teacher than the one that decays."""
    worker = trajectory(study(WSD, ladder=(1, 2, 3, 4, 6, 8)), digits, store)
    worker.bring_to(8)
    assert bring(worker, 6) == [1, 2, 4, 6]
    assert bring(worker, 3) == [2, 3]


def test_cached_rungs_come_first_and_new_ones_as_they_are_trained(digits: StudyData, store: Store) -> None:
    events: list[str] = []
    worker = trajectory(
        study(), digits, store, on_epoch=lambda phase, epoch, entropy: events.append(f"{phase} {epoch}")
    )
    worker.bring_to(2)
    events.clear()
    worker.bring_to(4, lambda epoch, measurement: events.append(f"rung {epoch}"))
    assert events == ["rung 1", "rung 2", "teacher 3", "teacher 4", "rung 4"]


def test_a_rung_is_stored_before_it_is_announced(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(), digits, store)

    def on_rung(epoch: int, measurement: Measurement) -> None:
        assert epochs_of(worker, TRUNK)[-1] == epoch
        assert rows(worker, TRUNK)[epoch, "train"][2] == measurement.values
        assert measurement.probe == "train"
        assert measurement.recomputed

    worker.bring_to(4, on_rung)


def test_whoever_stops_at_a_rung_keeps_the_snapshot_and_frees_the_lease(digits: StudyData, store: Store) -> None:
    def prune(epoch: int, measurement: Measurement) -> None:
        if epoch == 2:
            raise StoppedError

    pruned = trajectory(study(), digits, store)
    with pytest.raises(StoppedError):
        pruned.bring_to(4, prune)
    assert pruned.spent.epochs_trained == 2
    assert epochs_of(pruned, TRUNK) == [1, 2]
    another = trajectory(study(), digits, store, worker="another", on_epoch=stop_after(phase="waiting"))
    another.bring_to(4)
    assert another.spent.epochs_trained == 2


# -- measuring --------------------------------------------------------------------------------------------------------


def test_every_epoch_has_two_rows_and_those_of_the_ladder_are_recomputed(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(ladder=(2, 5)), digits, store)
    worker.bring_to(5)
    measured = worker.store.measurements(worker.recipe.hash, TRUNK, 4.0)
    assert measured.keys() == {(epoch, probe) for epoch in (1, 2, 3, 4, 5) for probe in ("train", "validation")}
    assert {epoch for (epoch, _), m in measured.items() if m.recomputed} == {2, 5}
    assert all(m.train_loss is not None and m.seconds is not None and m.seconds > 0 for m in measured.values())


def test_with_wsd_the_branch_points_are_snapshots_too(digits: StudyData, store: Store) -> None:
    worker = trajectory(study({"name": "wsd", "decay": 0.25}, ladder=(4, 8)), digits, store)
    worker.bring_to(8)
    assert epochs_of(worker, TRUNK) == [3, 4, 6]  # 3 = 4 - 1, 6 = 8 - 2
    assert {epoch for (epoch, _), row in rows(worker, TRUNK).items() if row[0]} == {3, 4, 6}
    assert {epoch for epoch, _ in rows(worker, TRUNK)} == {1, 2, 3, 4, 5, 6}
    assert {epoch for epoch, _ in rows(worker, 8)} == {7, 8}
    worker.bring_to(4)
    assert {epoch for epoch, _ in rows(worker, 4)} == {4}


def test_a_snapshot_is_measured_as_it_teaches(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(ladder=(2, 4), model=NORMALISED), digits, store)
    worker.bring_to(4)
    teacher = worker.teacher(2)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    for probe, images in (("train", digits.train_probe), ("validation", digits.validation)):
        values = measure_response(respond(teacher, images.images, "float32"), images.labels, 4.0).scalars()
        assert rows(worker, TRUNK)[2, probe][2] == values == worker.measurements(2)[probe].values


def test_the_other_epochs_are_measured_with_the_running_statistics(digits: StudyData, store: Store) -> None:
    worker = trajectory(
        study(ladder=(2,), model=NORMALISED), digits, store, checkpoint_seconds=ALWAYS, on_epoch=stop_after(1)
    )
    with pytest.raises(StoppedError):
        worker.bring_to(2)
    (point,) = store.trajectories.checkpoints()
    assert point.position == (1, 0)
    model = build(NORMALISED, classes=10, channels=1, image_size=8)
    load_training_state(store.artifacts.get(point.state), model, optimizer(model, options.SGD()), 0)
    images = digits.validation
    values = measure_response(respond(model, images.images, "float32"), images.labels, 4.0).scalars()
    recomputed, _, measured = rows(worker, TRUNK)[1, "validation"]
    assert not recomputed
    assert measured == pytest.approx(values)


def test_recomputing_changes_no_snapshot(digits: StudyData, store: Store) -> None:
    """It happens on a copy: the weights that are stored, and that train on, have the running statistics."""
    worker = trajectory(study(model=NORMALISED), digits, store)
    worker.bring_to(2)
    before = snapshots(worker, TRUNK)
    teacher, again = worker.teacher(2), worker.teacher(2)
    assert all(
        torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), again.state_dict().values(), strict=True)
    )
    stored = build(NORMALISED, classes=10, channels=1, image_size=8)
    load_weights(stored, store.artifacts.get(before[1].weights))
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), stored.parameters(), strict=True))
    assert not torch.equal(teacher.bn1.running_mean, stored.bn1.running_mean)
    assert snapshots(worker, TRUNK) == before


class Sorted(Digits):
    """The digits in the order of their classes, as many a folder of images is read."""

    def train(self) -> Images:
        images = super().train()
        return images.subset(images.labels.argsort(stable=True))


def test_a_teachers_statistics_are_of_mixed_classes_however_the_data_set_is_sorted(store: Store) -> None:
    """Batches of one class lack the variance between classes: measured, S was 0.54 instead of 0.79 (resnet8)."""
    config = study(model="convnet", ladder=(4,))
    data = StudyData(Sorted(), config, CPU)
    worker = trajectory(config, data, store)
    worker.bring_to(4)
    teacher = worker.teacher(4)
    mixed = copy.deepcopy(teacher)
    torch.manual_seed(0)
    recompute_batchnorm(mixed, data.views(0, 0), torch.randperm(data.train_images), 64, "float32")
    torch.testing.assert_close(teacher.bn3.running_var, mixed.bn3.running_var, rtol=0.1, atol=0)


def test_another_temperature_is_measured_without_training(digits: StudyData, store: Store) -> None:
    trajectory(study(WSD), digits, store).bring_to(4)
    other = trajectory(study(WSD), digits, store, temperature=1.0, on_epoch=stop_after())
    assert bring(other, 4) == [1, 4]
    assert other.spent.epochs_trained == 0
    cold, warm = rows(other, 4, 1.0)[4, "train"], rows(other, 4, 4.0)[4, "train"]
    assert cold[2]["similarity_entropy"] < warm[2]["similarity_entropy"]
    assert cold[2]["accuracy"] == warm[2]["accuracy"]
    assert other.measurements(4)["train"].temperature == 1.0


def test_a_teacher_that_is_not_there_is_trained(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(), digits, store)
    teacher = worker.teacher(2)
    assert worker.spent.epochs_trained == 2
    before = snapshots(worker, TRUNK)
    store.trajectories.drop(before[1])
    again = worker.teacher(2)
    assert worker.spent.epochs_trained == 3
    assert snapshots(worker, TRUNK) == before
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), again.parameters(), strict=True))


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_between_snapshots_nothing_is_saved_before_it_is_time(digits: StudyData, store: Store) -> None:
    config = study(ladder=(4,))
    with pytest.raises(StoppedError):
        trajectory(config, digits, store, checkpoint_seconds=NEVER, on_epoch=stop_after(3)).bring_to(4)
    worker = trajectory(config, digits, store)
    assert snapshots(worker, TRUNK) == []
    assert store.trajectories.checkpoints() == []
    assert rows(worker, TRUNK) == {}
    worker.bring_to(4)
    assert worker.spent.epochs_trained == 4


def test_between_epochs_a_checkpoint_brings_what_was_measured(digits: StudyData, store: Store) -> None:
    config = study(ladder=(4,), batch_size=digits.train_images, optimizer={"lr": 0.01})  # one step an epoch
    with pytest.raises(StoppedError):
        trajectory(config, digits, store, checkpoint_seconds=ALWAYS, on_epoch=stop_after(3)).bring_to(4)
    worker = trajectory(config, digits, store)
    assert [c.position for c in store.trajectories.checkpoints()] == [(3, 0)]
    assert {epoch for epoch, _ in rows(worker, TRUNK)} == {1, 2, 3}
    worker.bring_to(4)
    assert worker.spent.epochs_trained == 1
    assert len(blobs(store)) == 2


def test_a_checkpoint_is_no_teacher(digits: StudyData, store: Store) -> None:
    """Whoever asks for less trains to there, and leaves the longer run its place."""
    config = study(ladder=(2, 8))
    with pytest.raises(StoppedError):
        trajectory(config, digits, store, checkpoint_seconds=ALWAYS, on_epoch=stop_after(7)).bring_to(8)
    store.trajectories.drop(snapshots(trajectory(config, digits, store), TRUNK)[0])
    worker = trajectory(config, digits, store, checkpoint_seconds=ALWAYS)
    worker.bring_to(2)
    assert worker.spent.epochs_trained == 2
    assert [c.position for c in store.trajectories.checkpoints()] == [(7, 0)]
    worker.bring_to(8)
    assert worker.spent.epochs_trained == 2 + 1


@damages
def test_a_damaged_checkpoint_is_not_gone_on_from(digits: StudyData, new_store: NewStore, how: str) -> None:
    whole, store = trajectory(study(ladder=(2, 4)), digits, new_store()), new_store()
    whole.bring_to(4)
    with pytest.raises(StoppedError):
        trajectory(study(ladder=(2, 4)), digits, store, checkpoint_seconds=ALWAYS, on_epoch=stop_after(3)).bring_to(4)
    (checkpoint,) = store.trajectories.checkpoints()
    damage(store, checkpoint.state, how)
    worker = trajectory(study(ladder=(2, 4)), digits, store)
    worker.bring_to(4)
    assert worker.spent.epochs_trained == 2
    assert snapshots(worker, TRUNK) == snapshots(whole, TRUNK)
    assert store.trajectories.checkpoints() == []


def test_without_room_for_a_checkpoint_the_training_goes_on_and_without_room_for_a_snapshot_it_ends(
    digits: StudyData, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsync = os.fsync
    full = True

    def full_disk(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    worker = trajectory(study(ladder=(2,)), digits, store, checkpoint_seconds=ALWAYS)
    with pytest.raises(ArtifactsError, match="No space left on device"):
        worker.bring_to(2)
    assert worker.spent.epochs_trained == 2
    assert "no checkpoint: cannot write to the artifacts" in caplog.text
    assert snapshots(worker, TRUNK) == []
    assert blobs(store) == []
    full = False
    worker.bring_to(2)
    assert epochs_of(worker, TRUNK) == [2]


# -- damaged blobs ----------------------------------------------------------------------------------------------------


@damages
@blob_kinds
def test_a_damaged_snapshot_is_never_gone_on_from_and_its_stretch_is_trained_again(
    digits: StudyData, new_store: NewStore, kind: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trajectory(study(), digits, new_store())
    whole.bring_to(4)
    store = new_store()
    worker = trajectory(study(), digits, store)
    worker.bring_to(2)
    damage(store, getattr(snapshots(worker, TRUNK)[1], kind), how)
    assert bring(worker, 4) == [1, 2, 4]
    assert worker.spent.epochs_trained == 2 + 3
    assert caplog.messages
    assert snapshots(worker, TRUNK) == snapshots(whole, TRUNK)
    assert rows(worker, TRUNK) == rows(whole, TRUNK)
    for snapshot in snapshots(worker, TRUNK):
        assert store.artifacts.get(snapshot.weights)


def test_a_stretch_that_is_trained_again_leaves_what_was_not_lost(
    digits: StudyData, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine the second training may differ in the last bits, and students have learned from the first."""
    worker = trajectory(study(ladder=(2, 4)), digits, store)
    worker.bring_to(3)
    worker.bring_to(4)
    before, measured = snapshots(worker, TRUNK), rows(worker, TRUNK)
    store.trajectories.drop(before[2])
    inner = TeacherTraining.weights
    monkeypatch.setattr(TeacherTraining, "weights", lambda training: inner(training) + b" ")
    worker.bring_to(4)
    assert worker.spent.epochs_trained == 4 + 2
    after = snapshots(worker, TRUNK)
    assert after[:2] == before[:2]
    assert after[2].weights != before[2].weights
    assert rows(worker, TRUNK) == measured


def test_a_lost_optimiser_state_does_not_cost_the_teacher(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(ladder=(2, 4)), digits, store)
    worker.bring_to(4)
    damage(store, snapshots(worker, TRUNK)[1].optimizer, "missing")
    worker.bring_to(5)
    assert worker.spent.epochs_trained == 4 + 3
    worker.teacher(4)
    assert worker.spent.epochs_trained == 4 + 3


@damages
@blob_kinds
def test_a_branch_that_finds_its_branch_point_damaged_has_the_trunk_grown_again(
    digits: StudyData, new_store: NewStore, kind: str, how: str
) -> None:
    """Runs of 2 and 3 epochs branch from the trunk's first."""
    config = study(WSD, ladder=(2, 3))
    whole = trajectory(config, digits, new_store())
    whole.bring_to(3)
    store = new_store()
    worker = trajectory(config, digits, store)
    worker.bring_to(2)
    damage(store, getattr(snapshots(worker, TRUNK)[0], kind), how)
    assert bring(worker, 3) == [2, 3]
    assert worker.spent.epochs_trained == (1 + 1) + (1 + 2)
    assert snapshots(worker, TRUNK, 3) == snapshots(whole, TRUNK, 3)


@damages
@pytest.mark.parametrize("schedule", [CONSTANT, WSD, COSINE], ids=["constant", "wsd", "cosine"])
def test_a_teacher_whose_weights_were_damaged_is_trained_again(
    digits: StudyData, store: Store, schedule: dict[str, Any], how: str
) -> None:
    worker = trajectory(study(schedule), digits, store)
    worker.bring_to(4)
    expected = {name: value.clone() for name, value in worker.teacher(4).state_dict().items()}
    before = snapshots(worker, worker.branch_of(4))
    damage(store, before[-1].weights, how)
    again = worker.teacher(4).state_dict()
    assert all(torch.equal(again[name], value) for name, value in expected.items())
    assert snapshots(worker, worker.branch_of(4)) == before


@damages
def test_a_damaged_snapshot_that_must_be_measured_is_trained_again(digits: StudyData, store: Store, how: str) -> None:
    first = trajectory(study(), digits, store)
    first.bring_to(2)
    damage(store, snapshots(first, TRUNK)[1].weights, how)
    other = trajectory(study(), digits, store, temperature=1.0)
    assert bring(other, 2) == [1, 2]
    assert other.spent.epochs_trained == 1
    assert other.measurements(2)["train"].values["accuracy"] == first.measurements(2)["train"].values["accuracy"]


# -- leases -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory_module, "_POLL_SECONDS", 0.0)


def test_a_branch_that_another_worker_extends_is_left_to_it(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(WSD), digits, store, on_epoch=stop_after(phase="waiting"))
    other = Leases(store.database, "another", expiry=60)
    with other.acquire(lease_name(worker.recipe, TRUNK)) or pytest.fail("it was free"), pytest.raises(StoppedError):
        worker.bring_to(4)
    assert worker.spent.epochs_trained == 0
    worker.bring_to(4)
    assert worker.spent.epochs_trained == 4


def test_a_trunk_that_is_long_enough_is_branched_from_while_another_worker_extends_it(
    digits: StudyData, store: Store
) -> None:
    worker = trajectory(study(WSD, ladder=(2, 4, 8)), digits, store, on_epoch=stop_after(phase="waiting"))
    worker.bring_to(4)
    other = Leases(store.database, "another", expiry=60)
    with other.acquire(lease_name(worker.recipe, TRUNK), heading_for=4) or pytest.fail("it was free"):
        worker.bring_to(2)
    assert epochs_of(worker, 2) == [2]


@pytest.mark.usefixtures("_no_pause")
def test_whoever_waited_takes_over_what_the_other_has_trained(digits: StudyData, store: Store) -> None:
    other = trajectory(study(), digits, store, worker="another")
    held = other.leases.acquire(lease_name(other.recipe, TRUNK))
    assert held is not None
    events: list[str] = []

    def on_epoch(phase: str, epoch: int, entropy: float | None) -> None:
        events.append(f"{phase} {epoch}")
        if len(events) == 3:  # it waits for the third time
            held.release()
            other.bring_to(2)

    worker = trajectory(study(), digits, store, on_epoch=on_epoch)
    worker.bring_to(4, lambda epoch, measurement: events.append(f"rung {epoch}"))
    assert events == ["waiting 0"] * 3 + ["rung 1", "rung 2", "teacher 3", "teacher 4", "rung 4"]
    assert worker.spent.epochs_trained == other.spent.epochs_trained == 2


def test_what_another_worker_finished_just_before_the_lease_was_free_is_not_trained_again(
    digits: StudyData, store: Store
) -> None:
    other = trajectory(study(), digits, store, worker="another")

    class Late(Leases):
        def acquire(self, name: str, heading_for: int = 0) -> Lease | None:
            other.bring_to(4)
            return super().acquire(name, heading_for)

    worker = trajectory(study(), digits, store, leases=Late(store.database, "me", expiry=60))
    assert bring(worker, 4) == [1, 2, 4]
    assert worker.spent.epochs_trained == 0


@pytest.mark.usefixtures("_no_pause")
def test_whoever_was_taken_for_dead_writes_nothing_and_waits_for_the_other(digits: StudyData, store: Store) -> None:
    other = trajectory(study(), digits, store, worker="thief")
    seen: list[tuple[str, list[int]]] = []

    def be_robbed(phase: str, epoch: int, entropy: float | None) -> None:
        if (phase, epoch) == ("teacher", 2):
            with store.database.session.begin() as session:
                session.execute(update(LeaseRow).values(owner="thief", token=LeaseRow.token + 1, counter=0))
        if phase == "waiting":
            seen.append((phase, epochs_of(worker, TRUNK)))
            with store.database.session.begin() as session:
                session.execute(update(LeaseRow).values(owner=""))
            other.bring_to(4)

    worker = trajectory(study(), digits, store, on_epoch=be_robbed)
    assert bring(worker, 4) == [1, 2, 4]
    assert seen == [("waiting", [1, 2])], "what it trained after it was robbed was not written"
    assert other.spent.epochs_trained == 2


def test_a_lease_that_is_known_to_be_lost_stops_the_training_at_the_next_step(
    digits: StudyData, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    worker = trajectory(study(ladder=(4,)), digits, store, on_epoch=stop_after(phase="waiting"))
    inner = TeacherTraining.train_epoch

    def train_epoch(training: TeacherTraining, total: int, on_step: OnStep) -> tuple[float, float]:
        def rob(step: int, loss: torch.Tensor) -> None:
            steps.append(step)
            if step == 3:
                with store.database.session.begin() as session:
                    session.execute(update(LeaseRow).values(owner="thief", token=LeaseRow.token + 1))
                worker.leases.renew()
            on_step(step, loss)

        return inner(training, total, rob)

    monkeypatch.setattr(TeacherTraining, "train_epoch", train_epoch)
    with pytest.raises(StoppedError):
        worker.bring_to(4)
    assert steps == [1, 2, 3]
    assert worker.leases.held_by_others("trajectory/") == {f"{worker.recipe.hash}/{TRUNK}": 4}, "the thief keeps it"


def test_others_see_to_which_epoch_a_branch_is_being_extended(digits: StudyData, store: Store) -> None:
    bystander = Leases(store.database, "bystander", expiry=60)
    seen: list[dict[str, int]] = []

    def look(phase: str, epoch: int, entropy: float | None) -> None:
        seen.append(bystander.held_by_others("trajectory/"))

    worker = trajectory(study(WSD), digits, store, on_epoch=look)
    worker.bring_to(4)
    name = worker.recipe.hash
    assert seen == [{f"{name}/{TRUNK}": 2}] * 2 + [{f"{name}/4": 4}] * 2
    assert bystander.held_by_others("trajectory/") == {}


# -- divergence -------------------------------------------------------------------------------------------------------


def test_a_teacher_that_diverges_says_so_and_frees_the_lease(digits: StudyData, store: Store) -> None:
    worker = trajectory(study(optimizer={"lr": 1e30}), digits, store)
    with pytest.raises(DivergedError, match="not finite in epoch 1 at learning rate 1e\\+30"):
        worker.bring_to(4)
    assert snapshots(worker, TRUNK) == []
    assert Leases(store.database, "another", expiry=60).held_by_others("trajectory/") == {}


def test_what_was_stored_before_a_teacher_diverged_stays(digits: StudyData, store: Store) -> None:
    """A longer run with the same beginning must find it; only the stretch that diverges is trained again."""

    def explode(phase: str, epoch: int, entropy: float | None) -> None:
        raise DivergedError(epoch + 1, 0.1)

    worker = trajectory(study(), digits, store, on_epoch=explode)
    with pytest.raises(DivergedError):
        worker.bring_to(4)
    assert epochs_of(worker, TRUNK) == [1]


def test_a_teacher_whose_last_step_broke_it_diverges_though_its_loss_was_finite(
    digits: StudyData, store: Store
) -> None:
    """One step an epoch: the loss is that of the weights before the step."""
    config = study(model="mlp", batch_size=digits.train_images, optimizer={"lr": 1e30})
    worker = trajectory(config, digits, store)
    with pytest.raises(DivergedError, match="response not finite in epoch 1 at learning rate 1e\\+30"):
        worker.bring_to(4)
    assert snapshots(worker, TRUNK) == []
