"""Housekeeping of the store: what lies in it, whether it is sound, and what can be freed."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from optuna.trial import TrialState

from sweetspot.store import TRUNK, DamagedBlobError, ExternalTeacher, Snapshot, Store, StudyRecord
from sweetspot.store.artifacts import StoredFile
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.trajectories import RUNS
from sweetspot.store.undelivered import left_blobs
from sweetspot.study.needs import Place, branches_under_way, needed_snapshots, used_networks
from sweetspot.study.search import companions, is_finished, load

LEFT_OVER_SECONDS = 3600
"""A blob without a row that is younger may be about to get one."""

Steps = Callable[[int], Callable[[], None]]
"""Told how many steps there will be; gives what is to be called after each."""


def _silent(steps: int) -> Callable[[], None]:
    return lambda: None


@dataclass(frozen=True)
class BranchListing:
    """A branch of a trajectory as it lies in the store.

    Attributes:
        recipe: its hash.
        values: the recipe itself.
        branch: 0 is the trunk; otherwise the epoch at which it ends.
        epochs: of its snapshots.
        goes_on_from: the epochs whose optimiser state is kept.
        checkpoint: (epoch, step) at which a run that was interrupted goes on.
        size: bytes of its blobs.
        used: when one of them last taught or was trained on from, or else was made (UTC).
        heading_for: the epoch to which a worker is extending it.
        studies: that have touched its recipe.
    """

    recipe: str
    values: dict[str, Any]
    branch: int
    epochs: tuple[int, ...]
    goes_on_from: tuple[int, ...]
    checkpoint: tuple[int, int] | None
    size: int
    used: datetime | None
    heading_for: int | None
    studies: tuple[str, ...]


def branches(store: Store) -> list[BranchListing]:
    """Every branch that has a snapshot, a checkpoint, or a worker at it, by recipe and branch."""
    sizes = {file.name: file.size for file in store.artifacts.files() if file.kind == "blob"}
    recipes = {name: json.loads(text) for name, text in store.trajectories.recipes().items()}
    snapshots: dict[tuple[str, int], list[Snapshot]] = {}
    for snapshot in sorted(store.trajectories.least_recently_used(), key=lambda s: s.epoch):
        snapshots.setdefault((snapshot.recipe, snapshot.branch), []).append(snapshot)
    checkpoints = {_branch_of(c): c for c in store.trajectories.checkpoints() if c.run.startswith(RUNS)}
    under_way = branches_under_way(store)
    used_by = {record.name: used_networks(store, record)[0] for record in store.studies.all()}
    used = store.trajectories.last_used()
    found = []
    for key in sorted(snapshots.keys() | checkpoints.keys() | under_way.keys()):
        recipe, branch = key
        if recipe not in recipes:
            continue
        kept, checkpoint = snapshots.get(key, []), checkpoints.get(key)
        names = {name for s in kept for name in (s.weights, s.optimizer)} | (
            {checkpoint.state} if checkpoint else set()
        )
        found.append(
            BranchListing(
                recipe=recipe,
                values=recipes[recipe],
                branch=branch,
                epochs=tuple(s.epoch for s in kept),
                goes_on_from=tuple(s.epoch for s in kept if s.optimizer),
                checkpoint=checkpoint.position if checkpoint else None,
                size=sum(sizes.get(name, 0) for name in names if name is not None),
                used=used.get(key),
                heading_for=under_way.get(key),
                studies=tuple(name for name, recipes_ in used_by.items() if recipe in recipes_),
            )
        )
    return found


def _branch_of(checkpoint: Checkpoint) -> tuple[str, int]:
    recipe, _, branch = checkpoint.run.removeprefix(RUNS).partition("/")
    return recipe, int(branch)


@dataclass(frozen=True)
class Usage:
    """Bytes in the artifacts by what they are, each blob counted once.

    Attributes:
        teachers: weights of snapshots.
        optimizers: what snapshots need to be trained on.
        students: weights of students.
        checkpoints: where interrupted runs go on.
        pictures: what dashboards show.
        left_over: what no row refers to, and what dying writers have left.
        quarantined: what was found damaged.
        free: what the disk has left; None where it is not a disk of this machine.
    """

    teachers: int
    optimizers: int
    students: int
    checkpoints: int
    pictures: int
    left_over: int
    quarantined: int
    free: int | None

    @property
    def total(self) -> int:
        networks = self.teachers + self.optimizers + self.students + self.checkpoints
        return networks + self.pictures + self.left_over + self.quarantined


def usage(store: Store) -> Usage:
    """What the artifacts take."""
    files = list(store.artifacts.files())
    snapshots = store.trajectories.least_recently_used()
    kinds = dict.fromkeys(store.students.blobs(), "students")
    kinds |= {c.state: "checkpoints" for c in store.trajectories.checkpoints()}
    kinds |= {s.optimizer: "optimizers" for s in snapshots if s.optimizer}
    kinds |= {s.weights: "teachers" for s in snapshots}
    kinds |= {t.weights: "teachers" for t in store.external_teachers.all()}
    sizes: Counter[str] = Counter()
    for file in files:
        of_kind = {"blob": kinds.get(file.name, "left_over"), "quarantine": "quarantined", "picture": "pictures"}
        sizes[of_kind.get(file.kind, "left_over")] += file.size
    return Usage(
        teachers=sizes["teachers"],
        optimizers=sizes["optimizers"],
        students=sizes["students"],
        checkpoints=sizes["checkpoints"],
        pictures=sizes["pictures"],
        left_over=sizes["left_over"],
        quarantined=sizes["quarantined"],
        free=store.artifacts.free_bytes(),
    )


@dataclass(frozen=True)
class Damage:
    """A blob that was found damaged.

    Attributes:
        blob: its name.
        what: whose it was.
        why: what is wrong with it.
        then: what comes of it.
    """

    blob: str
    what: str
    why: str
    then: str


@dataclass(frozen=True)
class Verification:
    """What a look at every blob has found.

    Attributes:
        checked: blobs that are sound.
        size: their bytes.
        damaged: those that are missing, or not what their names say.
    """

    checked: int
    size: int
    damaged: tuple[Damage, ...]


def verify(store: Store, steps: Steps = _silent) -> Verification:
    """Read every blob that a row refers to; what is damaged is put aside and forgotten, so that it is made again.

    Raises:
        ArtifactsError: if the artifacts as a whole cannot be read.
    """
    there = _Blobs(store)
    step = steps(len(there.owners))
    checked = size = 0
    damaged = []
    for name, owner in there.owners.items():
        try:
            size += len(store.artifacts.get(name))
            checked += 1
        except DamagedBlobError as error:
            if then := owner.forget():
                damaged.append(Damage(name, owner.what, str(error), then))
        step()
    return Verification(checked, size, tuple(damaged))


@dataclass(frozen=True)
class _Owner:
    """Whose a blob is, and how to do without it; ``forget`` gives what comes of it, or "" if it is not needed now."""

    what: str
    forget: Callable[[], str]


class _Blobs:
    """Every blob that a row refers to, with its owner."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.owners: dict[str, _Owner] = {}
        for name in store.students.blobs():
            self.owners[name] = _Owner("a student", partial(self._forget_student, name))
        for checkpoint in store.trajectories.checkpoints():
            self._add_checkpoint(checkpoint)
        for snapshot in store.trajectories.least_recently_used():
            self._add_snapshot(snapshot)
        for teacher in store.external_teachers.all():
            self._add_external(teacher)

    def _forget_student(self, name: str) -> str:
        self._store.students.forget_weights(name)
        return "its network is lost; what it has shown stays"

    def _add_checkpoint(self, checkpoint: Checkpoint) -> None:
        def forget() -> str:
            if self._store.trajectories.checkpoint(checkpoint.run) != checkpoint:
                return ""  # it has got further meanwhile
            self._store.trajectories.drop_checkpoint(checkpoint.run)
            return "that run goes on from an earlier point"

        what = f"the checkpoint at epoch {checkpoint.epoch}, step {checkpoint.step} of {checkpoint.run[:24]}"
        self.owners[checkpoint.state] = _Owner(what, forget)

    def _add_snapshot(self, snapshot: Snapshot) -> None:
        trajectories = self._store.trajectories
        branch = "" if snapshot.branch == TRUNK else f" of the branch to {snapshot.branch}"
        where = f"epoch {snapshot.epoch}{branch} of {snapshot.recipe[:12]}"

        def now() -> Snapshot | None:
            return trajectories.snapshot(snapshot.recipe, snapshot.branch, snapshot.epoch)

        def forget_weights() -> str:
            there = now()
            if there is None or there.weights != snapshot.weights:
                return ""
            trajectories.drop(snapshot)
            return "it is trained again when it is asked for"

        def forget_optimizer() -> str:
            there = now()
            if there is None or there.optimizer != snapshot.optimizer:
                return ""
            trajectories.drop_optimizer(snapshot)
            return "it still teaches; longer runs go on from an earlier epoch"

        self.owners[snapshot.weights] = _Owner(f"the teacher at {where}", forget_weights)
        if snapshot.optimizer is not None:
            self.owners[snapshot.optimizer] = _Owner(f"the optimiser of {where}", forget_optimizer)

    def _add_external(self, teacher: ExternalTeacher) -> None:
        store = self._store

        def forget() -> str:
            for snapshot in store.trajectories.least_recently_used():
                if snapshot.weights == teacher.weights:
                    store.trajectories.drop(snapshot)
            store.external_teachers.remove(teacher)
            return "it cannot be trained again: give it again, with sweetspot teacher add"

        self.owners[teacher.weights] = _Owner(f"your teacher {teacher.name}", forget)


@dataclass(frozen=True)
class Freed:
    """What was freed, or would be.

    Attributes:
        what: in words.
        size: bytes.
    """

    what: str
    size: int


@dataclass(frozen=True)
class Collection:
    """What a garbage collection has freed, or would free.

    Attributes:
        freed: in order.
        kept: bytes that remain.
        needed: why the snapshots that remain were not freed, with the number of each; empty without a limit.
    """

    freed: tuple[Freed, ...]
    kept: int
    needed: dict[str, int]

    @property
    def size(self) -> int:
        return sum(item.size for item in self.freed)


def collect(store: Store, max_size: int | None = None, *, dry_run: bool = False, steps: Steps = _silent) -> Collection:
    """Free what nothing refers to; and beyond ``max_size``, snapshots, the one that was used longest ago first.

    Never freed are trained students, and the snapshots of :func:`needed_snapshots`. Measurements stay, whatever is
    freed.

    Args:
        max_size: bytes that the blobs may take; None: snapshots and checkpoints are left alone.
        dry_run: say what would be freed, and free nothing.
    """
    files = list(store.artifacts.files())  # before the rows: what is written later is not in it
    sizes = {file.name: file.size for file in files if file.kind == "blob"}
    references = _references(store)
    left_over = list(_left_over(files, references))
    kept = sum(file.size for file in files) - sum(file.size for file in left_over)
    step = steps(len(left_over))
    freed = []
    for file in left_over:
        if dry_run or store.artifacts.remove_file(file):
            freed.append(Freed(f"{file.kind} {file.name[:12]}, which nothing refers to", file.size))
        step()
    needed: dict[str, int] = {}
    if max_size is not None:
        needs = needed_snapshots(store)
        for what, names, drop in _candidates(store, needs):
            if kept <= max_size:
                break
            size = 0
            for name in names:
                references[name] -= 1
                size += sizes.get(name, 0) if not references[name] else 0
            if not dry_run:
                drop()
            freed.append(Freed(what, size))
            kept -= size
        there = {Place.of(s) for s in store.trajectories.least_recently_used()}
        needed = dict(Counter(why for place, why in needs.items() if place in there))
    return Collection(tuple(freed), kept, needed if max_size is not None and kept > max_size else {})


def _references(store: Store) -> Counter[str]:
    """How many rows, and notes of work that could not be delivered, refer to each blob."""
    references = Counter(store.students.blobs())
    references.update(c.state for c in store.trajectories.checkpoints())
    references.update(left_blobs(store.artifacts))
    references.update(teacher.weights for teacher in store.external_teachers.all())
    for snapshot in store.trajectories.least_recently_used():
        references.update(name for name in (snapshot.weights, snapshot.optimizer) if name is not None)
    return references


def _left_over(files: Iterable[StoredFile], references: Counter[str]) -> Iterator[StoredFile]:
    for file in files:
        is_old = time.time() - file.modified > LEFT_OVER_SECONDS
        is_unused = file.kind == "partial" or (file.kind == "blob" and not references[file.name])
        if file.kind == "quarantine" or (is_old and is_unused):
            yield file


def _candidates(store: Store, needs: dict[Place, str]) -> Iterator[tuple[str, list[str], Callable[[], None]]]:
    """What may be freed for room, in order: what it is, its blobs, and what frees it.

    Checkpoints that no unfinished study can go on from come first, then snapshots of recipes that no study has touched,
    then the others; of each the one that was used longest ago.
    """
    touched: set[str] = set()
    unfinished: set[str] = set()
    for record in store.studies.all():
        recipes, distillations = used_networks(store, record)
        touched |= recipes
        if not _is_done(store, record):
            unfinished |= recipes | distillations
    unfinished |= {recipe for recipe, _ in branches_under_way(store)}
    for checkpoint in store.trajectories.checkpoints():
        whose = checkpoint.run.split("/")[1]
        if whose not in unfinished:
            what = f"the checkpoint at epoch {checkpoint.epoch}, step {checkpoint.step} of {whose[:12]}"
            yield what, [checkpoint.state], partial(store.trajectories.drop_checkpoint, checkpoint.run)
    snapshots = [s for s in store.trajectories.least_recently_used() if Place.of(s) not in needs]
    for snapshot in sorted(snapshots, key=lambda s: s.recipe in touched):
        names = [name for name in (snapshot.weights, snapshot.optimizer) if name is not None]
        what = f"the teacher at epoch {snapshot.epoch} of {snapshot.recipe[:12]}"
        yield what, names, partial(store.trajectories.drop, snapshot)


def _is_done(store: Store, record: StudyRecord) -> bool:
    """Whether a search has ended, and no task beside it is queued or under way."""
    if not is_finished(record, load(store, record.name).get_trials(deepcopy=False)):
        return False
    tasks = [t for name in companions(store, record.name) for t in load(store, name).get_trials(deepcopy=False)]
    return not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in tasks)
