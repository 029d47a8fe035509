"""Confirmation: the best point against its rivals, with fresh students, on the test split; and what it needs before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from sweetspot.config import MOST_SEEDS, StudyConfig, canonical_json
from sweetspot.data.study_data import Labelled, StudyData
from sweetspot.errors import RunError, UserError
from sweetspot.store import Store, StudyRecord
from sweetspot.student.distillation import correctness
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, ECONOMY, LONGEST, SMOOTHED, YOURS
from sweetspot.study.choices import at_temperatures, cheapest, choice_tasks, chosen, lr_rivals, lr_tasks, smoothings
from sweetspot.study.inference import Claim, Outcomes
from sweetspot.study.ranking import Ranked, leaders, most_accurate_teacher, ranking
from sweetspot.study.search import CONFIRM, CONTINUED, METRIC, TASK, is_finished, load, open_study
from sweetspot.study.space import TEACHER_SEED, Alone, ExternalPoint, Point, Source, source_of
from sweetspot.study.tasks import (
    HOPELESS,
    MOST_TASKS,
    TASK_NUMBER,
    Task,
    are_preparing,
    failures,
    open_tasks,
    queue,
    untried,
)
from sweetspot.study.visit import Visit, distillation_at
from sweetspot.study.workplace import Workplace
from sweetspot.training.engine import DivergedError, OutOfMemoryError, memory_errors

NEEDED = (BEST, ALONE, ACCURATE)
"""Without these there is no verdict; the others may fail."""
FINALIST = "finalist"
"""What the arms of the finalists after the best point begin with: ``finalist_2``, and so on."""
LEADER = "leader"
"""What the tasks are for that bring a search's leaders to ``replicates.max`` students."""
TABLE_SMOOTHING = 0.1
"""The label smoothing of a table's baseline."""
_FORMAT = 3
_APART = MOST_SEEDS
"""Between the replicates of one fresh teacher and those of the next: no two have a seed in common, and those that are
there stay when students are added."""


@dataclass(frozen=True)
class Plan:
    """What a confirmation compares, fixed before it looks.

    Attributes:
        arms: what the students of each learn from, in order.
        teachers: fresh teachers of each arm; 0: the ones that the search has trained.
        seeds: fresh student seeds per teacher.
        margin: the difference of accuracy, a fraction, that does not matter.
        test_hash: of the test split's content.
        look: how often this study has looked at the test split, with this one; 0: not yet counted.
        looks: how many looks the test split has had with this one, by all studies on the same data in the database.
        continued: how often the study had been created or continued when this was made: only who continues it may
            change what it compares.
    """

    arms: Mapping[str, Source]
    teachers: int
    seeds: int
    margin: float
    test_hash: str
    look: int = 0
    looks: int = 0
    continued: int = 0

    @property
    def claim(self) -> Claim:
        return "this point" if self.teachers else "this teacher"

    @property
    def best(self) -> Point:
        best = self.arms[BEST]
        assert isinstance(best, Point)
        return best

    def same_as_best(self, arm: str) -> bool:
        """Whether another arm is the best point's."""
        return arm != BEST and self.arms[arm] == self.arms[BEST]

    def tasks(self, arm: str, seed: int) -> list[Task]:
        """What an arm needs, a task for each teacher.

        Args:
            seed: of the teachers that the search has trained.
        """
        source = self.arms[arm]
        if not self.teachers:
            return [Task(arm, source, "confirm", 0, self.seeds, self.test_hash)]
        fresh = [
            source.having(**{TEACHER_SEED: seed + 1 + teacher}) if isinstance(source, Point) else source
            for teacher in range(self.teachers)
        ]
        return [Task(arm, s, "confirm", i * _APART, self.seeds, self.test_hash) for i, s in enumerate(fresh)]

    def all_tasks(self, seed: int) -> list[Task]:
        return [task for arm in self.arms for task in self.tasks(arm, seed)]

    def is_like(self, other: "Plan") -> bool:
        """Whether both compare the same, whenever they were made."""
        return replace(self, look=0, looks=0, continued=0) == replace(other, look=0, looks=0, continued=0)

    def to_json(self) -> str:
        return canonical_json(
            {
                "format": _FORMAT,
                "arms": [[arm, source.params] for arm, source in self.arms.items()],
                "teachers": self.teachers,
                "seeds": self.seeds,
                "margin": self.margin,
                "look": self.look,
                "looks": self.looks,
                "test": self.test_hash,
                "continued": self.continued,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Plan | None":
        """None for a plan of an earlier version: it is to be made anew."""
        values = json.loads(text)
        if values.get("format") != _FORMAT:
            return None
        arms = {arm: source_of(params) for arm, params in values["arms"]}
        return cls(
            arms,
            values["teachers"],
            values["seeds"],
            values["margin"],
            values["test"],
            values["look"],
            values["looks"],
            values["continued"],
        )


def current_plan(store: Store, name: str) -> Plan | None:
    """The plan of a study's confirmation; None before one was made by this version."""
    text = _plan_text(store, name)
    return Plan.from_json(text) if text else None


def has_plan(store: Store, name: str) -> bool:
    """Whether a plan was made, by whatever version."""
    return _plan_text(store, name) is not None


def _plan_text(store: Store, name: str) -> str | None:
    if not store.database.has_study(name + CONFIRM):
        return None
    return load(store, name + CONFIRM).user_attrs.get("plan")


# -- planning ---------------------------------------------------------------------------------------------------------


def ensure_planned(store: Store, record: StudyRecord, data: StudyData) -> bool:
    """Queue what comes next once the search has ended. Only under the study's claim.

    First its leaders get all their students, then what is chosen on validation is chosen, and then the arms look at the
    test split. Tasks that failed are queued again, a few times at most.

    Returns:
        Whether there is anything to be done, by this worker or by others.
    """
    standing = _Standing(store, record)
    if not standing.has_ended:
        return False
    if preparing := standing.next_stage():
        return queue(store, record, preparing)
    plan = current_plan(store, record.name)
    if plan is None or standing.may_differ(plan):
        if are_preparing(store, record.name):
            return True  # its students may change what is compared
        arms, confirm = standing.arms(), record.config.confirm
        if not arms:
            return False
        wanted = Plan(
            arms, confirm.teachers, confirm.seeds, confirm.margin, data.test_hash, continued=standing.continued
        )
        if plan is not None and plan.is_like(wanted):
            plan = replace(plan, continued=standing.continued)
        else:
            looks = store.studies.count_test_look(record.name)
            counted = store.studies.get(record.name)
            plan = replace(wanted, look=counted.test_looks if counted else 1, looks=looks)
        open_study(store, record.name + CONFIRM, METRIC).set_user_attr("plan", plan.to_json())
    return queue(store, record, plan.all_tasks(record.config.teacher.seed))


def is_unplanned(store: Store, record: StudyRecord) -> bool:
    """Whether a search that has ended has tasks to come that nobody has queued: whoever was about to has died."""
    standing = _Standing(store, record)
    if stage := standing.next_stage():
        return bool(untried(store, record, stage))
    plan = current_plan(store, record.name)
    if (plan is None or standing.may_differ(plan)) and are_preparing(store, record.name):
        return False
    if plan is None:
        # A plan of an earlier version is made anew when the study is continued, and by nobody else.
        return bool(standing.arms()) and (standing.continued > 0 or not has_plan(store, record.name))
    if standing.may_differ(plan):
        confirm = record.config.confirm
        wanted = replace(
            plan, arms=standing.arms(), teachers=confirm.teachers, seeds=confirm.seeds, margin=confirm.margin
        )
        if wanted.arms and not plan.is_like(wanted):
            return True
    return bool(untried(store, record, plan.all_tasks(record.config.teacher.seed)))


def baseline_tasks(config: StudyConfig) -> list[Task]:
    """Of a table: the students of labels alone, as many as each point has with all of its teachers; else none."""
    teachers, each = config.search.teacher.seeds or 0, config.student.replicates.max
    return [
        Task(ALONE, source, "search", teacher * each, each)
        for source in (Alone(), Alone(TABLE_SMOOTHING))
        for teacher in range(teachers)
    ]


def is_current(store: Store, record: StudyRecord, plan: Plan) -> bool:
    """Whether a confirmation of the search as it stands would compare what ``plan`` does."""
    return dict(_Standing(store, record).arms()) == dict(plan.arms)


class _Standing:
    """What a search has found, and what its confirmation needs.

    Raises nothing for a search that has found nothing: it needs nothing.
    """

    def __init__(self, store: Store, record: StudyRecord) -> None:
        self._store = store
        self._record = record
        self._config = record.config
        study = load(store, record.name)
        self._trials = study.get_trials(deepcopy=False)
        self._images = study.user_attrs.get("train_images", 0)
        self.continued: int = study.user_attrs.get(CONTINUED, 0)

    @property
    def has_ended(self) -> bool:
        return is_finished(self._record, self._trials)

    def may_differ(self, plan: Plan) -> bool:
        """Whether the study was continued since ``plan`` was made: nothing else changes what is compared."""
        return self.continued != plan.continued

    @cached_property
    def _ranked(self) -> list[Ranked]:
        return ranking(self._store, self._record, self._trials, self._images) if self._images else []

    @cached_property
    def _best(self) -> Point | None:
        """The point to confirm; None if there is none that may be confirmed, or no confirmation is wanted."""
        if self._config.confirm.seeds == 0 or self._is_table or not self._ranked:
            return None
        return None if self._ranked[0].is_under_trained else self._ranked[0].point

    @property
    def _is_table(self) -> bool:
        return self._config.search.teacher.seeds is not None

    @cached_property
    def _accurate(self) -> Point:
        assert self._best is not None
        return most_accurate_teacher(self._store, self._record, self._trials, self._images, self._best)

    def next_stage(self) -> list[Task]:
        """The tasks of the first stage before the confirmation that is not done; empty when all are."""
        for stage in (self._baselines, self._leaders, self._choices):
            tasks = stage()
            if tasks and open_tasks(self._store, self._record, tasks):
                return tasks
        return []

    def _baselines(self) -> list[Task]:
        return baseline_tasks(self._config) if self._is_table and self._ranked else []

    def _leaders(self) -> list[Task]:
        if self._is_table or not self._ranked:
            return []
        most = self._config.student.replicates.max
        points = leaders(self._store, self._record, self._trials, self._images)
        return [Task(LEADER, point, "search", 0, most) for point in points]

    def _choices(self) -> list[Task]:
        if self._best is None:
            return []
        rivals = lr_rivals(self._record, self._ranked)
        checks = lr_tasks(self._config, rivals) if rivals else []
        return choice_tasks(self._config, self._best, self._accurate) + checks

    def arms(self) -> dict[str, Source]:
        """What a confirmation compares, as far as is known by now; empty where there is none."""
        best = self._best
        if best is None:
            return {}
        wanted = self._config.confirm.arms
        arms: dict[str, Source] = {BEST: best}
        others = [r.point for r in self._ranked[1:] if not r.is_under_trained]
        for number, point in enumerate(others[: self._config.confirm.finalists - 1], 2):
            arms[f"{FINALIST}_{number}"] = point
        arms[ALONE] = Alone()
        if "label_smoothing" in wanted:
            arms[SMOOTHED] = chosen(self._store, self._record, smoothings())
        arms[ACCURATE] = self._accurate
        if "temperature" in wanted:
            arms[BEST_T] = chosen(self._store, self._record, at_temperatures(self._config, best))
            arms[ACCURATE_T] = chosen(self._store, self._record, at_temperatures(self._config, self._accurate))
        if "longest_teacher" in wanted:
            arms[LONGEST] = Point(best.batch_size, self._config.search.ladder[-1], best.others)
        if "economy" in wanted:
            arms[ECONOMY] = cheapest(self._store, self._record, self._ranked)
        return arms | (self._yours(best) if "your_teacher" in wanted else {})

    def _yours(self, best: Point) -> dict[str, Source]:
        """The arms of the teachers that were trained elsewhere for this data; their students as those of ``best``."""
        teachers = self._store.external_teachers.of_data(self._record.data_hash)
        return {
            YOURS + (f"_{i + 1}" if i else ""): ExternalPoint(t.weights, t.model, t.name, t.epochs, best.of_students)
            for i, t in enumerate(teachers)
        }


# -- doing ------------------------------------------------------------------------------------------------------------


class Companion:
    """The objective of a companion study: distills a task's students, and looks at the test split where it says so."""

    def __init__(self, record: StudyRecord, workplace: Workplace) -> None:
        self._record = record
        self._workplace = workplace

    @cached_property
    def _test(self) -> Labelled:
        return self._workplace.data.test()

    def suggest(self, trial: optuna.Trial) -> Task:
        """The task of a queued trial.

        Raises:
            RunError: for a trial of an earlier version.
        """
        trial.suggest_int(TASK_NUMBER, 0, MOST_TASKS - 1)
        if TASK not in trial.user_attrs:
            raise RunError("queued by an earlier version: another takes its place")
        return Task.from_json(trial.user_attrs[TASK])

    def run(self, trial: optuna.Trial, task: Task) -> float:
        """Optuna: the mean accuracy of the task's students, a fraction: on the test split if that is looked at."""
        visit = Visit(self._record.config, task.source, self._workplace, partial(trial.set_user_attr, "epochs_trained"))
        precision = self._record.config.student.precision

        def test(model: Any) -> NDArray[np.bool_] | None:
            return correctness(model, self._test, precision).cpu().numpy() if task.test_hash else None

        try:
            with memory_errors():
                visit.train_teacher()
                students = visit.train_students(task.purpose, task.replicates, test, task.test_hash)
        except (DivergedError, OutOfMemoryError) as error:
            trial.set_user_attr(HOPELESS, True)
            raise RunError(str(error)) from error
        except UserError as error:
            if not task.arm.startswith(YOURS):
                raise
            raise RunError(str(error)) from error  # a teacher from elsewhere that cannot teach: the others go on
        finally:
            visit.tell_spent(trial.set_user_attr)
        accuracies = [float(s.test_accuracy or 0.0) if task.test_hash else s.accuracy for s in students]
        trial.set_user_attr("replicate_accuracies", accuracies)
        return sum(accuracies) / len(accuracies)


# -- what came of it --------------------------------------------------------------------------------------------------


def outcomes(store: Store, record: StudyRecord, plan: Plan) -> dict[str, Outcomes]:
    """What the students of each arm got right; arms that lack any are left out."""
    found = {}
    for arm in plan.arms:
        tasks = plan.tasks(arm, record.config.teacher.seed)
        rows: list[NDArray[np.bool_]] = []
        units: list[int] = []
        for number, task in enumerate(tasks):
            key = distillation_at(record.config, record.data_hash, task.source).hash
            students = store.students.of([key], "confirm", plan.test_hash).get(key, [])
            has_fresh_teacher = plan.teachers > 0 and isinstance(task.source, Point)
            for student in students:
                if student.replicate in task.replicates and student.test_correct is not None:
                    rows.append(student.test_correct)
                    units.append(number if has_fresh_teacher else student.replicate)
        if len(rows) == sum(task.count for task in tasks):
            found[arm] = Outcomes(np.stack(rows), np.array(units))
    return found


def failed_arms(store: Store, record: StudyRecord, plan: Plan) -> dict[str, str]:
    """Which arms of a plan failed for good, and why."""
    return failures(store, record.name, plan.all_tasks(record.config.teacher.seed))


def is_complete(store: Store, record: StudyRecord, plan: Plan) -> bool:
    """Whether nothing of a plan is left to be done."""
    return not open_tasks(store, record, plan.all_tasks(record.config.teacher.seed))
