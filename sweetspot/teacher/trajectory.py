"""Trajectory: the training run of a recipe, grown epoch by epoch and never trained twice."""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from sweetspot.data.study_data import StudyData
from sweetspot.errors import RunError
from sweetspot.store.artifacts import ArtifactsError, DamagedBlobError
from sweetspot.store.lease import Lease, Leases, LostLeaseError
from sweetspot.store.outage import DatabaseDownError, patience
from sweetspot.store.trajectories import TRUNK, Measurement, Probe, Snapshot, TrajectoryStore, run_of
from sweetspot.store.url import shown
from sweetspot.teacher.measuring import PROBES, as_teacher, measure
from sweetspot.teacher.recipe import ExternalRecipe, Recipe
from sweetspot.teacher.saving import Saving, deliver_left
from sweetspot.teacher.training import TeacherTraining, network
from sweetspot.timing import span
from sweetspot.training.device import build_of
from sweetspot.training.resume import StoppedError
from sweetspot.training.weights import load_weights

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_TRIES = 4
"""So often a teacher that is damaged as soon as it is there is trained again."""
_ENDLESS = 10**9
"""The length of the trunk: longer than any run, so that no decay is in sight."""

OnRung = Callable[[int, Measurement], None]
"""(epoch, measurement on training views) at each rung, ascending; may raise to stop."""
OnEpoch = Callable[[str, int, float | None], None]
"""(phase, epoch, similarity entropy) while it trains or waits; may raise to stop."""


@dataclass
class Spent:
    """What a trajectory has cost its caller so far; true also when an exception ended the work."""

    epochs_reached: int = 0
    """The epoch up to which the teacher was brought, trained or found."""
    epochs_trained: int = 0
    training_seconds: float = 0.0
    measuring_seconds: float = 0.0
    waiting_seconds: float = 0.0


class LostTeacherError(RunError):
    """A teacher that was trained elsewhere is lost, and cannot be trained again."""


class _LostBranchPointError(Exception):
    """The end of the trunk from which a branch hangs is gone or damaged: the trunk must be grown again."""


class _Rungs:
    """Announces the rungs of one call, each once, ascending.

    Of the trunk those before the branch point; then those of the branch, whose end is the call's own epoch.
    """

    def __init__(self, ladder: tuple[int, ...], shared: int, total: int, on_rung: OnRung) -> None:
        self.of_trunk = {e for e in ladder if e < shared} | ({total} if shared == total else set())
        self.of_branch = {e for e in ladder if shared < e < total} | {total}
        self._last = 0
        self._on_rung = on_rung

    def announce(self, branch: int, measurement: Measurement) -> None:
        wanted = self.of_trunk if branch == TRUNK else self.of_branch
        if measurement.epoch in wanted and measurement.epoch > self._last:
            self._on_rung(measurement.epoch, measurement)
            self._last = measurement.epoch


@dataclass
class Trajectory:
    """Brings the teacher of a recipe to an epoch: from the store if it is there, else by training on under a lease.

    Attributes:
        ladder: epochs whose snapshots are kept, measured as they would teach, and announced.
        temperature: at which responses are measured.
        checkpoint_seconds: a checkpoint is saved when the last one, or the last snapshot, is older than this.
        on_saved: called when a snapshot or a checkpoint has landed: what was spent so far is not lost any more.
        should_stop: asked after each step, and while it waits: whether to save, and to raise ``StoppedError``.
    """

    recipe: Recipe
    data: StudyData
    store: TrajectoryStore
    leases: Leases
    device: torch.device
    ladder: tuple[int, ...]
    temperature: float
    checkpoint_seconds: float
    on_epoch: OnEpoch = lambda phase, epoch, entropy: None
    on_saved: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False
    spent: Spent = field(default_factory=Spent)
    _asked: dict[int, bool] = field(default_factory=dict, init=False)
    """Epochs of the branch under way that others ask for, as last heard."""

    def bring_to(self, epochs: int, on_rung: OnRung = lambda epoch, measurement: None) -> None:
        """Make sure that the teacher of ``epochs`` epochs is in the store, measured.

        ``on_rung`` is called for the rungs of the trunk before the branch point, then for those of the branch, and last
        for ``epochs`` itself.

        Raises:
            DivergedError: if its loss or its response is not finite.
            ArtifactsError: if a snapshot cannot be written, or none can be read.
        """
        self.store.add_recipe(self.recipe.hash, self.recipe.json)
        shared = self.recipe.schedule.shared_epochs(epochs)

        def reach(epoch: int, measurement: Measurement) -> None:
            self.spent.epochs_reached = max(self.spent.epochs_reached, epoch)
            on_rung(epoch, measurement)

        rungs = _Rungs(self.ladder, shared, epochs, reach)
        for _ in range(_TRIES):
            with suppress(_LostBranchPointError):
                if shared:
                    self._extend(TRUNK, shared, rungs, is_branch_point=shared < epochs)
                if shared < epochs:
                    self._extend(epochs, epochs, rungs, is_branch_point=False)
                self.spent.epochs_reached = epochs
                return
        raise self._does_not_read_back()

    def measurements(self, epochs: int) -> dict[Probe, Measurement]:
        """Of the teacher of ``epochs`` epochs, which is in the store."""
        known = self.store.measurements(self.recipe.hash, self.branch_of(epochs), self.temperature)
        return {probe: known[epochs, probe] for probe in PROBES}

    def teacher(self, epochs: int) -> nn.Module:
        """The teacher of ``epochs`` epochs as it teaches: BatchNorm recomputed, in evaluation mode.

        Trained again where its weights were damaged or freed since.
        """
        for _ in range(_TRIES):
            snapshot = self.store.snapshot(self.recipe.hash, self.branch_of(epochs), epochs)
            if snapshot is None:
                self.bring_to(epochs)
                continue
            try:
                teacher = self._as_teacher(self._model(snapshot))
            except DamagedBlobError as error:
                self._forget(snapshot, error)
                self.bring_to(epochs)
            else:
                self.store.use(snapshot)
                return teacher
        raise self._does_not_read_back()

    def _does_not_read_back(self) -> ArtifactsError:
        where = shown(self.store.artifacts.url)
        return ArtifactsError(f"what is written to the artifacts in {where} does not read back: check that disk")

    def branch_of(self, epochs: int) -> int:
        """The branch on which the teacher of ``epochs`` epochs lies."""
        return branch_of(self.recipe, epochs)

    # -- growing ------------------------------------------------------------------------------------------------------

    def _extend(self, branch: int, target: int, rungs: _Rungs, *, is_branch_point: bool) -> None:
        """Grow a branch to ``target``, or wait while another worker does; ``is_branch_point``: a branch hangs there."""

        def is_there(snapshots: list[Snapshot]) -> bool:
            found = next((s for s in snapshots if s.epoch == target), None)
            if found is None or (is_branch_point and not found.optimizer):
                return False
            return not is_branch_point or found.is_branch_point or self.store.make_branch_point(found)

        while not is_there(there := self._announce(branch, target, rungs)):
            if isinstance(self.recipe, ExternalRecipe):
                raise LostTeacherError(
                    f"the weights of the {self.recipe.config.teacher.model} that was trained elsewhere are damaged or "
                    "gone: give them again, with sweetspot teacher add"
                )
            self.store.ask_for(self.recipe.hash, branch, target, is_branch_point=is_branch_point)
            lease = self.leases.acquire(lease_name(self.recipe, branch), heading_for=target)
            if lease is None:
                if self.should_stop():
                    raise StoppedError
                self.on_epoch("waiting", there[-1].epoch if there else 0, None)
                with span("waiting"):
                    time.sleep(_POLL_SECONDS)
                self.spent.waiting_seconds += _POLL_SECONDS
                continue
            with lease:
                deliver_left(self.store, self.recipe.hash, branch, lease)
                # Another worker may have got there between the look and the lease.
                if not is_there(self._announce(branch, target, rungs)):
                    try:
                        self._train(branch, target, rungs, lease)
                    except LostLeaseError as error:
                        _log.warning("another worker took over %s: waiting for what it trains", error)

    def _announce(self, branch: int, target: int, rungs: _Rungs) -> list[Snapshot]:
        """Announce what is there up to ``target``, measuring what was not measured at this temperature.

        Returns:
            The snapshots up to ``target`` by rising epoch, without those that turned out to be damaged.
        """
        snapshots = [s for s in self.store.snapshots(self.recipe.hash, branch) if s.epoch <= target]
        known = self.store.measurements(self.recipe.hash, branch, self.temperature)
        wanted = rungs.of_trunk if branch == TRUNK else rungs.of_branch
        freed = wanted - {s.epoch for s in snapshots}
        there = []
        for snapshot in snapshots:
            for epoch in sorted(e for e in freed if e < snapshot.epoch):  # its measurement outlives a snapshot
                if (epoch, "train") in known and known[epoch, "train"].recomputed:
                    rungs.announce(branch, known[epoch, "train"])
            if snapshot.epoch in wanted:
                measurement = known.get((snapshot.epoch, "train"))
                if measurement is None or not measurement.recomputed:
                    try:
                        measurement = self._measure_again(snapshot, known)
                    except DamagedBlobError as error:
                        self._forget(snapshot, error)
                        continue
                rungs.announce(branch, measurement)
            there.append(snapshot)
        return there

    def _measure_again(self, snapshot: Snapshot, known: Mapping[tuple[int, Probe], Measurement]) -> Measurement:
        """Measure a stored snapshot as it teaches; what its training has cost stays as it is known."""
        measured = self._measured(self._as_teacher(self._model(snapshot)), snapshot.epoch, recomputed=True)
        old = [known.get((snapshot.epoch, m.probe)) for m in measured]
        measured = [
            replace(m, train_loss=o.train_loss, seconds=o.seconds) if o else m
            for m, o in zip(measured, old, strict=True)
        ]
        self.store.add_measurements(self.recipe.hash, snapshot.branch, measured)
        return measured[0]

    def _train(self, branch: int, target: int, rungs: _Rungs, lease: Lease) -> None:
        """Train a branch from the furthest point before ``target`` to ``target``."""
        training = self._start(branch, target)
        saving = Saving(
            self.store, self.recipe.hash, branch, lease, training, self.checkpoint_seconds,
            self.on_saved, lambda measurement: rungs.announce(branch, measurement), self.should_stop,
        )  # fmt: skip
        there = {s.epoch: s for s in self.store.snapshots(self.recipe.hash, branch)}
        self._asked = {}
        try:
            while training.epoch < target:
                self._train_epoch(branch, target, training, saving, there)
            saving.deliver()
            saving.tell()
            # After a snapshot that nobody goes on from; that of a longer run, which was interrupted, stays.
            reached = self.store.checkpoint(lease.name)
            if reached is not None and reached.epoch < target:
                self.store.drop_checkpoint(lease.name)
        except (DatabaseDownError, ArtifactsError, StoppedError):
            saving.leave_behind()
            raise

    def _train_epoch(
        self, branch: int, target: int, training: TeacherTraining, saving: Saving, there: Mapping[int, Snapshot]
    ) -> None:
        """Train the next epoch, measure it, and hand what is kept of it to ``saving``."""
        before = training.before
        loss, seconds = training.train_epoch(branch or _ENDLESS, saving.on_step)
        done = training.epoch
        self.spent.epochs_trained += 1
        self.spent.epochs_reached = max(self.spent.epochs_reached, done)
        self.spent.training_seconds += seconds - before
        kept = self._kept(branch, target)
        goes_on = kept.get(done, False) or (done > max(there, default=0) and done != branch)
        # One that is there stays, and so does what was measured of it, unless its optimiser is what is missing.
        is_new = done not in there or (goes_on and not there[done].optimizer)
        keep = done in kept and is_new
        responder = training.model
        if keep:
            with span("batchnorm"):
                responder = self._as_teacher(copy.deepcopy(training.model))
        now = self._measured(responder, done, recomputed=keep, train_loss=loss, seconds=seconds)
        if is_new:
            saving.measured(now)
        if keep:
            state = training.optimizer_state() if goes_on else None
            build = build_of(self.device)
            saving.keep(done, training.weights(), state, now[0], is_branch_point=kept[done], build=build)
        if done < target:
            saving.on_epoch()
        self.on_epoch("teacher", done, now[0].values["similarity_entropy"])
        saving.tell()

    def _kept(self, branch: int, target: int) -> dict[int, bool]:
        """The epochs of a branch whose snapshots are kept, with whether other runs may go on from them."""
        kept = dict.fromkeys((*self.ladder, target), False)
        if not self.store.outages.is_down:
            with suppress(DatabaseDownError), patience(0):
                self._asked = self.store.asked_for(self.recipe.hash, branch)
        kept |= self._asked
        if branch == TRUNK:
            kept |= dict.fromkeys(map(self.recipe.schedule.shared_epochs, self.ladder), True)
        return kept

    def _start(self, branch: int, target: int) -> TeacherTraining:
        """The training at the furthest point before ``target`` from which it can go on."""
        there = self.recipe, self.data, self.device
        snapshots = [s for s in self.store.snapshots(self.recipe.hash, branch) if s.epoch < target]
        checkpoint = self.store.checkpoint(lease_name(self.recipe, branch))
        if checkpoint and max((s.epoch for s in snapshots if s.optimizer), default=0) <= checkpoint.epoch < target:
            try:
                state = self.store.artifacts.get(checkpoint.state)
            except DamagedBlobError as error:
                _log.warning("%s: training epoch %d of %s again", error, checkpoint.epoch + 1, self.recipe.hash[:12])
                self.store.drop_checkpoint(checkpoint.run)
            else:
                seconds = float(checkpoint.detail["seconds"])
                return TeacherTraining.from_checkpoint(*there, checkpoint.epoch, checkpoint.step, state, seconds)
        if branch != TRUNK:
            shared = self.recipe.schedule.shared_epochs(branch)
            root = self.store.snapshot(self.recipe.hash, TRUNK, shared)
            snapshots = [root, *snapshots] if root else snapshots
            if shared and not any(s.optimizer for s in snapshots):
                raise _LostBranchPointError
        for point in reversed(snapshots):
            if point.optimizer is None:
                continue
            try:
                weights = self.store.artifacts.get(point.weights)
            except DamagedBlobError as error:
                self._forget(point, error)
            else:
                try:
                    state = self.store.artifacts.get(point.optimizer)
                except DamagedBlobError as error:
                    _log.warning("%s: %s cannot go on from epoch %d", error, self.recipe.hash[:12], point.epoch)
                    self.store.drop_optimizer(point)
                else:
                    self.store.use(point)
                    return TeacherTraining.from_snapshot(*there, point.epoch, weights, state)
            if point.branch != branch:
                raise _LostBranchPointError
        return TeacherTraining.fresh(*there)

    def _forget(self, snapshot: Snapshot, error: DamagedBlobError) -> None:
        _log.warning("%s: training epoch %d of %s again", error, snapshot.epoch, self.recipe.hash[:12])
        self.store.drop(snapshot)

    # -- networks and their measurements ------------------------------------------------------------------------------

    def _model(self, snapshot: Snapshot) -> nn.Module:
        content = self.store.artifacts.get(snapshot.weights)
        model = network(self.recipe, self.data, self.device)
        load_weights(model, content)
        return model

    def _as_teacher(self, model: nn.Module) -> nn.Module:
        started = time.monotonic()
        teacher = as_teacher(model, self.recipe, self.data, self.device)
        self.spent.measuring_seconds += time.monotonic() - started
        return teacher

    def _measured(
        self,
        model: nn.Module,
        epoch: int,
        *,
        recomputed: bool,
        train_loss: float | None = None,
        seconds: float | None = None,
    ) -> list[Measurement]:
        """Measurements on training views and on validation, in this order."""
        started = time.monotonic()
        measured = measure(
            model, self.recipe, self.data, epoch, self.temperature,
            recomputed=recomputed, train_loss=train_loss, seconds=seconds,
        )  # fmt: skip
        self.spent.measuring_seconds += time.monotonic() - started
        return measured


def branch_of(recipe: Recipe, epochs: int) -> int:
    """The branch on which the teacher of ``epochs`` epochs of a recipe lies."""
    return TRUNK if recipe.schedule.shared_epochs(epochs) == epochs else epochs


def lease_name(recipe: Recipe, branch: int) -> str:
    """The name of the lease under which a branch is extended."""
    return run_of(recipe.hash, branch)
