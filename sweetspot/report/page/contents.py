"""What a report is written from: a study's result, and what else the store and this machine know of it."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweetspot.config import StudyConfig
from sweetspot.report.points import PointSummary
from sweetspot.report.result import StudyResult, read_result
from sweetspot.report.sentences import without_path
from sweetspot.store import ClassSimilarity, Store
from sweetspot.study.search import load
from sweetspot.study.space import Point
from sweetspot.study.visit import recipe_at
from sweetspot.teacher.trajectory import branch_of

_PACKAGES = ("sweetspot", "torch", "torchvision", "optuna", "numpy")


@dataclass(frozen=True)
class Alike:
    """Two classes that a teacher finds alike.

    Attributes:
        response: mean response to images of either, on the other; a fraction.
    """

    one: str
    other: str
    response: float


@dataclass(frozen=True)
class Report:
    """A study as it stood when it was read.

    Attributes:
        data: what the study's record says of its images; may lack keys.
        similarity: of the best point's teacher, on training views, at the study's probe temperature.
        builds: the torch builds and instruction sets that trained the teachers of the answer.
        versions: of what writes the report, by name.
        machine: the system that writes it, in words; not its name.
        written: UTC.
    """

    result: StudyResult
    data: Mapping[str, Any]
    similarity: ClassSimilarity | None
    builds: tuple[str, ...]
    versions: Mapping[str, str]
    machine: str
    written: datetime

    @property
    def config(self) -> StudyConfig:
        """The study's, to be handed on: a path to its data is told by the last component alone."""
        config = self.result.config
        dataset = without_path(config.data.dataset)
        return config.model_copy(update={"data": config.data.model_copy(update={"dataset": dataset})})

    @property
    def best(self) -> PointSummary | None:
        """The best point so far."""
        return next((point for point in self.result.points if point.is_best), None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, as many as there are rows in the similarity where that is known."""
        named = self.result.classes
        count = len(named) if self.similarity is None else len(self.similarity.images)
        return tuple(named[k] if k < len(named) else str(k) for k in range(count))

    def alike(self, most: int) -> list[Alike]:
        """The pairs of classes that the best teacher finds most alike, the most alike first; ``most`` at most."""
        if self.similarity is None:
            return []
        names, both = self.classes, symmetric(self.similarity.matrix)
        rows, columns = np.triu_indices(len(names), k=1)
        known = np.isfinite(both[rows, columns])
        rows, columns = rows[known], columns[known]
        order = np.argsort(-both[rows, columns], kind="stable")[:most]
        return [
            Alike(names[i], names[j], round(float(both[i, j]), 7))
            for i, j in zip(rows[order], columns[order], strict=True)
        ]


def symmetric(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K, K): the mean of what images of k say of j and those of j of k; NaN where either has none."""
    wide = matrix.astype(np.float64)
    return np.asarray((wide + wide.T) / 2)


def read_report(store: Store, name: str | None) -> Report:
    """All of a study, or of the only one there is.

    Raises:
        UserError: if there is none of this name, or the name is left out and there are several.
    """
    result = read_result(store, name, with_curves=True)
    best = result.best
    return Report(
        result=result,
        data=load(store, result.name).user_attrs,
        similarity=None if best is None else _similarity(store, result, best.point),
        builds=_builds(store, result),
        versions=_versions(),
        machine=f"{platform.system()} {platform.release()}, {platform.machine()}",
        written=datetime.now(UTC).replace(tzinfo=None, microsecond=0),
    )


def _similarity(store: Store, result: StudyResult, point: Point) -> ClassSimilarity | None:
    recipe = recipe_at(result.config, result.record.data_hash, point)
    branch = branch_of(recipe, point.epochs)
    temperature = result.config.teacher.probe_temperature
    return store.trajectories.class_similarity(recipe.hash, branch, point.epochs, temperature)


def _builds(store: Store, result: StudyResult) -> tuple[str, ...]:
    points = [] if result.best is None else [result.best.point]
    if result.confirmation is not None:
        tasks = result.confirmation.plan.all_tasks(result.config.teacher.seed)
        points += [task.source for task in tasks if isinstance(task.source, Point)]
    recipes = {recipe_at(result.config, result.record.data_hash, point).hash for point in points}
    builds = {snapshot.build for recipe in recipes for snapshot in store.trajectories.of_recipe(recipe)}
    return tuple(sorted(builds - {""}))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # put on the path without being installed
            continue
    return found
