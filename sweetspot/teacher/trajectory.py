"""Trajectory: the training run of a recipe, grown epoch by epoch and never trained twice."""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import StudyData
from sweetspot.models import build
from sweetspot.store.artifacts import DamagedBlobError
from sweetspot.store.lease import Lease, Leases
from sweetspot.store.trajectories import TRUNK, Measurement, Probe, Snapshot, TrajectoryStore
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.similarity import measure_response
from sweetspot.training.engine import DivergedError, epoch_order, recompute_batchnorm, respond, train_epoch
from sweetspot.training.optimizers import load_state_tensors, optimizer, state_tensors
from sweetspot.training.schedules import learning_rates
from sweetspot.training.weights import from_bytes, load_weights, to_bytes

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_PROBES: tuple[Probe, ...] = ("train", "validation")
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
            self._last = measurement.epoch
            self._on_rung(measurement.epoch, measurement)


@dataclass
class Trajectory:
    """Brings the teacher of a recipe to an epoch: from the store if it is there, else by training on under a lease.

    Attributes:
        ladder: epochs whose snapshots are kept, measured as they would teach, and announced.
        temperature: at which responses are measured.
        checkpoint_seconds: a point to resume from is saved when the last snapshot is older than this.
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
    spent: Spent = field(default_factory=Spent)

    def bring_to(self, epochs: int, on_rung: OnRung = lambda epoch, measurement: None) -> None:
        """Make sure that the teacher of ``epochs`` epochs is in the store, measured.

        ``on_rung`` is called for the rungs of the trunk before the branch point, then for those of the branch, and last
        for ``epochs`` itself.

        Raises:
            DivergedError: if its loss or its response is not finite.
            LostLeaseError: if this process was taken for dead and another trains on in its place.
        """
        self.store.add_recipe(self.recipe.hash, self.recipe.json)
        shared = self.recipe.schedule.shared_epochs(epochs)

        def reach(epoch: int, measurement: Measurement) -> None:
            self.spent.epochs_reached = max(self.spent.epochs_reached, epoch)
            on_rung(epoch, measurement)

        rungs = _Rungs(self.ladder, shared, epochs, reach)
        while True:
            with suppress(_LostBranchPointError):
                if shared:
                    self._extend(TRUNK, shared, rungs, continues=shared < epochs)
                if shared < epochs:
                    self._extend(epochs, epochs, rungs, continues=False)
                self.spent.epochs_reached = epochs
                return

    def measurements(self, epochs: int) -> dict[Probe, Measurement]:
        """Of the teacher of ``epochs`` epochs, which is in the store."""
        known = self.store.measurements(self.recipe.hash, self.branch_of(epochs), self.temperature)
        return {probe: known[epochs, probe] for probe in _PROBES}

    def teacher(self, epochs: int) -> nn.Module:
        """The teacher of ``epochs`` epochs as it teaches: BatchNorm recomputed, in evaluation mode.

        Trained again where its weights were damaged since.
        """
        while True:
            snapshot = self.store.snapshot(self.recipe.hash, self.branch_of(epochs), epochs)
            if snapshot is None:
                raise LookupError(f"the teacher of {epochs} epochs has not been trained")
            try:
                return self._as_teacher(self._model(snapshot))
            except DamagedBlobError as error:
                self._forget(snapshot, error)
                self.bring_to(epochs)

    def branch_of(self, epochs: int) -> int:
        """The branch on which the teacher of ``epochs`` epochs lies."""
        return branch_of(self.recipe, epochs)

    # -- growing ------------------------------------------------------------------------------------------------------

    def _extend(self, branch: int, target: int, rungs: _Rungs, *, continues: bool) -> None:
        """Grow a branch to ``target``, or wait while another worker does; ``continues``: a branch will hang from it."""

        def is_there(snapshots: list[Snapshot]) -> bool:
            return any(s.epoch == target and not s.resume_only and (s.optimizer or not continues) for s in snapshots)

        while True:
            there = self._announce(branch, target, rungs)
            if is_there(there):
                return
            lease = self.leases.acquire(lease_name(self.recipe, branch), heading_for=target)
            if lease is None:
                self.on_epoch("waiting", there[-1].epoch if there else 0, None)
                time.sleep(_POLL_SECONDS)
                self.spent.waiting_seconds += _POLL_SECONDS
                continue
            with lease:
                # Another worker may have got there between the look and the lease.
                if not is_there(self._announce(branch, target, rungs)):
                    self._train(branch, target, rungs, lease)

    def _announce(self, branch: int, target: int, rungs: _Rungs) -> list[Snapshot]:
        """Announce what is there up to ``target``, measuring what was not measured at this temperature.

        Returns:
            The snapshots up to ``target`` by rising epoch, without those that turned out to be damaged.
        """
        snapshots = [s for s in self.store.snapshots(self.recipe.hash, branch) if s.epoch <= target]
        known = self.store.measurements(self.recipe.hash, branch, self.temperature)
        wanted = rungs.of_trunk if branch == TRUNK else rungs.of_branch
        there = []
        for snapshot in snapshots:
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
        measured = self._measure(self._as_teacher(self._model(snapshot)), snapshot.epoch, recomputed=True)
        old = [known.get((snapshot.epoch, m.probe)) for m in measured]
        measured = [
            replace(m, train_loss=o.train_loss, seconds=o.seconds) if o else m
            for m, o in zip(measured, old, strict=True)
        ]
        self.store.add_measurements(self.recipe.hash, snapshot.branch, measured)
        return measured[0]

    def _train(self, branch: int, target: int, rungs: _Rungs, lease: Lease) -> None:
        """Train a branch from the last point that can be continued to ``target``."""
        teacher = self.recipe.config.teacher
        model, optim, first = self._start(branch, target)
        steps = self.data.train_images // self.recipe.batch_size
        kept = {*self.ladder, target}
        if branch == TRUNK:
            kept |= {self.recipe.schedule.shared_epochs(rung) for rung in self.ladder}
        seed = seed_of(self.recipe.config.seed, "teacher")
        labels = self.data.labels
        measured: list[Measurement] = []
        saved_at = time.monotonic()

        def loss_of(logits: Tensor, batch: Tensor) -> Tensor:
            return F.cross_entropy(logits.float(), labels[batch], label_smoothing=teacher.label_smoothing)

        for epoch in range(first, target):
            started = time.monotonic()
            loss = train_epoch(
                model,
                optim,
                self.data.views(seed, epoch),
                loss_of,
                learning_rates(self.recipe.schedule, self.recipe.lr, epoch, branch or _ENDLESS, steps),
                batch_size=self.recipe.batch_size,
                seed=seed,
                epoch=epoch,
                precision=teacher.precision,
            )
            seconds = time.monotonic() - started
            self.spent.epochs_trained += 1
            self.spent.epochs_reached = max(self.spent.epochs_reached, epoch + 1)
            self.spent.training_seconds += seconds
            done = epoch + 1
            keep = done in kept
            responder = self._as_teacher(copy.deepcopy(model)) if keep else model
            now = self._measure(responder, done, recomputed=keep, train_loss=loss, seconds=seconds)
            measured += now
            if keep or time.monotonic() - saved_at > self.checkpoint_seconds:
                self._save(branch, done, model, optim, measured, lease, resume_only=not keep)
                measured = []
                saved_at = time.monotonic()
            self.on_epoch("teacher", done, now[0].values["similarity_entropy"])
            if keep:
                rungs.announce(branch, now[0])

    def _start(self, branch: int, target: int) -> tuple[nn.Module, torch.optim.Optimizer, int]:
        """Model, optimiser and epoch of the last point before ``target`` that can be continued."""
        points = [s for s in self.store.snapshots(self.recipe.hash, branch) if s.optimizer and s.epoch < target]
        if branch != TRUNK:
            shared = self.recipe.schedule.shared_epochs(branch)
            root = self.store.snapshot(self.recipe.hash, TRUNK, shared)
            points = ([root] if root and root.optimizer else []) + points
            if shared and not points:
                raise _LostBranchPointError
        for point in reversed(points):
            try:
                model = self._model(point)
                optim = optimizer(model, self.recipe.config.teacher.optimizer)
                load_state_tensors(optim, model, from_bytes(self.store.artifacts.get(str(point.optimizer))))
            except DamagedBlobError as error:
                self._forget(point, error)
                if point.branch != branch:
                    raise _LostBranchPointError from None
                continue
            return model, optim, point.epoch
        torch.manual_seed(seed_of(self.recipe.config.seed, "teacher", "weights"))
        model = self._network()
        return model, optimizer(model, self.recipe.config.teacher.optimizer), 0

    def _save(
        self,
        branch: int,
        epoch: int,
        model: nn.Module,
        optim: torch.optim.Optimizer,
        measured: list[Measurement],
        lease: Lease,
        *,
        resume_only: bool,
    ) -> None:
        put = self.store.artifacts.put
        weights = put(to_bytes(model.state_dict()))
        state = None if epoch == branch else put(to_bytes(state_tensors(optim, model)))
        self.store.add(Snapshot(self.recipe.hash, branch, epoch, weights, state, resume_only), measured, lease)

    def _forget(self, snapshot: Snapshot, error: DamagedBlobError) -> None:
        _log.warning("%s: training epoch %d of %s again", error, snapshot.epoch, self.recipe.hash[:12])
        self.store.drop(snapshot)

    # -- networks and their measurements ------------------------------------------------------------------------------

    def _network(self) -> nn.Module:
        model = build(
            self.recipe.config.teacher.model,
            classes=len(self.data.classes),
            channels=self.data.channels,
            image_size=self.data.image_size,
        )
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _model(self, snapshot: Snapshot) -> nn.Module:
        content = self.store.artifacts.get(snapshot.weights)
        model = self._network()
        load_weights(model, content)
        return model

    def _as_teacher(self, model: nn.Module) -> nn.Module:
        """``model`` itself with BatchNorm recomputed on views fixed by the seed, in evaluation mode."""
        started = time.monotonic()
        seed = seed_of(self.recipe.config.seed, "batchnorm")
        # Mixed: a data set may be sorted by class, and the statistics are those of its first 100 batches.
        order = epoch_order(self.data.train_images, self.recipe.batch_size, seed, 0, self.device)
        views = self.data.views(seed, 0)[order]
        recompute_batchnorm(model, views, self.recipe.batch_size, self.recipe.config.teacher.precision)
        self.spent.measuring_seconds += time.monotonic() - started
        return model.requires_grad_(False)

    def _measure(
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
        rows = []
        for probe in _PROBES:
            images = self.data.train_probe if probe == "train" else self.data.validation
            logits = respond(model, images.images, self.recipe.config.teacher.precision)
            if not bool(logits.isfinite().all()):
                raise DivergedError(epoch, self.recipe.lr, "response")
            values = measure_response(logits, images.labels, self.temperature).scalars()
            rows.append(Measurement(epoch, self.temperature, probe, recomputed, values, train_loss, seconds))
        self.spent.measuring_seconds += time.monotonic() - started
        return rows


def branch_of(recipe: Recipe, epochs: int) -> int:
    """The branch on which the teacher of ``epochs`` epochs of a recipe lies."""
    return TRUNK if recipe.schedule.shared_epochs(epochs) == epochs else epochs


def lease_name(recipe: Recipe, branch: int) -> str:
    """The name of the lease under which a branch is extended."""
    return f"trajectory/{recipe.hash}/{branch}"
