"""What studies use of the networks in the store, and what they cannot do without."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.store import TRUNK, Leases, Snapshot, Store, StudyRecord
from sweetspot.store.trajectories import RUNS
from sweetspot.study.confirmation import current_plan
from sweetspot.study.ranking import ranking
from sweetspot.study.search import companions, is_finished, load
from sweetspot.study.space import Alone, AnyPoint, Point, Source, point_of
from sweetspot.study.tasks import is_task, task_of
from sweetspot.study.visit import distillation_at, recipe_at
from sweetspot.teacher.trajectory import branch_of


class Place(NamedTuple):
    """Where a snapshot lies: the recipe's hash, the branch, the epoch."""

    recipe: str
    branch: int
    epoch: int

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Place":
        return cls(snapshot.recipe, snapshot.branch, snapshot.epoch)


def used_networks(store: Store, record: StudyRecord) -> tuple[set[str], set[str]]:
    """The hashes of the recipes and distillations that a study has touched."""
    sources: set[Source] = {Alone(), *_sources(store, record)}
    recipes = {recipe_at(record.config, record.data_hash, s).hash for s in sources if not isinstance(s, Alone)}
    return recipes, {distillation_at(record.config, record.data_hash, source).hash for source in sources}


def needed_snapshots(store: Store) -> dict[Place, str]:
    """The snapshots that must not be freed, each with the reason.

    What was trained elsewhere, what a running or waiting trial needs, where a branch hangs that an unfinished study may
    yet train, what is being extended, and the teachers of what studies recommend.
    """
    needed: dict[Place, str] = {}
    there = _by_recipe(store)
    external = {teacher.weights for teacher in store.external_teachers.all()}
    for snapshot in (s for snapshots in there.values() for s in snapshots if s.weights in external):
        needed[Place.of(snapshot)] = "it was trained elsewhere"
    for record in store.studies.all():
        for place, why in _needed_by(store, record, there):
            needed.setdefault(place, why)
    for recipe, branch in branches_under_way(store):
        for snapshot in there.get(recipe, []):
            if snapshot.branch in (TRUNK, branch):
                needed.setdefault(Place.of(snapshot), "a worker is training on from it")
    return needed


def branches_under_way(store: Store) -> dict[tuple[str, int], int]:
    """The branches that workers are extending, as (recipe's hash, branch), with the epoch each is heading for."""
    held = Leases(store.database, "", 0, store.workers.has_ended).held_by_others(RUNS)
    return {(name.partition("/")[0], int(name.partition("/")[2])): epoch for name, epoch in held.items()}


def _by_recipe(store: Store) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for snapshot in store.trajectories.least_recently_used():
        found.setdefault(snapshot.recipe, []).append(snapshot)
    return found


def _needed_by(
    store: Store, record: StudyRecord, there: Mapping[str, Sequence[Snapshot]]
) -> Iterator[tuple[Place, str]]:
    config, data_hash = record.config, record.data_hash
    study = load(store, record.name)
    trials = study.get_trials(deepcopy=False)
    plan = current_plan(store, record.name)
    for source in plan.arms.values() if plan is not None else ():
        if not isinstance(source, Alone):
            yield _teacher(config, data_hash, source), f"the confirmation of {record.name} is about it"
    ranked = ranking(store, record, trials, study.user_attrs.get("train_images", 0) or 1)
    if ranked:
        yield _teacher(config, data_hash, ranked[0].point), f"the best point of {record.name}"
    for point in _under_way(store, record):
        for place in _way_to(config, data_hash, point, there):
            yield place, f"a trial of {record.name} is at it"
    if is_finished(record, trials):
        return
    visited = {p for p in _sources(store, record) if isinstance(p, Point)}
    for point in {Point(p.batch_size, e, p.others) for p in visited for e in config.search.ladder}:
        if (root := _branch_point(config, data_hash, point, there)) is not None:
            yield root, f"a branch of {record.name} hangs from it"


def _sources(store: Store, record: StudyRecord) -> set[Source]:
    """What the students of a study have learned from, or are to, its confirmation included."""
    sources = {source for trial in _trials(store, record) if (source := _source(trial)) is not None}
    plan = current_plan(store, record.name)
    return sources | {t.source for t in plan.all_tasks(record.config.teacher.seed)} if plan is not None else sources


def _under_way(store: Store, record: StudyRecord) -> set[AnyPoint]:
    """The teachers of the trials that run or wait, of the search and of its companion."""
    trials = [t for t in _trials(store, record) if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    sources = {source for trial in trials if (source := _source(trial)) is not None}
    return {source for source in sources if not isinstance(source, Alone)}


def _trials(store: Store, record: StudyRecord) -> list[FrozenTrial]:
    names = (record.name, *companions(store, record.name))
    return [trial for name in names for trial in load(store, name).get_trials(deepcopy=False)]


def _source(trial: FrozenTrial) -> Source | None:
    """What a trial's students learn from; None before that was suggested."""
    if is_task(trial):
        return task_of(trial).source
    return point_of(trial)


def _teacher(config: StudyConfig, data_hash: str, point: AnyPoint) -> Place:
    recipe = recipe_at(config, data_hash, point)
    return Place(recipe.hash, branch_of(recipe, point.epochs), point.epochs)


def _way_to(
    config: StudyConfig, data_hash: str, point: AnyPoint, there: Mapping[str, Sequence[Snapshot]]
) -> Iterator[Place]:
    """The teacher of a point, and the snapshots from which it may be trained on."""
    recipe = recipe_at(config, data_hash, point)
    own = branch_of(recipe, point.epochs)
    shared = recipe.schedule.shared_epochs(point.epochs)
    for snapshot in there.get(recipe.hash, []):
        limit = shared if snapshot.branch == TRUNK else point.epochs
        if snapshot.branch in (TRUNK, own) and snapshot.epoch <= limit:
            yield Place.of(snapshot)


def _branch_point(
    config: StudyConfig, data_hash: str, point: Point, there: Mapping[str, Sequence[Snapshot]]
) -> Place | None:
    """Where the branch of a point hangs from the trunk, if it is yet to be trained."""
    recipe = recipe_at(config, data_hash, point)
    own = branch_of(recipe, point.epochs)
    shared = recipe.schedule.shared_epochs(point.epochs)
    is_trained = any((s.branch, s.epoch) == (own, point.epochs) for s in there.get(recipe.hash, []))
    return None if own == TRUNK or is_trained or not shared else Place(recipe.hash, TRUNK, shared)
