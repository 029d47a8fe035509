"""Confirmation: the best point against its baselines, with fresh students, on the test split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import canonical_json
from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import Labelled, StudyData
from sweetspot.errors import RunError, UserError
from sweetspot.store import Store, StudyRecord
from sweetspot.student.distillation import correctness
from sweetspot.study.inference import Interval, Verdict, two_way_bootstrap, verdict
from sweetspot.study.lost import withdraw
from sweetspot.study.ranking import most_accurate_teacher, ranking
from sweetspot.study.search import CONFIRM, is_given_back, load, open_study
from sweetspot.study.space import AnyPoint, ExternalPoint, Point, point_of
from sweetspot.study.visit import Visit, distillation_at
from sweetspot.study.workplace import Workplace

BEST, ALONE, ACCURATE, LONGEST = "best_point", "student_alone", "most_accurate_teacher", "longest_teacher"
YOURS = "your_teacher"
"""The arm of a teacher that was trained elsewhere; of a second one, ``your_teacher_2``, and so on."""
ARMS = (BEST, ALONE, ACCURATE, LONGEST)
"""The arms of every confirmation."""
NEEDED = (BEST, ALONE, ACCURATE)
"""Without these there is no verdict; the others may fail."""
ARM = "arm_index"
"""The parameter of a confirmation's trial: which of its plan's arms it runs."""
_MOST_ARMS = 1000
_TRIES = 3


@dataclass(frozen=True)
class Plan:
    """What a confirmation compares, fixed before it begins.

    Attributes:
        points: of each arm, in order; None: the student alone.
        seeds: fresh student seeds, the same in every arm.
        looks: how many looks the test split has had with this one, by all studies on the same data in the database.
        test_hash: of the test split's content.
    """

    points: Mapping[str, AnyPoint | None]
    seeds: int
    looks: int
    test_hash: str

    @property
    def distinct(self) -> dict[str, AnyPoint | None]:
        """The arms that run: one that is two arms runs once, under its first name."""
        found: dict[str, AnyPoint | None] = {}
        for arm, point in self.points.items():
            if point not in found.values():
                found[arm] = point
        return found

    def arm_of(self, params: Mapping[str, Any]) -> str:
        """The arm that a trial with these parameters runs."""
        index: int = params[ARM]
        return list(self.points)[index]

    def to_json(self) -> str:
        points = [[arm, point.params if point else None] for arm, point in self.points.items()]
        return canonical_json({"points": points, "seeds": self.seeds, "looks": self.looks, "test": self.test_hash})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        values = json.loads(text)
        pairs = values["points"]
        if isinstance(pairs, dict):  # as plans were written before they could have further arms
            pairs = [(arm, pairs[arm]) for arm in ARMS]
        points = {arm: point_of(params) if params else None for arm, params in pairs}
        return cls(points, values["seeds"], values["looks"], values["test"])


def current_plan(store: Store, name: str) -> Plan | None:
    """The plan of a study's confirmation; None before one was made."""
    if not store.database.has_study(name + CONFIRM):
        return None
    text = load(store, name + CONFIRM).user_attrs.get("plan")
    return Plan.from_json(text) if text else None


def ensure_planned(store: Store, record: StudyRecord, data: StudyData) -> bool:
    """Plan the confirmation of a search that has ended, and queue its arms. Only under the study's claim.

    Arms that failed are queued again, a few times at most.

    Returns:
        Whether there is a confirmation; False without seeds for it, or without a point to confirm.
    """
    study = load(store, record.name)
    trials = study.get_trials(deepcopy=False)
    train_images = study.user_attrs["train_images"]
    best = _to_confirm(store, record, study, trials)
    if best is None:
        return False
    longest = Point(best.batch_size, record.config.search.ladder[-1], best.others)
    accurate = most_accurate_teacher(store, record, trials, train_images, best)
    points: dict[str, AnyPoint | None]
    points = {BEST: best, ALONE: None, ACCURATE: accurate, LONGEST: longest, **_external(store, record, best)}
    plan, seeds, test_hash = current_plan(store, record.name), record.config.confirm.seeds, data.test_hash()
    if plan is None or (plan.points, plan.seeds, plan.test_hash) != (points, seeds, test_hash):
        looks = store.studies.count_test_look(record.name)
        _queue(store, record.name, Plan(points, seeds, looks, test_hash))
    else:
        _queue_failed_again(store, record.name, plan)
    return True


def _external(store: Store, record: StudyRecord, best: Point) -> dict[str, ExternalPoint]:
    """The arms of the teachers that were trained elsewhere for this data; their students as those of ``best``."""
    students = tuple((k, v) for k, v in best.others if k.startswith("student."))
    teachers = store.external_teachers.of_data(record.data_hash)
    return {
        YOURS + (f"_{i + 1}" if i else ""): ExternalPoint(t.weights, t.model, t.name, t.epochs, students)
        for i, t in enumerate(teachers)
    }


def is_unplanned(store: Store, record: StudyRecord) -> bool:
    """Whether a search that has ended is to be confirmed, and nobody has planned it: whoever was about to has died."""
    study = load(store, record.name)
    trials = study.get_trials(deepcopy=False)
    return current_plan(store, record.name) is None and _to_confirm(store, record, study, trials) is not None


def _to_confirm(store: Store, record: StudyRecord, study: optuna.Study, trials: list[FrozenTrial]) -> Point | None:
    """The best point; None if there is none that may be confirmed, or no confirmation is wanted."""
    if record.config.confirm.seeds == 0:
        return None
    ranked = ranking(store, record, trials, study.user_attrs["train_images"])
    return ranked[0].point if ranked and not ranked[0].is_under_trained else None


def _queue(store: Store, name: str, plan: Plan) -> None:
    study = open_study(store, name + CONFIRM, "test accuracy")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        withdraw(study, trial)
    text = plan.to_json()
    for arm in plan.distinct:
        _enqueue(study, plan, arm)
    study.set_user_attr("plan", text)


def _queue_failed_again(store: Store, name: str, plan: Plan) -> None:
    study = load(store, name + CONFIRM)
    for arm, tries in _tries(study, plan).items():
        failed = [t for t in tries if not is_given_back(t)]
        if all(t.state == TrialState.FAIL for t in tries) and len(failed) < _TRIES:
            _enqueue(study, plan, arm)


def _enqueue(study: optuna.Study, plan: Plan, arm: str) -> None:
    study.enqueue_trial({ARM: list(plan.points).index(arm)}, user_attrs={"plan": plan.to_json()})


def _tries(study: optuna.Study, plan: Plan) -> dict[str, list[FrozenTrial]]:
    """The trials of each arm that runs, in their order."""
    text = plan.to_json()
    tries: dict[str, list[FrozenTrial]] = {arm: [] for arm in plan.distinct}
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("plan") == text:
            arm = plan.arm_of(trial.params | trial.system_attrs.get("fixed_params", {}))
            tries[arm].append(trial)
    return tries


def failed_arm(store: Store, name: str) -> str | None:
    """Which needed arm of the current plan failed for good, and why; None if none has."""
    plan = current_plan(store, name)
    if plan is None:
        return None
    for arm, tries in _tries(load(store, name + CONFIRM), plan).items():
        if arm in NEEDED and tries and all(t.state == TrialState.FAIL for t in tries):
            return f"{arm}: {tries[-1].user_attrs.get('error', 'its worker ended')}"
    return None


def point_of_arm(trial: FrozenTrial) -> AnyPoint | None:
    """What a trial of a confirmation, queued or later, is about; None: the student alone."""
    plan = Plan.from_json(trial.user_attrs["plan"])
    return plan.points[plan.arm_of(trial.params | trial.system_attrs.get("fixed_params", {}))]


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
        plan = Plan.from_json(trial.user_attrs["plan"])
        return plan.arm_of({ARM: trial.suggest_int(ARM, 0, _MOST_ARMS - 1)}), plan

    def run(self, trial: optuna.Trial, arm: str, plan: Plan) -> float:
        """Optuna: the mean test accuracy of the arm's students, a fraction."""
        config = self._record.config
        on_saved = partial(trial.set_user_attr, "epochs_trained")
        visit = Visit(config, plan.points[arm], self._workplace, on_saved)

        def test(model: Any) -> NDArray[np.bool_]:
            return correctness(model, self._test, config.student.precision).cpu().numpy()

        try:
            visit.train_teacher()
            students = visit.train_students("confirm", range(plan.seeds), test, plan.test_hash)
        except UserError as error:
            if arm in NEEDED:
                raise
            raise RunError(str(error)) from error  # the others go on without it
        finally:
            visit.tell_spent(trial.set_user_attr)
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
    """

    plan: Plan
    accuracies: Mapping[str, list[float]]
    intervals: Mapping[str, Interval]
    gains: Mapping[str, Interval | None]
    verdict: Verdict


def confirmation(store: Store, record: StudyRecord) -> Confirmation | None:
    """The result of a study's confirmation; None while it has none that is complete."""
    plan = current_plan(store, record.name)
    if plan is None:
        return None
    hashes = {arm: distillation_at(record.config, record.data_hash, point).hash for arm, point in plan.points.items()}
    students = store.students.of(sorted(set(hashes.values())), "confirm", plan.test_hash)
    correct: dict[str, NDArray[np.bool_]] = {}
    for arm in plan.points:
        rows = [s.test_correct for s in students.get(hashes[arm], []) if s.replicate < plan.seeds]
        seen = [row for row in rows if row is not None]
        if len(seen) == plan.seeds:
            correct[arm] = np.stack(seen)
    if not correct.keys() >= set(NEEDED) or (
        correct.keys() != plan.points.keys() and not _has_ended(store, record.name)
    ):
        return None
    seed = seed_of(record.config.seed, "bootstrap") % 2**32
    intervals = {arm: two_way_bootstrap(rows, None, seed=seed) for arm, rows in correct.items()}
    gains = {
        arm: two_way_bootstrap(correct[BEST], correct[arm], seed=seed) if arm in correct else None
        for arm in plan.points
        if arm != BEST
    }
    alone = gains[ALONE]
    assert alone is not None
    same = {arm for arm in (ACCURATE, LONGEST) if plan.points[arm] == plan.points[BEST]}
    words = verdict(
        over_student_alone=alone,
        over_most_accurate=None if ACCURATE in same else gains[ACCURATE],
        over_longest=None if LONGEST in same else gains[LONGEST],
        longest_is_best=LONGEST in same,
        over_yours={str(point): gains[arm] for arm, point in plan.points.items() if isinstance(point, ExternalPoint)},
        margin=record.config.confirm.margin,
    )
    accuracies = {arm: [float(a) for a in rows.mean(axis=1)] for arm, rows in correct.items()}
    return Confirmation(plan, accuracies, intervals, gains, words)


def _has_ended(store: Store, name: str) -> bool:
    trials = load(store, name + CONFIRM).get_trials(deepcopy=False)
    return not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials)
