"""Visit: the work at one point, whoever asks for it (a trial of the search, an arm of a confirmation)."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.exceptions import UpdateFinishedTrialError
from torch import nn

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Measurement, Probe, Snapshot, Store, Student
from sweetspot.store.outage import DatabaseDownError
from sweetspot.store.students import Purpose, student_runs
from sweetspot.store.trajectories import RUNS
from sweetspot.student.checkpoints import StudentCheckpoints
from sweetspot.student.distillation import DistillationRecipe, TrainedStudent, distill
from sweetspot.study.space import Alone, AnyPoint, ExternalPoint, Point, Source, config_at
from sweetspot.study.workplace import Workplace
from sweetspot.teacher.recipe import ExternalRecipe, Recipe
from sweetspot.teacher.trajectory import Trajectory

Test = Callable[[nn.Module], NDArray[np.bool_] | None]


def recipe_at(config: StudyConfig, data_hash: str, point: AnyPoint) -> Recipe:
    """The recipe of a point's teacher."""
    if isinstance(point, ExternalPoint):
        return ExternalRecipe(config_at(config, point), data_hash, config.student.batch_size, point.weights)
    return Recipe(config_at(config, point), data_hash, point.batch_size)


def distillation_at(config: StudyConfig, data_hash: str, source: Source) -> DistillationRecipe:
    """How the students of a source are trained."""
    if isinstance(source, Alone):
        return DistillationRecipe(config, data_hash, None, source.label_smoothing)
    return DistillationRecipe(
        config_at(config, source), data_hash, (recipe_at(config, data_hash, source).hash, source.epochs)
    )


def saved_of(store: Store, config: StudyConfig, data_hash: str, source: Source) -> str:
    """What the store has of the work at a source; it changes whenever that grows."""
    distillation = distillation_at(config, data_hash, source).hash
    runs: tuple[str, ...] = (student_runs(distillation),)
    snapshots: list[tuple[int, int]] = []
    if not isinstance(source, Alone):
        recipe = recipe_at(config, data_hash, source).hash
        runs += (f"{RUNS}{recipe}/",)
        snapshots = sorted((s.branch, s.epoch) for s in store.trajectories.of_recipe(recipe))
    places = [(c.run, *c.position) for c in store.trajectories.checkpoints() if c.run.startswith(runs)]
    there = snapshots, places, store.students.trained(distillation)
    return hashlib.sha256(repr(there).encode()).hexdigest()[:16]


def adopt(store: Store, recipe: Recipe, point: ExternalPoint) -> None:
    """Make the one snapshot of a teacher that was trained elsewhere known under its recipe."""
    store.trajectories.add_recipe(recipe.hash, recipe.json)
    store.trajectories.add_external(Snapshot(recipe.hash, TRUNK, point.epochs, point.weights))


class Visit:
    """One visit to what students learn from: its teacher where it has one, its students, its cost.

    Args:
        on_saved: told how many epochs it has trained of the teacher so far, whenever they cannot be lost any more.
    """

    def __init__(
        self,
        config: StudyConfig,
        source: Source,
        workplace: Workplace,
        on_saved: Callable[[int], None] = lambda epochs: None,
    ) -> None:
        self._workplace = workplace
        self._source = source
        self._point = point = None if isinstance(source, Alone) else source
        self._on_saved = on_saved
        self.config = config if point is None else config_at(config, point)
        self._trajectory: Trajectory | None = None
        self._student_epochs = 0
        self._student_seconds = 0.0
        if point is not None:
            self._trajectory = Trajectory(
                recipe_at(config, workplace.data.hash, point),
                workplace.data,
                workplace.store.trajectories,
                workplace.leases,
                workplace.device,
                self.config.search.ladder,
                self.config.teacher.probe_temperature,
                self.config.run.checkpoint_seconds,
                self._progress,
                lambda: on_saved(self.epochs_trained),
                workplace.should_stop,
            )

    @property
    def steps(self) -> int:
        """Of the teacher's training."""
        assert isinstance(self._point, Point)
        return self._point.epochs * (self._workplace.data.train_images // self._point.batch_size)

    def train_teacher(self, on_rung: Callable[[int, Measurement], None] = lambda epoch, measurement: None) -> None:
        """Bring the teacher to the point's epochs; nothing to do for the student alone."""
        if self._trajectory is not None and self._point is not None:
            self._workplace.responses.of(self.distillation.teacher)  # another's go before this one needs their memory
            if isinstance(self._point, ExternalPoint):
                adopt(self._workplace.store, self._trajectory.recipe, self._point)
            self._trajectory.bring_to(self._point.epochs, on_rung)

    def measurements(self) -> dict[Probe, Measurement]:
        """Of the teacher, which is trained."""
        assert self._trajectory is not None
        assert self._point is not None
        return self._trajectory.measurements(self._point.epochs)

    def train_students(
        self,
        purpose: Purpose,
        replicates: range,
        test: Test = lambda model: None,
        test_hash: str = "",
    ) -> list[Student]:
        """The students of these replicates, trained where they are not in the store.

        Args:
            purpose: "search" or "confirm".
            replicates: their indices.
            test: gives a trained student's correctness on the test split; None leaves the test split alone.
            test_hash: of that split's content.
        """
        store = self._workplace.store.students
        known = {
            s.replicate: s
            for s in store.of([self.distillation.hash], purpose, test_hash).get(self.distillation.hash, [])
        }
        missing = [replicate for replicate in replicates if replicate not in known]
        if missing:
            for student in self.distilled(purpose, missing):
                self._student_epochs += len(student.losses)
                self._student_seconds += student.seconds
                known[student.replicate] = self._record(student, purpose, test(student.model), test_hash)
        return [known[replicate] for replicate in replicates]

    @property
    def distillation(self) -> DistillationRecipe:
        return distillation_at(self.config, self._workplace.data.hash, self._source)

    def _record(
        self, student: TrainedStudent, purpose: Purpose, test_correct: NDArray[np.bool_] | None, test_hash: str
    ) -> Student:
        store = self._workplace.store.students
        row = Student(
            distillation=self.distillation.hash,
            purpose=purpose,
            replicate=student.replicate,
            study=self._workplace.study,
            accuracy=student.accuracy,
            curve={"loss": student.losses, "accuracy": student.accuracies},
            seconds=student.seconds,
            weights=store.artifacts.put(student.weights),
            test_correct=test_correct,
            test_hash=test_hash,
        )
        store.add(row)
        return row

    @property
    def epochs_trained(self) -> int:
        """Of the teacher, so far, by this visit."""
        return self._trajectory.spent.epochs_trained if self._trajectory is not None else 0

    def tell_spent(self, tell: Callable[[str, Any], None]) -> None:
        """Tell what this visit has cost so far, if that can be told: whatever ends it counts more."""
        with suppress(UpdateFinishedTrialError, DatabaseDownError):
            for key, value in self.spent().items():
                tell(key, value)

    def spent(self) -> dict[str, Any]:
        """What this visit has cost so far, as user attributes."""
        spent = self._trajectory.spent if self._trajectory is not None else None
        trained = self.epochs_trained
        # What was trained elsewhere was neither asked for here nor saved.
        reached = spent.epochs_reached if spent and not isinstance(self._point, ExternalPoint) else 0
        return {
            "epochs_reached": reached,
            "epochs_trained": trained,
            "epochs_reused": max(0, reached - trained),
            "student_epochs": self._student_epochs,
            "device": str(self._workplace.device),
            "seconds": {
                "teacher": spent.training_seconds if spent else 0.0,
                "measuring": spent.measuring_seconds if spent else 0.0,
                "waiting": spent.waiting_seconds if spent else 0.0,
                "students": self._student_seconds,
            },
        }

    def _progress(self, phase: str, epoch: int, similarity_entropy: float | None) -> None:
        self._workplace.on_progress(phase, self._point, epoch, similarity_entropy)

    def teacher(self) -> nn.Module:
        """The point's teacher as it teaches; trained again where its weights are lost."""
        assert self._trajectory is not None
        assert self._point is not None
        return self._trajectory.teacher(self._point.epochs)

    def distilled(self, purpose: Purpose, replicates: Sequence[int]) -> list[TrainedStudent]:
        """The students of these replicates, trained whether or not they are in the store; nothing is recorded."""
        is_taught = self._point is not None and self.config.student.alpha > 0
        teacher = self.teacher() if is_taught else None
        responses = self._workplace.responses.of(self.distillation.teacher) if is_taught else None
        checkpoints = StudentCheckpoints(
            self._workplace.store.students, self.distillation.hash, purpose, self.config.run.checkpoint_seconds,
            self._workplace.should_stop, lambda: self._on_saved(self.epochs_trained),
        )  # fmt: skip
        return distill(
            self.config, self._workplace.data, teacher, self.config.teacher.precision, replicates, purpose,
            self._workplace.device, self._progress, checkpoints,
            responses, self.distillation.label_smoothing,
        )  # fmt: skip
