"""Workers of one study on a simulated clock: study, sampler, store and leases are real, training is not.

A worker is a generator that yields what it does next: a number of seconds that pass, or a :class:`Poll`. Between two
looks at the database only such time passes, so that the workers of a simulation take turns in one process.
"""

import heapq
import math
import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import optuna

from sweetspot.config import StudyConfig
from sweetspot.data.seeding import seed_of
from sweetspot.store import TRUNK, Leases, Snapshot, Store
from sweetspot.store.trajectories import run_of
from sweetspot.study.ordering import Ordering
from sweetspot.study.sampler import PointSampler
from sweetspot.study.search import METRIC, open_study
from sweetspot.study.space import Point, suggest
from sweetspot.study.visit import recipe_at
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.trajectory import branch_of

POLL_SECONDS = 0.5
"""Between two looks of a worker that waits for another's teacher: that of :mod:`sweetspot.teacher.trajectory`."""

_DATA = "simulated"
_NOISE = 0.002
"""Standard deviation of the made-up accuracies."""


@dataclass(frozen=True)
class Costs:
    """What the simulated work takes.

    Attributes:
        images: of the training split.
        images_per_second: of a teacher in training.
        step_seconds: of a teacher's step beside its images, whatever the batch size.
        student_seconds: of a trial's students together, whatever the point.
    """

    images: int
    images_per_second: float
    step_seconds: float
    student_seconds: float

    def epoch_seconds(self, batch_size: int) -> float:
        """Of a teacher."""
        return self.images / self.images_per_second + self.images // batch_size * self.step_seconds


@dataclass(frozen=True)
class Outcome:
    """What became of one study; each worker's seconds.

    Attributes:
        waiting: for teachers that other workers trained.
        ended: when the last trial of each was over.
        trained, requested: teacher epochs, of all workers.
    """

    waiting: Sequence[float]
    ended: Sequence[float]
    trained: int
    requested: int

    @property
    def makespan(self) -> float:
        """Seconds from the first claim to the end of the last trial."""
        return max(self.ended)

    @property
    def waiting_fraction(self) -> float:
        """Of the workers' time."""
        return sum(self.waiting) / (len(self.waiting) * self.makespan)

    @property
    def idle_fraction(self) -> float:
        """Of the workers' time: waiting, or with no trial left to take while others are still at theirs."""
        left = sum(self.makespan - ended for ended in self.ended)
        return (sum(self.waiting) + left) / (len(self.waiting) * self.makespan)


@dataclass(frozen=True)
class Poll:
    """Look again every :data:`POLL_SECONDS`, counted from ``since``, until something happens to a run."""

    run: str
    since: float

    def next_look(self, now: float) -> float:
        return self.since + POLL_SECONDS * max(1, math.ceil((now - self.since) / POLL_SECONDS - 1e-9))


Process = Generator["float | Poll", None, None]


@dataclass
class Clock:
    """Simulated time, in seconds, and the processes that go on at some point of it.

    Looks at which nothing can have changed are left out: a process that polls goes on at its first look after
    something has happened to the run it waits for.
    """

    now: float = 0.0
    _due: list[tuple[float, int, Process]] = field(default_factory=list)
    _polling: list[tuple[Poll, Process]] = field(default_factory=list)
    _order: int = 0

    def run(self, processes: Sequence[Process]) -> None:
        """Run all to their ends."""
        for process in processes:
            self._resume(process, self.now)
        while self._due:
            self.now, _, process = heapq.heappop(self._due)
            step = next(process, None)
            if isinstance(step, Poll):
                self._polling.append((step, process))
            elif step is not None:
                self._resume(process, self.now + step)
        assert not self._polling, "somebody waits for what nobody does"

    def happened(self, run: str) -> None:
        """A snapshot has landed on a run, or its lease was freed."""
        for poll, process in self._polling:
            if poll.run == run:
                self._resume(process, poll.next_look(self.now))
        self._polling = [(poll, process) for poll, process in self._polling if poll.run != run]

    def _resume(self, process: Process, when: float) -> None:
        self._order += 1
        heapq.heappush(self._due, (when, self._order, process))


class Worker:
    """One worker of a simulated study.

    Args:
        tickets: one for each trial of the study, shared by its workers.

    Attributes:
        waiting: seconds so far.
        ended: when its last trial was over.
        trained, requested: teacher epochs so far.
    """

    def __init__(
        self,
        owner: str,
        study: optuna.Study,
        config: StudyConfig,
        store: Store,
        clock: Clock,
        costs: Costs,
        tickets: Iterator[int],
        *,
        ordered: bool,
    ) -> None:
        self._study = study
        self._tickets = tickets
        self._config = config
        self._store = store.trajectories
        # Nobody dies here, and whoever lives renews: no lease expires.
        self._leases = Leases(store.database, owner, math.inf, clock=lambda: clock.now)
        self._clock = clock
        self._costs = costs
        self._ordered = ordered
        self.waiting = 0.0
        self.ended = 0.0
        self.trained = 0
        self.requested = 0

    def work(self) -> Process:
        """Take trials until all of the study's are taken."""
        while (trial := self._claim()) is not None:
            point = suggest(trial, self._config)
            yield from self._bring_to(point)
            yield self._costs.student_seconds
            self._study.tell(trial, accuracy(self._config.seed, point, self._costs.images))
            self.requested += point.epochs
            self.ended = self._clock.now

    def _claim(self) -> optuna.Trial | None:
        """As :class:`sweetspot.study.jobs.Search` has it, or with a sampler that never sees the leases."""
        if next(self._tickets, None) is None:
            return None
        if self._ordered:
            ordering = Ordering(self._config, _DATA, self._store, self._leases)
            self._study.sampler = PointSampler(self._config, ordering.must_wait)
        else:
            self._study.sampler = PointSampler(self._config)
        return self._study.ask()

    def _bring_to(self, point: Point) -> Process:
        """As :meth:`sweetspot.teacher.trajectory.Trajectory.bring_to` does it."""
        recipe = recipe_at(self._config, _DATA, point)
        self._store.add_recipe(recipe.hash, recipe.json)
        shared = recipe.schedule.shared_epochs(point.epochs)
        if shared:
            yield from self._extend(recipe, TRUNK, shared)
        if shared < point.epochs:
            yield from self._extend(recipe, branch_of(recipe, point.epochs), point.epochs)

    def _extend(self, recipe: Recipe, branch: int, target: int) -> Process:
        run, since = run_of(recipe.hash, branch), self._clock.now
        while self._store.snapshot(recipe.hash, branch, target) is None:
            lease = self._leases.acquire(run, heading_for=target)
            if lease is None:
                yield Poll(run, since)
                continue
            self.waiting += self._clock.now - since
            with lease:
                there = [s.epoch for s in self._store.snapshots(recipe.hash, branch)]
                root = 0 if branch == TRUNK else recipe.schedule.shared_epochs(target)
                epoch = max(there, default=root)
                for kept in _kept(recipe, branch, target):
                    if kept > epoch:
                        yield (kept - epoch) * self._costs.epoch_seconds(recipe.batch_size)
                        self.trained += kept - epoch
                        epoch = kept
                        weights = self._store.artifacts.put(b"a teacher")
                        self._store.add(Snapshot(recipe.hash, branch, kept, weights, weights, True), [], lease)
                        self._clock.happened(run)
            self._clock.happened(run)
            return
        self.waiting += self._clock.now - since


def _kept(recipe: Recipe, branch: int, target: int) -> list[int]:
    """The epochs up to ``target`` at which snapshots land, as a trajectory keeps them."""
    ladder = recipe.config.search.ladder
    epochs = {*ladder, target}
    if branch == TRUNK:
        epochs |= set(map(recipe.schedule.shared_epochs, ladder))
    return sorted(epoch for epoch in epochs if epoch <= target)


def accuracy(seed: int, point: Point, images: int) -> float:
    """A made-up accuracy of a point's students: smooth in the steps, with a noise that is the point's own.

    How well a search ends is not the subject; the sampler must only have something to go by.
    """
    steps = point.epochs * (images // point.batch_size)
    noise = random.Random(seed_of(seed, "accuracy", point.batch_size, point.epochs)).gauss(0, _NOISE)
    return 0.7 - 0.01 * (math.log(steps / 20_000)) ** 2 - 0.005 * math.log2(point.batch_size / 128) ** 2 + noise


def simulate(config: StudyConfig, store: Store, workers: int, costs: Costs, *, ordered: bool) -> Outcome:
    """A whole search, without pruning.

    Args:
        store: a new one.
        ordered: whether the sampler sees the leases; without, it proposes as if every worker were alone.
    """
    clock = Clock()
    study = open_study(store, "simulated", METRIC)
    tickets = iter(range(config.search.trials))
    team = [Worker(f"worker {i}", study, config, store, clock, costs, tickets, ordered=ordered) for i in range(workers)]
    clock.run([worker.work() for worker in team])
    return Outcome(
        [worker.waiting for worker in team],
        [worker.ended for worker in team],
        sum(worker.trained for worker in team),
        sum(worker.requested for worker in team),
    )
