"""The objective: bring a teacher to a point, measure its response, distill students, return their accuracy."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import TrialState

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, LostLeaseError, Measurement, Probe, Store, Student
from sweetspot.study.findings import Findings
from sweetspot.study.racing import Race
from sweetspot.study.ranking import accuracies_of, rivals
from sweetspot.study.search import OUT_OF_MEMORY
from sweetspot.study.space import TEACHER_SEED, Point, distributions, suggest
from sweetspot.study.visit import Visit, recipe_at
from sweetspot.study.workplace import Workplace, open_workplace, resolved
from sweetspot.study_file import Draft, find
from sweetspot.teacher.trajectory import branch_of
from sweetspot.training.device import devices
from sweetspot.training.engine import DivergedError, OutOfMemoryError, memory_errors
from sweetspot.training.resume import StoppedError

_log = logging.getLogger(__name__)

ASKED_FOR = "replicates_asked"
"""The user attribute of a trial at a point that was visited before: how many students the point is to have."""


class Objective:
    """Trains a teacher at a point, distills students from it, and returns their mean validation accuracy.

    Usable in anybody's own study that maximises::

        study = optuna.create_study(direction="maximize", pruner=sweetspot.SimilarityEntropyPruner())
        study.optimize(sweetspot.Objective("digits"), n_trials=10)

    The trial's parameters are those of the configuration's ``[search]``. At each rung the similarity entropy is
    reported with the epoch as step. A teacher that is in the store is not trained again, nor is a student.

    Args:
        config: a configuration, or the name or path of a study file.
        storage, artifacts: where teachers and students are kept; by default as for the command line.
        data: the folder of the data set.
        device: "auto", "cpu", "cuda" or "cuda:0".
        workplace: what to work with instead of the four before.

    Raises:
        UserError: if the configuration, the storage, the data or the device is not to be had.
    """

    def __init__(
        self,
        config: StudyConfig | str,
        *,
        storage: str | None = None,
        artifacts: str | None = None,
        data: Path | None = None,
        device: str = "auto",
        workplace: Workplace | None = None,
    ) -> None:
        if isinstance(config, str):
            config = Draft.read(find(config)).config()
        self.config = resolved(config, devices(device)[0])
        self._race = Race.of(self.config)
        self.workplace = workplace or open_workplace(
            self.config, study="", storage=storage, artifacts=artifacts, data=data, device=device
        )

    def __call__(self, trial: optuna.Trial) -> float:
        """Optuna: the mean validation accuracy of the point's students, a fraction."""
        return self.run(trial, suggest(trial, self.config))

    def run(self, trial: optuna.Trial, point: Point) -> float:
        """Run ``trial`` at ``point``; what was measured and spent goes into its user attributes.

        Raises:
            optuna.TrialPruned: if the pruner says so; or if the loss is not finite, or memory runs out (attribute
                ``infeasible``).
        """
        visit = Visit(self.config, point, self.workplace, partial(trial.set_user_attr, "epochs_trained"))
        rungs: list[Measurement] = []
        try:
            students = self._work(trial, point, visit, rungs)
        except optuna.TrialPruned as pruned:
            self._tell(trial, point, visit, rungs, (), str(pruned))
            raise
        accuracies = [student.accuracy for student in students]
        trial.set_user_attr("replicate_accuracies", accuracies)
        self._tell(trial, point, visit, rungs, students, None)
        return sum(accuracies) / len(accuracies)

    def _work(self, trial: optuna.Trial, point: Point, visit: Visit, rungs: list[Measurement]) -> list[Student]:
        """Teacher and students of the point; ``rungs`` gets what was measured on the way."""

        def on_rung(epoch: int, measurement: Measurement) -> None:
            rungs.append(measurement)
            if epoch == point.epochs:
                _describe_teacher(trial, visit)  # before the pruner is asked, which may look at more than is reported
            _report(trial, epoch, measurement)

        fits = False
        try:
            with memory_errors():
                visit.train_teacher(on_rung)
                fits = True
                return self._students(trial, point, visit)
        except DivergedError as error:
            raise _infeasible(trial, f"{error} ({point})") from None
        except OutOfMemoryError as error:
            if not fits:
                trial.set_user_attr(OUT_OF_MEMORY, True)
            raise _infeasible(trial, f"out of memory ({point}): {error}") from None
        finally:
            visit.tell_spent(trial.set_user_attr)

    def _tell(
        self,
        trial: optuna.Trial,
        point: Point,
        visit: Visit,
        rungs: Sequence[Measurement],
        students: Sequence[Student],
        ended: str | None,
    ) -> None:
        """Tell whoever makes something of it for people what the trial has found; that may fail without harm."""
        there = self.workplace
        recipe = recipe_at(self.config, there.data.hash, point)
        epoch = rungs[-1].epoch if rungs else 0
        # On the way to the point's own epoch, only what its run shares with longer ones is reported.
        branch = branch_of(recipe, epoch) if epoch == point.epochs else TRUNK
        try:
            there.on_findings(
                trial,
                Findings(
                    point=point,
                    steps=visit.steps,
                    epoch=epoch,
                    measurements=_measured(there.store, recipe.hash, branch, rungs),
                    similarity=there.store.trajectories.class_similarity(
                        recipe.hash, branch, epoch, self.config.teacher.probe_temperature
                    ),
                    temperature=self.config.teacher.probe_temperature,
                    students=tuple(students),
                    classes=tuple(there.data.classes),
                    spent=visit.spent(),
                    ended=ended,
                ),
            )
        except (optuna.exceptions.UpdateFinishedTrialError, LostLeaseError, StoppedError):
            raise  # the trial is not this worker's any more, or is to be given back
        except Exception as error:
            _log.warning("trial %d has no note: %s: %s", trial.number, type(error).__name__, error)

    def _students(self, trial: optuna.Trial, point: Point, visit: Visit) -> list[Student]:
        """As many as the point earns in its race; for a point that was visited, ``replicates.max`` more than it has."""
        most = self.config.student.replicates.max
        if (teacher := dict(point.others).get(TEACHER_SEED)) is not None:
            # A table races nothing, and the students of each of its teachers are fresh ones.
            return visit.train_students("search", range(int(teacher) * most, (int(teacher) + 1) * most))
        names = distributions(self.config).keys()
        complete = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        there = [{name: t.params[name] for name in names} for t in complete if names <= t.params.keys()]
        visits = dict.fromkeys(map(Point.of, there))
        if point in visits:
            if (asked := _asked_for_before(trial)) is None:
                key = visit.distillation.hash
                asked = len(self.workplace.store.students.of([key], "search").get(key, ())) + most
            trial.set_user_attr(ASKED_FOR, asked)
            return visit.train_students("search", range(asked))
        students: list[Student] = []
        while (count := self._wanted(point, visits)) > len(students):
            students = visit.train_students("search", range(count))
        return students

    def _wanted(self, point: Point, visited: Iterable[Point]) -> int:
        """The students that ``point`` should have by now, in its race with those it may have to beat."""
        data = self.workplace.data
        points = rivals(self.config, point, visited, data.train_images)
        return self._race.wanted(accuracies_of(self.workplace.store, self.config, data.hash, points), point)


def _asked_for_before(trial: optuna.Trial) -> int | None:
    """The students that a trial was to have which was given back, and which this one repeats."""
    repeated = trial.storage.get_trial_system_attrs(trial._trial_id).get("retry_history", [])
    there = {t.number: t.user_attrs for t in trial.study.get_trials(deepcopy=False)} if repeated else {}
    return next((there[n][ASKED_FOR] for n in repeated if ASKED_FOR in there.get(n, {})), None)


def _report(trial: optuna.Trial, epoch: int, measurement: Measurement) -> None:
    trial.report(measurement.values["similarity_entropy"], step=epoch)
    if trial.should_prune():
        trial.set_user_attr("pruned_at", epoch)
        # Without a last value of NaN, Optuna would take the similarity entropy for the pruned trial's value.
        trial.report(float("nan"), step=epoch + 1)
        why = trial.storage.get_trial_user_attrs(trial._trial_id).get("pruned_because")
        entropy = measurement.values["similarity_entropy"]
        raise optuna.TrialPruned(why or f"similarity entropy {entropy:.3f} at epoch {epoch}")


def _measured(store: Store, recipe: str, branch: int, rungs: Sequence[Measurement]) -> dict[Probe, Measurement]:
    """What is known of the teacher at the last of ``rungs``."""
    if not rungs:
        return {}
    known = store.trajectories.measurements(recipe, branch, rungs[-1].temperature)
    return {probe: measurement for (epoch, probe), measurement in known.items() if epoch == rungs[-1].epoch}


def _describe_teacher(trial: optuna.Trial, visit: Visit) -> None:
    measured = visit.measurements()
    views = measured["train"].values
    trial.set_user_attr("steps", visit.steps)
    trial.set_user_attr("teacher_accuracy", measured["validation"].values["accuracy"])
    for name in ("similarity_entropy", "similarity_information", "delivered_similarity", "non_target_mass"):
        trial.set_user_attr(name, views[name])


def _infeasible(trial: optuna.Trial, reason: str) -> optuna.TrialPruned:
    trial.set_constraint("infeasible", 1.0)
    trial.set_user_attr("infeasible", reason)
    last = trial.study._storage.get_trial(trial._trial_id).last_step or 0
    trial.report(float("nan"), step=last + 1)
    return optuna.TrialPruned(reason)
