"""The objective: bring a teacher to a point, measure its response, distill students, return their accuracy."""

from functools import partial
from pathlib import Path

import optuna
from optuna.trial import TrialState

from sweetspot.config import StudyConfig
from sweetspot.store import Measurement
from sweetspot.study.search import OUT_OF_MEMORY
from sweetspot.study.space import Point, suggest
from sweetspot.study.visit import Visit
from sweetspot.study.workplace import Workplace, open_workplace, resolved
from sweetspot.study_file import Draft, find
from sweetspot.training.device import devices
from sweetspot.training.engine import DivergedError, OutOfMemoryError, memory_errors


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
        fits = False
        try:
            with memory_errors():
                visit.train_teacher(lambda epoch, measurement: _report(trial, epoch, measurement))
                _describe_teacher(trial, visit)
                fits = True
                students = visit.train_students("search", range(self._wanted(trial, point)))
        except DivergedError as error:
            raise _infeasible(trial, f"{error} ({point})") from None
        except OutOfMemoryError as error:
            if not fits:
                trial.set_user_attr(OUT_OF_MEMORY, True)
            raise _infeasible(trial, f"out of memory ({point}): {error}") from None
        finally:
            visit.tell_spent(trial.set_user_attr)
        accuracies = [student.accuracy for student in students]
        trial.set_user_attr("replicate_accuracies", accuracies)
        return sum(accuracies) / len(accuracies)

    def _wanted(self, trial: optuna.Trial, point: Point) -> int:
        """Students this visit asks for: ``replicates.max`` more than the completed visits to the point have had."""
        finished = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        visits = sum(t.params == point.params for t in finished)
        return self.config.student.replicates.max * (visits + 1)


def _report(trial: optuna.Trial, epoch: int, measurement: Measurement) -> None:
    trial.report(measurement.values["similarity_entropy"], step=epoch)
    if trial.should_prune():
        trial.set_user_attr("pruned_at", epoch)
        # Without a last value of NaN, Optuna would take the similarity entropy for the pruned trial's value.
        trial.report(float("nan"), step=epoch + 1)
        raise optuna.TrialPruned(f"similarity entropy {measurement.values['similarity_entropy']:.3f} at epoch {epoch}")


def _describe_teacher(trial: optuna.Trial, visit: Visit) -> None:
    measured = visit.measurements()
    views = measured["train"].values
    trial.set_user_attr("steps", visit.steps)
    trial.set_user_attr("teacher_accuracy", measured["validation"].values["accuracy"])
    for name in ("similarity_entropy", "similarity_information", "delivered_similarity"):
        trial.set_user_attr(name, views[name])


def _infeasible(trial: optuna.Trial, reason: str) -> optuna.TrialPruned:
    trial.set_constraint("infeasible", 1.0)
    trial.set_user_attr("infeasible", reason)
    last = trial.study._storage.get_trial(trial._trial_id).last_step or 0
    trial.report(float("nan"), step=last + 1)
    return optuna.TrialPruned(reason)
