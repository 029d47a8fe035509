"""A study of thousands of trials, written straight into a storage: nothing is trained."""

import hashlib
import json
import math
from datetime import datetime, timedelta
from typing import Any, get_args

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, insert, select

from sweetspot.config import ConfirmArm, StudyConfig
from sweetspot.store import Store, StudyRecord
from sweetspot.store.schema import EpochRow, RecipeRow, StudentRow
from sweetspot.store.trajectories import MEASURES, TRUNK
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, ECONOMY, LONGEST, SMOOTHED
from sweetspot.study.choices import at_temperatures, cheapest, chosen, lr_rivals, lr_tasks, smoothings
from sweetspot.study.confirmation import FINALIST, Plan
from sweetspot.study.ranking import Ranked, most_accurate_teacher, ranking
from sweetspot.study.search import CONFIRM, METRIC, TASK, get_study, open_study
from sweetspot.study.space import Alone, Point, Source, distributions
from sweetspot.study.tasks import MOST_TASKS, TASK_NUMBER, Task
from sweetspot.study.visit import distillation_at, recipe_at
from sweetspot.study_file import Draft, find

TRAIN_IMAGES = 45_000
CLASSES = [f"class <{k}>" for k in range(100)]
_TEST_HASH = "7e57" * 16
_SIZES = [16, 32, 64, 128, 256, 512]
_START = datetime(2026, 1, 1)
_MEANS = {
    BEST: 0.72,
    ALONE: 0.69,
    SMOOTHED: 0.695,
    ACCURATE: 0.715,
    BEST_T: 0.722,
    ACCURATE_T: 0.718,
    LONGEST: 0.70,
    ECONOMY: 0.719,
}
"""The true accuracies of the arms."""


def large_config(trials: int = 2000) -> StudyConfig:
    """The digits study, with a search like those of large data sets."""
    draft = Draft.read(find("digits"))
    for key, value in {
        "search.batch_size": _SIZES,
        "search.epochs": {"low": 2, "high": 240, "rungs": 12},
        "search.student": {"temperature": {"low": 1.0, "high": 10.0}},
        "search.trials": trials,
        "search.min_steps": 1000,
        "student.epochs": 2,
        "student.replicates": {"min": 3, "max": 3},
        "pruner": {"name": "similarity-entropy"},
        "confirm.seeds": 5,
        "confirm.arms": list(get_args(ConfirmArm)),
    }.items():
        draft.set(key, value, key)
    return draft.config()


def write_large_study(
    store: Store, name: str = "large", *, trials: int = 2000, config: StudyConfig | None = None, confirmed: bool = True
) -> StudyRecord:
    """A study with trials of every kind, their students, what was measured of the teachers, and a confirmation."""
    config = config or large_config(trials)
    store.studies.add(name, config, hashlib.sha256(name.encode()).hexdigest())  # teachers of its own
    record = get_study(store, name)
    study = open_study(store, name, METRIC)
    for key, value in {
        "dataset": config.data.dataset,
        "train_images": TRAIN_IMAGES,
        "classes": CLASSES,
        "images": {"channels": 3, "size": 32},
        "normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }.items():
        study.set_user_attr(key, value)
    rng = np.random.default_rng(0)
    space = distributions(config)
    found = [_trial(number, config, space, rng) for number in range(trials)]
    _write_trials(store, study, found)
    _write_students(store, record, found, rng)
    _write_epochs(store, record, found)
    if confirmed:
        _write_confirmation(store, record, study.get_trials(deepcopy=False), rng)
    return record


def similarity(size: int, epochs: int) -> float:
    """Nats; falls with the steps."""
    return 1.4 - 0.11 * math.log(1 + epochs * TRAIN_IMAGES / size / 50)


def student(point: Point) -> float:
    """The true accuracy of a point's students."""
    temperature = float(dict(point.others).get("student.temperature", 4.0))
    away = similarity(point.batch_size, point.epochs) - 0.55
    return 0.72 - 0.6 * away**2 - 0.002 * (temperature - 4) ** 2


def _trial(
    number: int, config: StudyConfig, space: dict[str, BaseDistribution], rng: np.random.Generator
) -> FrozenTrial:
    ladder = config.search.ladder
    params: dict[str, float] = {
        "batch_size": int(rng.choice(config.search.batch_size)),
        "epochs": int(rng.choice(ladder)),
    }
    if "student.temperature" in space:
        params["student.temperature"] = float(rng.uniform(1, 10))
    point = Point.of(params)
    size, epochs = point.batch_size, point.epochs
    reported = {rung: similarity(size, rung) for rung in ladder if rung <= epochs}
    common: dict[str, Any] = {
        "params": params,
        "distributions": {key: space[key] for key in params},
        "user_attrs": {
            "worker": "w",
            "epochs_reached": epochs,
            "epochs_trained": max(0, epochs - number // 2),
            "epochs_reused": min(epochs, number // 2),
            "student_epochs": 60,
            "device": "cuda:0",
            "seconds": {"teacher": 3.0 * epochs, "measuring": 0.5 * epochs, "waiting": 1.0, "students": 40.0},
        },
    }
    attrs = common["user_attrs"]
    kind = number % 20
    if kind == 7:
        attrs |= {"error": "RuntimeError: <b>cuDNN</b> error"}
        state, value = TrialState.FAIL, None
    elif kind in (3, 11, 13):
        attrs |= {"pruned_at": epochs, "pruned_because": f"similarity entropy {reported[epochs]:.3f} promises nothing"}
        reported[epochs + 1] = math.nan
        state, value = TrialState.PRUNED, None
    elif kind == 17:
        attrs |= {"infeasible": f"loss not finite in epoch 1 at learning rate 1 ({point})"}
        reported, state, value = {1: math.nan}, TrialState.PRUNED, None
    else:
        if kind == 5:
            attrs |= {"would_prune": "similarity entropy promises nothing"}
        accuracies = [float(student(point) + rng.normal(0, 0.004)) for _ in range(config.student.replicates.max)]
        attrs |= {
            "steps": epochs * (TRAIN_IMAGES // size),
            "teacher_accuracy": 0.75 - 0.2 * math.exp(-epochs / 30),
            "similarity_entropy": reported[epochs],
            "similarity_information": 0.8,
            "delivered_similarity": 0.3 * reported[epochs],
            "replicate_accuracies": accuracies,
        }
        state, value = TrialState.COMPLETE, sum(accuracies) / len(accuracies)
    trial = optuna.trial.create_trial(state=state, value=value, intermediate_values=reported, **common)
    trial.number = number
    trial.datetime_start = _START + timedelta(minutes=number)
    trial.datetime_complete = trial.datetime_start + timedelta(minutes=5)
    return trial


def _write_trials(store: Store, study: optuna.Study, trials: list[FrozenTrial]) -> None:
    """As Optuna's storage would, but all at once: one by one they take half a minute."""
    tables: dict[type, list[dict[str, object]]] = {
        table: []
        for table in (
            TrialModel,
            TrialParamModel,
            TrialUserAttributeModel,
            TrialIntermediateValueModel,
            TrialValueModel,
        )
    }
    with store.database.session.begin() as session:
        first = (session.scalar(select(func.max(TrialModel.trial_id))) or 0) + 1
        for trial in trials:
            at = {"trial_id": first + trial.number}
            tables[TrialModel].append(
                at | {
                    "number": trial.number, "study_id": study._study_id, "state": trial.state,
                    "_datetime_start_utc": trial.datetime_start, "_datetime_complete_utc": trial.datetime_complete,
                }
            )  # fmt: skip
            for name, value in trial.params.items():
                distribution = trial.distributions[name]
                param = {
                    "param_value": distribution.to_internal_repr(value),
                    "distribution_json": distribution_to_json(distribution),
                }
                tables[TrialParamModel].append(at | {"param_name": name} | param)
            for key, value in trial.user_attrs.items():
                tables[TrialUserAttributeModel].append(at | {"key": key, "value_json": json.dumps(value)})
            for step, value in trial.intermediate_values.items():
                reported, of = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
                value_ = {"intermediate_value": reported, "intermediate_value_type": of}
                tables[TrialIntermediateValueModel].append(at | {"step": step} | value_)
            if trial.value is not None:
                stored, kind = TrialValueModel.value_to_stored_repr(trial.value)
                tables[TrialValueModel].append(at | {"objective": 0, "value": stored, "value_type": kind})
        for table, rows in tables.items():
            if rows:
                session.execute(insert(table), rows)


def _write_students(store: Store, record: StudyRecord, trials: list[FrozenTrial], rng: np.random.Generator) -> None:
    config = record.config
    rows, seen = [], set()
    for trial in trials:
        point = Point.of(trial.params)
        if trial.state != TrialState.COMPLETE or point in seen:
            continue
        seen.add(point)
        hash_ = distillation_at(config, record.data_hash, point).hash
        for replicate, accuracy in enumerate(trial.user_attrs["replicate_accuracies"]):
            rows.append(_student_row(hash_, "search", replicate, record.name, accuracy))
    with store.database.session.begin() as session:
        session.add_all(rows)


def _student_row(hash_: str, purpose: str, replicate: int, study: str, accuracy: float, **test: object) -> StudentRow:
    curve = {"loss": [1.0, 0.5], "accuracy": [0.9 * accuracy, accuracy]}
    return StudentRow(
        distillation=hash_, purpose=purpose, replicate=replicate, study=study, accuracy=accuracy, curve=curve,
        seconds=13.0, weights="", **test,
    )  # fmt: skip


def _write_epochs(store: Store, record: StudyRecord, trials: list[FrozenTrial]) -> None:
    """The trunks of every batch size up to the longest visited."""
    config, temperature = record.config, record.config.teacher.probe_temperature
    rows: list[object] = []
    for size in config.search.batch_size:
        longest = max((t.params["epochs"] for t in trials if t.params["batch_size"] == size), default=0)
        recipe = recipe_at(config, record.data_hash, Point(size, longest))
        rows.append(RecipeRow(hash=recipe.hash, json=recipe.json))
        for epoch in range(1, longest + 1):
            s = similarity(size, epoch)
            for probe in ("train", "validation"):
                values = dict.fromkeys(MEASURES, 0.5) | {
                    "similarity_entropy": s,
                    "delivered_similarity": 0.3 * s,
                    "accuracy": 0.75 - 0.2 * math.exp(-epoch / 30),
                }
                key = {"recipe": recipe.hash, "branch": TRUNK, "epoch": epoch, "temperature": temperature}
                about = {"recomputed": epoch in config.search.ladder, "train_loss": 1.0, "seconds": 3.0}
                rows.append(EpochRow(probe=probe, **key, **about, **values))
    with store.database.session.begin() as session:
        session.add_all(rows)


def _write_confirmation(store: Store, record: StudyRecord, trials: list[FrozenTrial], rng: np.random.Generator) -> None:
    """As a companion leaves it: what is chosen on validation is 0.05 of label smoothing, and a temperature of 2."""
    ranked = ranking(store, record, trials, TRAIN_IMAGES)
    accurate = most_accurate_teacher(store, record, trials, TRAIN_IMAGES, ranked[0].point)
    _write_choices(store, record, ranked, [ranked[0].point, accurate])
    arms = _arms(store, record, ranked, accurate)
    confirm = record.config.confirm
    looks = store.studies.count_test_look(record.name)
    plan = Plan(arms, confirm.teachers, confirm.seeds, confirm.margin, _TEST_HASH, look=1, looks=looks)
    study = open_study(store, record.name + CONFIRM, METRIC)
    study.set_user_attr("plan", plan.to_json())
    rows: list[object] = []
    images = rng.uniform(size=2000)
    space: dict[str, BaseDistribution] = {TASK_NUMBER: optuna.distributions.IntDistribution(0, MOST_TASKS - 1)}
    queued: dict[tuple[str, int], Task] = {}
    for task in plan.all_tasks(record.config.teacher.seed):
        queued.setdefault((distillation_at(record.config, record.data_hash, task.source).hash, task.first), task)
    for number, ((hash_, _), task) in enumerate(queued.items()):
        accuracies = []
        for replicate in task.replicates:
            correct = (images + rng.normal(0, 0.1, 2000)) < _MEANS.get(task.arm, 0.71)
            accuracies.append(float(correct.mean()))
            test = {
                "test_hash": _TEST_HASH,
                "test_accuracy": accuracies[-1],
                "test_correct": len(correct).to_bytes(4, "big") + np.packbits(correct).tobytes(),
            }
            rows.append(_student_row(hash_, "confirm", replicate, record.name, _MEANS.get(task.arm, 0.71), **test))
        attrs = {
            TASK: task.to_json(),
            "replicate_accuracies": accuracies,
            "epochs_reached": 0,
            "epochs_trained": 0,
            "student_epochs": 10,
            "seconds": {"students": 60.0},
        }
        value = sum(accuracies) / len(accuracies)
        study.add_trial(
            optuna.trial.create_trial(value=value, params={TASK_NUMBER: number}, distributions=space, user_attrs=attrs)
        )
    with store.database.session.begin() as session:
        session.add_all(rows)


def _arms(store: Store, record: StudyRecord, ranked: list[Ranked], accurate: Point) -> dict[str, Source]:
    best, config = ranked[0].point, record.config
    every: dict[str, tuple[str, Source]] = {
        BEST: ("", best),
        ALONE: ("student_alone", Alone()),
        SMOOTHED: ("label_smoothing", chosen(store, record, smoothings())),
        ACCURATE: ("most_accurate_teacher", accurate),
        BEST_T: ("temperature", chosen(store, record, at_temperatures(config, best))),
        ACCURATE_T: ("temperature", chosen(store, record, at_temperatures(config, accurate))),
        LONGEST: ("longest_teacher", Point(best.batch_size, config.search.ladder[-1], best.others)),
        ECONOMY: ("economy", cheapest(store, record, ranked)),
    }
    others = [each.point for each in ranked[1:] if not each.is_under_trained][: config.confirm.finalists - 1]
    every |= {f"{FINALIST}_{number}": ("", point) for number, point in enumerate(others, 2)}
    return {arm: source for arm, (wanted, source) in every.items() if not wanted or wanted in config.confirm.arms}


def _write_choices(store: Store, record: StudyRecord, ranked: list[Ranked], points: list[Point]) -> None:
    config = record.config
    sources: dict[Source, float] = {source: 0.6 - abs(source.label_smoothing - 0.05) for source in smoothings()}
    for point in points:
        others = at_temperatures(config, point)[1:]
        sources |= {each: 0.9 if dict(each.others)["student.temperature"] == 2 else 0.5 for each in others}
    rivals = lr_rivals(record, ranked)
    sources |= {task.source: 0.7 for task in lr_tasks(config, rivals)} if rivals else {}
    hashes = {distillation_at(config, record.data_hash, source).hash: mean for source, mean in sources.items()}
    with store.database.session.begin() as session:
        session.add_all(
            _student_row(hash_, "search", replicate, record.name, mean)
            for hash_, mean in hashes.items()
            for replicate in range(config.student.replicates.max)
        )
