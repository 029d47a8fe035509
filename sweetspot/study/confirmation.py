"""Confirmation: the best point against its baselines, with fresh students, on the test split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from sweetspot.config import canonical_json
from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import Labelled
from sweetspot.store import Store, StudyRecord
from sweetspot.student.distillation import correctness
from sweetspot.study.inference import Interval, Verdict, two_way_bootstrap, verdict
from sweetspot.study.ranking import Ranked, most_accurate_teacher, ranking
from sweetspot.study.search import CONFIRM, GIVEN_BACK, load, open_study
from sweetspot.study.space import Point
from sweetspot.study.visit import Visit, distillation_at
from sweetspot.study.workplace import Workplace

BEST, ALONE, ACCURATE, LONGEST = "best_point", "student_alone", "most_accurate_teacher", "longest_teacher"
_TRIES = 3
ARMS = (BEST, ALONE, ACCURATE, LONGEST)


@dataclass(frozen=True)
class Plan:
    """What a confirmation compares, fixed before it begins.

    Attributes:
        points: of each arm; None: the student alone.
        seeds: fresh student seeds, the same in every arm.
        looks: how many looks the test split has had with this one, by all studies on the same data in the database.
    """

    points: Mapping[str, Point | None]
    seeds: int
    looks: int

    @property
    def distinct(self) -> dict[str, Point | None]:
        """The arms that run: one that is two arms runs once, under its first name."""
        found: dict[str, Point | None] = {}
        for arm in ARMS:
            if self.points[arm] not in found.values():
                found[arm] = self.points[arm]
        return found

    def to_json(self) -> str:
        points = {arm: point.params if point else None for arm, point in self.points.items()}
        return canonical_json({"points": points, "seeds": self.seeds, "looks": self.looks})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        values = json.loads(text)
        points = {arm: Point.of(params) if params else None for arm, params in values["points"].items()}
        return cls(points, values["seeds"], values["looks"])


def current_plan(store: Store, name: str) -> Plan | None:
    """The plan of a study's confirmation; None before one was made."""
    if name + CONFIRM not in optuna.get_all_study_names(store.database.storage):
        return None
    text = load(store, name + CONFIRM).user_attrs.get("plan")
    return Plan.from_json(text) if text else None


def ensure_planned(store: Store, record: StudyRecord) -> bool:
    """Plan the confirmation of a search that has ended, and queue its arms. Only under the study's claim.

    Returns:
        Whether there is a confirmation; False without seeds for it, or without a point to confirm.
    """
    study = load(store, record.name)
    trials = study.get_trials(deepcopy=False)
    train_images = study.user_attrs["train_images"]
    ranked = ranking(store, record, trials, train_images)
    if record.config.confirm.seeds == 0 or not ranked or ranked[0].is_under_trained:
        return False
    best = ranked[0].point
    longest = Point(best.batch_size, record.config.search.ladder[-1], best.others)
    accurate = most_accurate_teacher(store, record, trials, train_images, best)
    points = {BEST: best, ALONE: None, ACCURATE: accurate, LONGEST: longest}
    plan = current_plan(store, record.name)
    if plan is None or plan.points != points or plan.seeds != record.config.confirm.seeds:
        looks = store.studies.count_test_look(record.name)
        plan = Plan(points, record.config.confirm.seeds, looks)
        _queue(store, record.name, plan)
    else:
        _queue_failed_again(store, record.name, plan)
    return True


def _queue(store: Store, name: str, plan: Plan) -> None:
    study = open_study(store, name + CONFIRM, "test accuracy")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study._storage.set_trial_user_attr(trial._trial_id, GIVEN_BACK, "another plan took its place")
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    text = plan.to_json()
    for arm in plan.distinct:
        study.enqueue_trial({"arm": arm}, user_attrs={"plan": text})
    study.set_user_attr("plan", text)


def _queue_failed_again(store: Store, name: str, plan: Plan) -> None:
    """Queue the arms of the plan that failed, a few times at most."""
    study = load(store, name + CONFIRM)
    text = plan.to_json()
    trials = [
        t
        for t in study.get_trials(deepcopy=False)
        if t.user_attrs.get("plan") == text and GIVEN_BACK not in t.user_attrs
    ]
    for arm in plan.distinct:
        states = [t.state for t in trials if (t.params | t.system_attrs.get("fixed_params", {})).get("arm") == arm]
        if set(states) == {TrialState.FAIL} and len(states) < _TRIES:
            study.enqueue_trial({"arm": arm}, user_attrs={"plan": text})


class Arm:
    """The objective of a confirmation: distills the fresh students of an arm and looks at the test split."""

    def __init__(self, record: StudyRecord, workplace: Workplace) -> None:
        self._record = record
        self._workplace = workplace

    @cached_property
    def _test(self) -> Labelled:
        return self._workplace.data.test()

    def suggest(self, trial: optuna.Trial) -> tuple[str, Plan]:
        """The arm of a queued trial, and the plan it belongs to."""
        return trial.suggest_categorical("arm", ARMS), Plan.from_json(trial.user_attrs["plan"])

    def run(self, trial: optuna.Trial, arm: str, plan: Plan) -> float:
        """Optuna: the mean test accuracy of the arm's students, a fraction."""
        config = self._record.config
        visit = Visit(config, plan.points[arm], self._workplace)

        def test(model: Any) -> NDArray[np.bool_]:
            return correctness(model, self._test, config.student.precision).cpu().numpy()

        try:
            visit.train_teacher()
            students = visit.train_students("confirm", range(plan.seeds), test)
        finally:
            for key, value in visit.spent().items():
                trial.set_user_attr(key, value)
        accuracies = [float(s.test_accuracy or 0.0) for s in students]
        trial.set_user_attr("replicate_accuracies", accuracies)
        return sum(accuracies) / len(accuracies)


@dataclass(frozen=True)
class Confirmation:
    """A confirmation that has finished. Accuracies and gains are on the test split, fractions.

    Attributes:
        accuracies: of each arm: one per seed; an arm that is another one shares its students.
        intervals: of each arm's mean accuracy.
        gains: of the best point over each other arm, paired; None where that arm could not be trained.
        is_current: False if the search has found another best point since.
    """

    plan: Plan
    accuracies: Mapping[str, list[float]]
    intervals: Mapping[str, Interval]
    gains: Mapping[str, Interval | None]
    verdict: Verdict
    is_current: bool


def confirmation(store: Store, record: StudyRecord, ranked: list[Ranked]) -> Confirmation | None:
    """The result of a study's confirmation; None while it has none that is complete."""
    plan = current_plan(store, record.name)
    if plan is None:
        return None
    hashes = {arm: distillation_at(record.config, record.data_hash, point).hash for arm, point in plan.points.items()}
    students = store.students.of(sorted(set(hashes.values())), "confirm")
    correct: dict[str, NDArray[np.bool_]] = {}
    for arm in ARMS:
        rows = [s.test_correct for s in students.get(hashes[arm], []) if s.replicate < plan.seeds]
        seen = [row for row in rows if row is not None]
        if len(seen) == plan.seeds:
            correct[arm] = np.stack(seen)
    if not {BEST, ALONE, ACCURATE} <= correct.keys() or (LONGEST not in correct and not _has_ended(store, record.name)):
        return None
    seed = seed_of(record.config.seed, "bootstrap") % 2**32
    intervals = {arm: two_way_bootstrap(rows, None, seed=seed) for arm, rows in correct.items()}
    gains = {
        arm: two_way_bootstrap(correct[BEST], correct[arm], seed=seed) if arm in correct else None
        for arm in (ALONE, ACCURATE, LONGEST)
    }
    alone = gains[ALONE]
    assert alone is not None
    same = {arm for arm in (ACCURATE, LONGEST) if plan.points[arm] == plan.points[BEST]}
    words = verdict(
        over_student_alone=alone,
        over_most_accurate=None if ACCURATE in same else gains[ACCURATE],
        over_longest=None if LONGEST in same else gains[LONGEST],
        longest_is_best=LONGEST in same,
        margin=record.config.confirm.margin,
    )
    accuracies = {arm: [float(a) for a in rows.mean(axis=1)] for arm, rows in correct.items()}
    is_current = bool(ranked) and ranked[0].point == plan.points[BEST]
    return Confirmation(plan, accuracies, intervals, gains, words, is_current)


def _has_ended(store: Store, name: str) -> bool:
    trials = load(store, name + CONFIRM).get_trials(deepcopy=False)
    return not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials)
