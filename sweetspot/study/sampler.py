"""PointSampler: proposes each point once, whichever sampler chooses among those that are free."""

import itertools
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.data.seeding import seed_of
from sweetspot.study.cost_aware import next_point
from sweetspot.study.search import OUT_OF_MEMORY, is_given_back
from sweetspot.study.space import Point, distributions, point_of, points

T = TypeVar("T")

_PROPOSALS = 16
"""Proposals of the inner sampler before a free point is taken at random."""

_RANDOM_PROPOSALS = 1000
"""Random ones after those, where the space is continuous and what is proposed may not fit in memory."""
_CANDIDATES = 400
"""Random points among which the expected improvement chooses where the space is continuous."""

Space = dict[str, BaseDistribution]


class _TPESampler(TPESampler):
    """TPE in a space that is known: it need not be found out by comparing what all trials have."""

    def __init__(self, seed: int, space: Space) -> None:
        super().__init__(seed=seed, multivariate=True)
        self._known = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self._known


_INNER: dict[str, Callable[[int, Space], BaseSampler]] = {
    "tpe": _TPESampler,
    "random": lambda seed, space: RandomSampler(seed=seed),
}
"""Samplers of Optuna's, which make proposals."""
_PER_COST = {"gp": False, "cost-aware": True}
"""Those that choose among all free points by expected improvement: whether for what it costs."""


class PointSampler(BaseSampler):
    """Samples a whole point at once, never one that a trial has had.

    A point is free unless it is taken (finished, pruned, infeasible, running or waiting) or, as long as others are
    free, would wait for another worker. "gp" and "cost-aware" choose among the free ones
    (:mod:`sweetspot.study.cost_aware`). Optuna's samplers see the listed values by rank, so that neighbours are
    neighbours (batch sizes and ladders are geometric, so rank is a logarithm), and what they propose is refused where
    it is not free. Asked although every point is taken, a completed one is given more replicates. Seeded by the study's
    seed and the number of trials before this one, those given back not counted: a search with one worker repeats
    exactly, interrupted or not.

    Args:
        config: of the study.
        must_wait: tells of a point, and of the points of the trials that run, whether it would wait for a trajectory
            that another worker is extending.
        memory: of this study, kept from one claim to the next.
        trials: of the study, where they have just been read and nobody else can have asked for one since.
    """

    def __init__(
        self,
        config: StudyConfig,
        must_wait: Callable[[Point, list[Point]], bool] = lambda point, running: False,
        memory: "Memory | None" = None,
        trials: list[FrozenTrial] | None = None,
    ) -> None:
        self._trials = trials
        self._config = config
        self._space = distributions(config)
        self._must_wait = must_wait
        self._memory = memory or Memory(config)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        there = study.get_trials(deepcopy=False) if self._trials is None else self._trials
        trials = [t for t in there if t.number != trial.number]
        taken = self._memory.taken(trials)
        asked = sum(not is_given_back(t) for t in trials)
        seed = seed_of(self._config.seed, "sampler", asked) % 2**32
        free = None
        if (every := points(self._config)) is not None:
            free = [point for point in every if point not in taken]
            if not free:
                return random.Random(seed).choice(_revisited(trials) or every).params
            under_way = [t for t in trials if t.state == TrialState.RUNNING and self._space.keys() <= t.params.keys()]
            running = [Point.of(t.params) for t in under_way]
            unhindered = [point for point in free if not self._must_wait(point, running)]
            free = unhindered or free
        name = self._config.search.sampler
        if name in _PER_COST:
            drawn = (point for point in self._random(seed) if point not in taken)
            candidates = list(itertools.islice(drawn, _CANDIDATES)) if free is None else free
            images = study.user_attrs.get("train_images")
            return next_point(
                self._config, trials, candidates, seed, per_cost=_PER_COST[name], train_images=images
            ).params
        if name in _INNER:
            proposals = self._proposals(trials, seed)
            for proposal in proposals if free is None else itertools.islice(proposals, _PROPOSALS):
                if proposal in free if free is not None else proposal not in taken:
                    return proposal.params
        assert free is not None, "in a continuous space a random proposal is free sooner or later"
        return random.Random(seed).choice(free).params

    def _proposals(self, trials: list[FrozenTrial], seed: int) -> Iterable[Point]:
        """Points that the inner sampler proposes, given the trials so far by rank."""
        ranked = self._memory.ranked
        with _quiet():
            shadow = _shadow(self._memory.by_rank(trials), _INNER[self._config.search.sampler](seed, ranked))
            for _ in range(_PROPOSALS):
                asked = shadow.ask(ranked)
                yield Point.of(self._by_value(asked.params))
                shadow.tell(asked, state=TrialState.FAIL)  # forgotten: neither a result nor under way
        yield from self._random(seed)

    def _random(self, seed: int) -> Iterator[Point]:
        rng = random.Random(seed)
        for _ in range(_RANDOM_PROPOSALS):
            yield Point.of({name: _drawn(rng, distribution) for name, distribution in self._space.items()})

    def _by_value(self, params: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        for name, value in params.items():
            distribution = self._space[name]
            if _is_ordered(distribution) and isinstance(distribution, CategoricalDistribution):
                value = distribution.choices[value]
            values[name] = value
        return values

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        seed = seed_of(self._config.seed, "sampler", trial.number, param_name) % 2**32
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)


class Memory:
    """What claims work out of the trials of one study, remembered of those that have finished: they never change.

    Args:
        before: trials that there were when the study was last continued: points that failed then are free again.
    """

    def __init__(self, config: StudyConfig, before: int = 0) -> None:
        self._before = before
        self._space = distributions(config)
        self.ranked = {name: _ranked(distribution) for name, distribution in self._space.items()}
        self._seen: dict[int, FrozenTrial | None] = {}
        self._takes: dict[int, tuple[Point | None, Point | None]] = {}

    def by_rank(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """What the inner sampler is told of trials."""
        return [seen for trial in trials if (seen := _remembered(self._seen, trial, self._by_rank)) is not None]

    def taken(self, trials: Iterable[FrozenTrial]) -> "Taken":
        still = (t for t in trials if t.state != TrialState.FAIL or t.number >= self._before)
        return Taken(still, lambda trial: _remembered(self._takes, trial, _takes))

    def _by_rank(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Complete ones with value, the others as pruned or under way."""
        known = trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        if not known or not self._space.keys() <= trial.params.keys():
            return None
        complete = trial.state == TrialState.COMPLETE
        params = {name: _rank(self._space[name], trial.params[name]) for name in self.ranked}
        return optuna.trial.create_trial(
            state=trial.state, value=trial.value if complete else None, params=params, distributions=self.ranked
        )


def _remembered(known: dict[int, T], trial: FrozenTrial, work_out: Callable[[FrozenTrial], T]) -> T:
    if trial._trial_id in known:
        return known[trial._trial_id]
    value = work_out(trial)
    if trial.state.is_finished():
        known[trial._trial_id] = value
    return value


def _takes(trial: FrozenTrial) -> tuple[Point | None, Point | None]:
    """The point that a trial takes, and the point whose teacher it has found not to fit in memory."""
    point = point_of(trial)
    return None if is_given_back(trial) else point, point if OUT_OF_MEMORY in trial.user_attrs else None


class Taken:
    """The points that need no further trial.

    Finished, pruned, under way, waiting, or failed and not given back; and those whose teacher takes the same steps as
    one that did not fit in memory.
    """

    def __init__(
        self,
        trials: Iterable[FrozenTrial],
        takes_of: Callable[[FrozenTrial], tuple[Point | None, Point | None]] = _takes,
    ) -> None:
        takes = [takes_of(trial) for trial in trials]
        self._points = {point for point, _ in takes if point is not None}
        self._too_large = {_steps_of(point) for _, point in takes if point is not None}

    def __contains__(self, point: Point) -> bool:
        return point in self._points or _steps_of(point) in self._too_large

    def has_all(self, config: StudyConfig) -> bool:
        """Whether no point of a space is left."""
        every = points(config)
        if every is not None:
            return all(point in self for point in every)
        models = config.search.teacher.model or (None,)
        return all((size, model) in self._too_large for size in config.search.batch_size for model in models)


def _steps_of(point: Point) -> tuple[int, object]:
    """What decides about the memory that a teacher's step needs."""
    return point.batch_size, dict(point.others).get("teacher.model")


def _drawn(rng: random.Random, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return min(high, low * (high / low) ** rng.random())
    return rng.uniform(low, high)


def _revisited(trials: Iterable[FrozenTrial]) -> list[Point]:
    """The points that may have more replicates: completed ones, each once."""
    complete = (point_of(t) for t in trials if t.state == TrialState.COMPLETE)
    return list(dict.fromkeys(point for point in complete if point is not None))


def _is_ordered(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, CategoricalDistribution) and all(isinstance(c, int) for c in distribution.choices)


def _ranked(distribution: BaseDistribution) -> BaseDistribution:
    if isinstance(distribution, CategoricalDistribution) and _is_ordered(distribution):
        return IntDistribution(0, len(distribution.choices) - 1)
    return distribution


def _rank(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution) and _is_ordered(distribution):
        return distribution.choices.index(value)
    return value


def _shadow(trials: list[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    """A study in memory of these very trials: to check and copy thousands takes longer than to propose."""
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, direction="maximize", sampler=sampler)
    for number, trial in enumerate(trials):
        trial.number = trial._trial_id = number
        storage._trial_id_to_study_id_and_number[number] = study._study_id, number
    storage._studies[study._study_id].trials.extend(trials)
    storage._max_trial_id = len(trials) - 1
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna's messages about the shadow study."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
