"""Ordering: which points would have to wait for a teacher that another worker trains."""

from collections.abc import Collection

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Leases, Snapshot
from sweetspot.store.trajectories import RUNS, TrajectoryStore, run_of
from sweetspot.study.space import Point
from sweetspot.study.visit import recipe_at
from sweetspot.teacher.trajectory import branch_of


class Ordering:
    """What the search sees of the trajectories at the moment of a claim, so that workers spread over them.

    A run is under way when another worker holds its lease, or is about to: a trial that runs at a point whose teacher
    is not there yet will take it as soon as its claim has ended.

    Args:
        data_hash: of the study's data.
    """

    def __init__(self, config: StudyConfig, data_hash: str, store: TrajectoryStore, leases: Leases) -> None:
        self._config = config
        self._data_hash = data_hash
        self._store = store
        self._leased = {RUNS + name for name in leases.held_by_others(RUNS)}
        self._snapshots: dict[str, list[Snapshot]] = {}
        self._missing: dict[Point, set[str]] = {}

    def must_wait(self, point: Point, running: Collection[Point]) -> bool:
        """Whether the teacher of ``point`` lies further on, on a run that another worker extends.

        Args:
            running: the points of the trials that other workers are at.
        """
        needed = self._missing_runs(point)
        if not needed:
            return False
        return bool(needed & self._leased) or any(needed & self._missing_runs(other) for other in running)

    def _missing_runs(self, point: Point) -> set[str]:
        """The runs that must be extended before the teacher of a point is there."""
        if point not in self._missing:
            self._missing[point] = self._look_up(point)
        return self._missing[point]

    def _look_up(self, point: Point) -> set[str]:
        recipe = recipe_at(self._config, self._data_hash, point)
        if recipe.hash not in self._snapshots:
            self._snapshots[recipe.hash] = self._store.of_recipe(recipe.hash)
        there = {(s.branch, s.epoch) for s in self._snapshots[recipe.hash]}
        own = branch_of(recipe, point.epochs)
        if (own, point.epochs) in there:
            return set()
        missing = {run_of(recipe.hash, own)}
        shared = recipe.schedule.shared_epochs(point.epochs)
        if shared and (TRUNK, shared) not in there:
            missing.add(run_of(recipe.hash, TRUNK))
        return missing
