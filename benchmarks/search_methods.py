"""The methods that are compared: each pays on a clock of its own for what it asks a table, and chooses a point."""

import itertools
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from benchmarks.search_regret import Choice
from benchmarks.search_replay import Clock, Seen
from sweetspot.config import SearchConfig, SimilarityEntropyRule, StudyConfig
from sweetspot.study.inference import shrunken_means
from sweetspot.study.pruner import SimilarityEntropyPruner
from sweetspot.study.racing import Race, Rows
from sweetspot.study.ranking import rivals, steps_of
from sweetspot.study.sampler import Memory, PointSampler
from sweetspot.study.space import Point, suggest

Method = Callable[[Seen], list[Choice]]

LARGE = 100
"""Points of a grid from which on a tenth of the exhaustive cost is the goal, not a quarter."""
TIMEOUT = 0.7
"""Share of the cost that the goal allows after which a search starts no further trial: the last one takes its time, and
so do the students that the leaders lack."""

_DESCRIBED = ("similarity_entropy", "similarity_information", "delivered_similarity", "non_target_mass")
"""The user attributes of a trial that say what its teacher's response is, on training views."""


# -- searches of this project -----------------------------------------------------------------------------------------


def unpruned(config: StudyConfig) -> BasePruner:
    return NopPruner()


def learned(config: StudyConfig) -> BasePruner:
    """With the defaults of the project, whatever the table's study had."""
    return SimilarityEntropyPruner(**SimilarityEntropyRule().model_dump(exclude={"name"}), seed=config.seed)


def allowed(points: int) -> float:
    """The share of the exhaustive cost that the goal allows a search of so many points."""
    return 1 / 10 if points >= LARGE else 1 / 4


@dataclass(frozen=True)
class Search:
    """A search with this project's classes: sharing, a sampler, a pruner, a race; and ``optimize --timeout``.

    Args:
        sampler: ``search.sampler``; None: that of the configuration.
        pruner: made for each search.
        races: whether points begin with ``replicates.min`` students; otherwise all have ``replicates.max``.
        asks_ahead: whether the pruner is asked before the teacher is trained, and never after.
        visits_all: whether there are as many trials as points, and no timeout.
    """

    sampler: str | None = None
    pruner: Callable[[StudyConfig], BasePruner] = learned
    races: bool = True
    asks_ahead: bool = False
    visits_all: bool = False

    def __call__(self, seen: Seen) -> list[Choice]:
        config = seen.config
        if self.sampler is not None:
            search = config.search.model_copy(update={"sampler": self.sampler})
            config = config.model_copy(update={"search": search})
        study = optuna.create_study(direction="maximize", pruner=self.pruner(config))
        memory = Memory(config)
        visits = Visits(seen, races=self.races, asks_ahead=self.asks_ahead)
        points = len(seen.recording.points)
        timeout = math.inf if self.visits_all else TIMEOUT * allowed(points) * exhaustive(seen)[-1].seconds
        trials = points if self.visits_all else config.search.trials
        while len(visits.choices) < trials and not memory.taken(study.trials).has_all(config):
            if visits.choices and visits.seconds >= timeout:
                break
            study.sampler = PointSampler(config, memory=memory)
            trial = study.ask()
            visits.run(study, trial, suggest(trial, config))
        visits.finish()
        return visits.choices


def shared_grid(seen: Seen) -> list[Choice]:
    """Every point in order, with sharing and racing."""
    visits = Visits(seen)
    study = optuna.create_study(direction="maximize", pruner=NopPruner())
    for point in seen.recording.points:
        study.enqueue_trial(point.params)
        trial = study.ask()
        visits.run(study, trial, suggest(trial, seen.config))
    visits.finish()
    return visits.choices


class Visits:
    """The trials of one search, replayed, and what it would choose after each.

    Attributes:
        choices: so far; none before a student is there.
    """

    def __init__(self, seen: Seen, *, races: bool = True, asks_ahead: bool = False) -> None:
        self._seen = seen
        self._config = seen.config
        self._images = seen.recording.train_images
        replicates = seen.config.student.replicates
        self._race = Race.of(seen.config) if races else Race(replicates.max, replicates.max)
        self._asks_ahead = asks_ahead
        self._clock = Clock(seen.recording, seen.teacher_seed)
        self._rows: dict[Point, list[float]] = {}
        self.choices: list[Choice] = []

    @property
    def seconds(self) -> float:
        """Paid so far."""
        return self._clock.seconds

    def run(self, study: optuna.Study, trial: optuna.Trial, point: Point) -> None:
        """As :class:`sweetspot.study.objective.Objective` does it."""
        before = replace(self._clock)
        try:
            value = self._value(study, trial, point)
        except optuna.TrialPruned:
            self._tell_spent(trial, before)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            self._tell_spent(trial, before)
            study.tell(trial, value)
        self._note()

    def _tell_spent(self, trial: optuna.Trial, before: Clock) -> None:
        now = self._clock
        trained = now.teacher_epochs - before.teacher_epochs
        reached = trial.user_attrs.get("epochs_reached", 0)
        trial.set_user_attr("epochs_trained", trained)
        trial.set_user_attr("epochs_reused", max(0, reached - trained))
        trial.set_user_attr("student_epochs", now.student_epochs - before.student_epochs)
        seconds = {name: getattr(now, name) - getattr(before, name) for name in ("teacher", "measuring", "students")}
        trial.set_user_attr("seconds", seconds | {"waiting": 0.0})

    def finish(self) -> None:
        """The leaders are brought to ``replicates.max``."""
        while leaders := self._race.leaders(self._may_be_best() or self._rows):
            for leader in leaders:
                self._train(leader, self._race.maximum)
            self._note()

    def _value(self, study: optuna.Study, trial: optuna.Trial, point: Point) -> float:
        teacher = self._seen.teacher(point)
        if teacher is None:
            trial.set_constraint("infeasible", 1.0)
            trial.set_user_attr("infeasible", "the table has no students of it")
            raise optuna.TrialPruned
        trial.set_user_attr("steps", teacher.steps)
        if self._asks_ahead and study.pruner.prune(study, trial.storage.get_trial(trial._trial_id)):
            raise optuna.TrialPruned
        for epoch, similarity in self._clock.train(point):
            trial.set_user_attr("epochs_reached", epoch)
            if epoch == point.epochs:
                trial.set_user_attr("teacher_accuracy", teacher.validation["accuracy"])
                for name in _DESCRIBED:
                    trial.set_user_attr(name, teacher.views[name])
            trial.report(similarity, step=epoch)
            if not self._asks_ahead and trial.should_prune():
                trial.report(float("nan"), step=epoch + 1)  # as the objective does: no value for the sampler
                raise optuna.TrialPruned
        while (wanted := self._race.wanted(self._rivals(point), point)) > len(self._rows.get(point, ())):
            self._train(point, wanted)
        trial.set_user_attr("replicate_accuracies", self._rows[point])
        return float(np.mean(self._rows[point]))

    def _rivals(self, point: Point) -> Rows:
        return {p: self._rows.get(p, ()) for p in rivals(self._config, point, self._rows, self._images)}

    def _may_be_best(self) -> Rows:
        return {point: row for point, row in self._rows.items() if not self._is_under_trained(point)}

    def _is_under_trained(self, point: Point) -> bool:
        return steps_of(point, self._images) < self._config.search.min_steps

    def _train(self, point: Point, wanted: int) -> None:
        there = self._rows.setdefault(point, [])
        students = self._seen.students(point)[len(there) : wanted]
        for student in students:
            self._clock.train_student(student)
            there.append(student.accuracy)

    def _note(self) -> None:
        if self._rows:
            self.choices.append(Choice(self._clock.seconds, self._best(), self._clock.students))

    def _best(self) -> Point:
        """As :func:`sweetspot.study.ranking.ranking` has it: what may be called best first, then by shrunken mean."""
        points = list(self._rows)
        means = shrunken_means([self._rows[point] for point in points])

        def key(ranked: tuple[Point, float]) -> tuple[bool, bool, float, int]:
            point, mean = ranked
            is_settled = len(self._rows[point]) >= self._race.maximum
            return self._is_under_trained(point), not is_settled, -mean, steps_of(point, self._images)

        return min(zip(points, means, strict=True), key=key)[0]


# -- what people do without it ----------------------------------------------------------------------------------------


def plain_optuna(seen: Seen) -> list[Choice]:
    """Default TPE, MedianPruner on the student's validation accuracy, nothing shared; as many trials as points.

    Students are trained one after the other, and their epochs counted on. Both parameters are given as what they are,
    ordered, which is more than two lists of choices would tell TPE. A point that is proposed again is paid for again.
    """
    sizes, ladder = seen.config.search.batch_size, seen.config.search.ladder
    clock = Clock(seen.recording, seen.teacher_seed, shares=False, measures=False)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=seen.config.seed), pruner=MedianPruner())
    choices = []

    def objective(trial: optuna.Trial) -> float:
        size = sizes[trial.suggest_int("batch_size", 0, len(sizes) - 1)]
        point = Point(size, ladder[trial.suggest_int("epochs", 0, len(ladder) - 1)])
        if seen.teacher(point) is None:
            raise optuna.TrialPruned
        for _ in clock.train(point):
            pass
        students = seen.students(point)
        step = 0
        for student in students:
            for index, accuracy in enumerate(student.curve):
                step += 1
                trial.report(accuracy, step)
                if trial.should_prune():
                    clock.train_student(student, index + 1)
                    raise optuna.TrialPruned
            clock.train_student(student)
        trial.set_user_attr("point", [point.batch_size, point.epochs])
        return float(np.mean([student.accuracy for student in students]))

    for _ in seen.recording.points:
        study.optimize(objective, n_trials=1)
        if any(t.state == TrialState.COMPLETE for t in study.get_trials(deepcopy=False)):
            choices.append(Choice(clock.seconds, Point(*study.best_trial.user_attrs["point"])))
    return choices


def exhaustive(seen: Seen) -> list[Choice]:
    """Every point once, in a random order, with ``replicates.max`` students; nothing shared; the highest mean."""
    points = list(seen.recording.points)
    random.Random(seen.config.seed).shuffle(points)
    clock = Clock(seen.recording, seen.teacher_seed, shares=False, measures=False)
    best: tuple[float, Point] | None = None
    choices = []
    for point in points:
        for _ in clock.train(point):
            pass
        students = seen.students(point)
        for student in students:
            clock.train_student(student)
        mean = float(np.mean([student.accuracy for student in students]))
        if best is None or mean > best[0]:
            best = mean, point
        choices.append(Choice(clock.seconds, best[1]))
    return choices


def default_middle(seen: Seen) -> list[Choice]:
    """No search: the middle batch size (the smaller of two) at half of the longest epochs, or the nearest there is."""
    sizes, ladder = seen.config.search.batch_size, seen.config.search.ladder
    size = sizes[(len(sizes) - 1) // 2]

    def distance(point: Point) -> tuple[float, float]:
        return abs(np.log2(point.batch_size / size)), abs(point.epochs - ladder[-1] / 2)

    point = min(seen.recording.points, key=distance)
    clock = Clock(seen.recording, seen.teacher_seed, measures=False)
    return [_without_search(seen, clock, [point], point)]


def default_most_accurate(seen: Seen) -> list[Choice]:
    """No search: every trajectory to its end, and the teacher with the highest validation accuracy on the way."""
    points = seen.recording.points
    clock = Clock(seen.recording, seen.teacher_seed)

    def accuracy(point: Point) -> tuple[float, int]:
        teacher = seen.teacher(point)
        assert teacher is not None
        return teacher.validation["accuracy"], -teacher.steps

    return [_without_search(seen, clock, points, max(points, key=accuracy))]


def _without_search(seen: Seen, clock: Clock, teachers: Iterable[Point], chosen: Point) -> Choice:
    """The one student that is kept is all that is trained of students."""
    for point in teachers:
        for _ in clock.train(point):
            pass
    clock.train_student(seen.students(chosen)[0])
    return Choice(clock.seconds, chosen)


# -- all of them ------------------------------------------------------------------------------------------------------


METHODS: dict[str, Method] = {
    "sweetspot": Search(),
    "plain_optuna": plain_optuna,
    "random": Search("random", unpruned, races=False),
    "exhaustive": exhaustive,
    "shared_grid": shared_grid,
    "default_middle": default_middle,
    "default_most_accurate": default_most_accurate,
}

_SAMPLERS = [name for name in get_args(SearchConfig.model_fields["sampler"].annotation) if name != "grid"]
_PRUNERS = {"none": unpruned, "similarity-entropy": learned}

VARIANTS: dict[str, Method] = {
    f"{sampler}, {name}": Search(sampler, pruner)
    for sampler, (name, pruner) in itertools.product(_SAMPLERS, _PRUNERS.items())
}
"""Every sampler with and without the pruner, all of them racing."""
