"""What Optuna 5's studies and samplers do that others did not expect: that they still do, and that ours avoid it.

One test per trap; those of storages are in
tests/store/test_optuna_storage_traps.py. Where a test of Optuna's behaviour fails after an upgrade, the trap is gone or
has changed: look at our answer to it. Tested elsewhere:

- a result whose trial was taken away is dropped, Ctrl-C and a full disk give the trial back, an exception fails it and
  is not retried, exactly the total is run by however many workers: tests/study/test_claim.py
- a running trial without a worker, or whose worker died, is given back: tests/study/test_search.py, tests/workers
- a full search visits every point of a grid once, whichever the sampler: tests/study/test_sampler.py
- a pruned trial has no value, and NaN losses are pruned with a constraint and a reason: tests/study/test_objective.py
- choices are the true, sorted values: tests/study/test_space.py
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text
from tiny_study import tiny_config

from sweetspot.config import RunConfig
from sweetspot.data.study_data import StudyData
from sweetspot.errors import UserError
from sweetspot.store import Leases, Store
from sweetspot.store.artifacts import ArtifactsError
from sweetspot.study.claim import Outcome, run_next
from sweetspot.study.lost import sweep
from sweetspot.study.sampler import PointSampler
from sweetspot.study.search import GIVEN_BACK, create_or_continue
from sweetspot.study.space import Point, points, suggest
from sweetspot.study.workplace import Workplace
from sweetspot.training.resume import StoppedError

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage")

NAME = "traps"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """With heartbeats, as workers open it."""
    with Store(f"sqlite:///{tmp_path}/study.db", run=RunConfig(heartbeat_seconds=60, grace_seconds=900)) as opened:
        yield opened


@pytest.fixture
def workplace(store: Store, digits: StudyData) -> Workplace:
    leases = Leases(store.database, store.workers.register("cpu"), 60.0, store.workers.has_ended)
    return Workplace(NAME, store, leases, digits, torch.device("cpu"))


@pytest.fixture
def study(store: Store) -> optuna.Study:
    """In our storage; optimised directly, or by workers through :func:`run_next`."""
    return optuna.create_study(study_name=NAME, storage=store.database.storage, direction="maximize")


@dataclass
class Job:
    """Trials without end of a study of ours, with one parameter."""

    study: optuna.Study
    objective: Callable[[optuna.Trial], float] = lambda trial: 0.5
    parameters: tuple[str, ...] = ()
    pruner: BasePruner = NopPruner()  # noqa: RUF009 - it has no state

    def sampler(self, trials: list[FrozenTrial]) -> BaseSampler:
        return RandomSampler(seed=0)

    def wants_trial(self, trials: list[FrozenTrial]) -> bool:
        return True

    def saved(self, trial: FrozenTrial) -> str:
        return ""

    def suggest(self, trial: optuna.Trial) -> int:
        return trial.suggest_int("epochs", 1, 9)

    def run(self, trial: optuna.Trial, suggested: int) -> float:
        return self.objective(trial)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def raising(error: BaseException) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        raise error

    return objective


def taken_away(objective: Callable[[optuna.Trial], float]) -> Callable[[optuna.Trial], float]:
    """The objective of a worker that another one takes for dead meanwhile."""

    def then(trial: optuna.Trial) -> float:
        trial.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        return objective(trial)

    return then


# -- a trial that another process has failed --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError(), optuna.TrialPruned(), KeyboardInterrupt()], ids=repr)
def test_optimize_raises_a_value_error_of_its_own_although_every_exception_is_to_be_caught(
    study: optuna.Study, error: BaseException
) -> None:
    """In place of whatever the objective raised, Ctrl-C included."""
    with pytest.raises(ValueError, match="Cannot tell a FAIL trial"):
        study.optimize(taken_away(raising(error)), n_trials=1, catch=(Exception,))


def test_where_the_objective_returned_optimize_raises_an_assertion_error(study: optuna.Study) -> None:
    with pytest.raises(AssertionError, match="Should not reach") as caught:
        study.optimize(taken_away(lambda trial: 0.5), n_trials=1, catch=(Exception,))
    assert str(caught.value.__context__) == "Cannot tell a FAIL trial."


@pytest.mark.parametrize("error", [RuntimeError(), optuna.TrialPruned()], ids=repr)
def test_our_worker_goes_on_however_the_lost_trial_ended(
    workplace: Workplace, study: optuna.Study, error: Exception
) -> None:
    assert run_next(Job(study, taken_away(raising(error))), workplace) == Outcome.RAN
    assert run_next(Job(study), workplace) == Outcome.RAN
    assert states(study) == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        ArtifactsError("the disk is full"),
        StoppedError(),
        SystemExit(),
    ],
    ids=repr,
)
def test_our_worker_ends_if_it_was_to_end_while_its_trial_was_lost(
    workplace: Workplace, study: optuna.Study, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        run_next(Job(study, taken_away(raising(error))), workplace)
    assert states(study) == ["FAIL"], "whoever took it away gives it back"


# -- heartbeats, and trials that are left behind ----------------------------------------------------------------------


def beating(store: Store) -> list[int]:
    with store.database.engine.connect() as connection:
        return list(connection.scalars(text("select trial_id from trial_heartbeats")))


def test_our_trials_have_heartbeats_while_they_run(workplace: Workplace, study: optuna.Study) -> None:
    """Optuna records none outside of ``study.optimize``."""
    assert run_next(Job(study), workplace) == Outcome.RAN
    assert beating(workplace.store) == [study.trials[0]._trial_id]


def test_our_worker_gives_a_trial_back_that_exits(workplace: Workplace, study: optuna.Study) -> None:
    """Optuna leaves it running."""
    with pytest.raises(SystemExit):
        run_next(Job(study, raising(SystemExit())), workplace)
    assert states(study) == ["FAIL", "WAITING"]
    first, again = study.trials
    assert GIVEN_BACK in first.user_attrs
    assert again.params == first.params != {}


def test_a_trial_that_was_left_running_before_its_first_heartbeat_is_run_by_our_next_worker(
    workplace: Workplace, study: optuna.Study
) -> None:
    """Optuna leaves it running for ever."""
    left = study.ask()
    epochs = left.suggest_int("epochs", 1, 9)
    assert run_next(Job(study), workplace) == Outcome.RAN
    assert states(study) == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == {"epochs": epochs}


def test_a_trial_that_ours_gives_back_is_not_silent_when_it_is_taken_again(
    workplace: Workplace, study: optuna.Study
) -> None:
    """As it would be with its old heartbeat, were it set back to waiting."""
    store, worker = workplace.store, workplace.leases.owner
    silent = study.ask()
    silent.set_user_attr("worker", worker)
    silent.suggest_int("epochs", 1, 9)
    store.database.storage.record_heartbeat(silent._trial_id)
    with store.database.engine.begin() as connection:
        connection.execute(text("update trial_heartbeats set heartbeat = '2000-01-01 00:00:00'"))
    sweep(store, study)
    assert states(study) == ["FAIL", "WAITING"]
    study.ask().set_user_attr("worker", worker)
    sweep(store, study)
    assert states(study) == ["FAIL", "RUNNING"]


# -- how many trials --------------------------------------------------------------------------------------------------


def test_a_maximum_of_trials_is_overshot_by_workers_less_one(study: optuna.Study) -> None:
    all_run = threading.Barrier(3)

    def objective(trial: optuna.Trial) -> float:
        all_run.wait(60)
        return 0.5

    study.optimize(objective, n_jobs=3, callbacks=[MaxTrialsCallback(1)])
    assert states(study) == ["COMPLETE"] * 3


def test_n_trials_counts_per_call_of_optimize(study: optuna.Study, store: Store) -> None:
    for _ in range(2):  # as two processes would
        joined = optuna.load_study(study_name=NAME, storage=store.database.storage)
        joined.optimize(lambda trial: 0.5, n_trials=2)
    assert states(study) == ["COMPLETE"] * 4


def test_optimize_within_optimize_raises_on_one_study_object_and_not_on_two(study: optuna.Study, store: Store) -> None:
    def objective(trial: optuna.Trial) -> float:
        with pytest.raises(RuntimeError, match="Nested invocation"):
            study.optimize(lambda trial: 0.5, n_trials=1)
        loaded = optuna.load_study(study_name=NAME, storage=store.database.storage)
        loaded.optimize(lambda trial: 0.5, n_trials=1)
        return 0.5

    study.optimize(objective, n_trials=1)
    assert states(study) == ["COMPLETE"] * 2


# -- what samplers read -----------------------------------------------------------------------------------------------

SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
GRID: dict[str, BaseDistribution] = {
    "batch_size": CategoricalDistribution(SIZES),
    "epochs": CategoricalDistribution(LENGTHS),
}


def trial_at(
    batch_size: int, epochs: int, state: TrialState, value: float | None = None, **reported: Any
) -> FrozenTrial:
    params = {"batch_size": batch_size, "epochs": epochs}
    return create_trial(state=state, value=value, params=params, distributions=GRID, **reported)


COMPLETE = [trial_at(16 * 2**i, 2**j, TrialState.COMPLETE, 0.8 - 0.01 * (i + j)) for i in range(4) for j in range(4)]


def proposals(sampler: BaseSampler, trials: list[FrozenTrial], count: int = 10) -> list[dict[str, Any]]:
    """What a fresh sampler proposes, each forgotten at once."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    found = []
    for _ in range(count):
        asked = study.ask(GRID)
        found.append(asked.params)
        study.tell(asked, state=TrialState.FAIL)
    return found


def tpe(**options: Any) -> TPESampler:
    return TPESampler(seed=1, **options)


def gp() -> GPSampler:
    return GPSampler(seed=1, deterministic_objective=False)


def test_tpe_counts_running_trials_even_of_the_dead() -> None:
    stale = [trial_at(16, 1, TrialState.RUNNING)] * 10
    assert proposals(tpe(), COMPLETE + stale) != proposals(tpe(), COMPLETE)
    without = tpe(constant_liar=False), tpe(constant_liar=False)
    assert proposals(without[0], COMPLETE + stale) == proposals(without[1], COMPLETE)


def test_our_sampler_is_not_told_of_dead_workers_trials(workplace: Workplace, study: optuna.Study) -> None:
    told: list[list[Point]] = []
    config = tiny_config()

    def must_wait(point: Point, running: list[Point]) -> bool:
        told.append(running)
        return False

    class Points(Job):
        def sampler(self, trials: list[FrozenTrial]) -> BaseSampler:
            return PointSampler(config, must_wait)

        def suggest(self, trial: optuna.Trial) -> Any:
            return suggest(trial, config)

    left = suggest(study.ask(), config)
    assert run_next(Points(study), workplace) == Outcome.RAN
    assert Point.of(study.trials[1].params) == left
    assert told == []
    assert run_next(Points(study), workplace) == Outcome.RAN
    assert told
    assert all(running == [] for running in told)


def test_tpe_proposes_points_again_on_a_small_grid() -> None:
    def objective(trial: optuna.Trial) -> float:
        batch_size, epochs = (
            trial.suggest_categorical("batch_size", SIZES),
            trial.suggest_categorical("epochs", LENGTHS),
        )
        return -abs(batch_size - 64) / 64 - abs(epochs - 8) / 8

    study = optuna.create_study(direction="maximize", sampler=tpe())
    study.optimize(objective, n_trials=64)
    assert len({Point.of(trial.params) for trial in study.trials}) < 48


@pytest.mark.parametrize("sampler", [tpe, gp])
def test_samplers_read_no_failed_trials_and_propose_their_points_again(sampler: Callable[[], BaseSampler]) -> None:
    (first,) = proposals(sampler(), COMPLETE, 1)
    failed = trial_at(first["batch_size"], first["epochs"], TrialState.FAIL)
    assert proposals(sampler(), [*COMPLETE, failed], 1) == [first]


def test_tpe_reads_pruned_trials_and_gp_does_not() -> None:
    pruned = [trial_at(16, 1, TrialState.PRUNED)] * 10
    assert proposals(tpe(), COMPLETE + pruned) != proposals(tpe(), COMPLETE)
    assert proposals(gp(), COMPLETE + pruned, 2) == proposals(gp(), COMPLETE, 2)


def test_gp_counts_running_trials_too() -> None:
    (first,) = proposals(gp(), COMPLETE, 1)
    running = trial_at(first["batch_size"], first["epochs"], TrialState.RUNNING)
    assert proposals(gp(), [*COMPLETE, running], 1) != [first]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_our_sampler_never_proposes_a_point_again_that_failed_or_was_infeasible(sampler: str) -> None:
    config = tiny_config(search__sampler=sampler, search__batch_size=[16, 32, 64], search__epochs=[1, 2, 4, 8])

    def objective(trial: optuna.Trial) -> float:
        point = suggest(trial, config)
        if point.batch_size == 16:
            raise RuntimeError
        if point.batch_size == 32:
            trial.set_constraint("infeasible", 1.0)
            raise optuna.TrialPruned
        return 0.5 + 0.01 * point.epochs

    study = optuna.create_study(direction="maximize", sampler=PointSampler(config))
    study.optimize(objective, n_trials=12, catch=(RuntimeError,))
    assert {Point.of(trial.params) for trial in study.trials} == set(points(config) or [])


# -- pruned trials ----------------------------------------------------------------------------------------------------


def pruning(*reports: float) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        for step, value in enumerate(reports, start=1):
            trial.report(value, step)
        raise optuna.TrialPruned

    return objective


def test_what_a_pruned_trial_reported_last_becomes_its_value(study: optuna.Study) -> None:
    study.optimize(pruning(2.1, 1.9), n_trials=1)
    assert study.trials[0].value == 1.9


def test_it_has_no_value_if_nan_was_reported_last(study: optuna.Study) -> None:
    study.optimize(pruning(2.1, 1.9, float("nan")), n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].value is None


def reported(entropies: Iterable[float]) -> list[FrozenTrial]:
    """Four pruned trials at each batch size, from small to large, with what they reported last."""
    return [
        trial_at(16 * 2**i, 1, TrialState.PRUNED, entropy, intermediate_values={1: entropy})
        for i, entropy in enumerate(entropies)
        for _ in range(4)
    ]


FALLING = reported(1.9 - 0.2 * i for i in range(8))
RISING = reported(0.5 + 0.2 * i for i in range(8))


def test_tpe_ranks_pruned_trials_by_what_they_reported_last() -> None:
    """Among themselves: those that are complete come before all of them."""
    by_falling = [point["batch_size"] for point in proposals(tpe(), FALLING, 20)]
    by_rising = [point["batch_size"] for point in proposals(tpe(), RISING, 20)]
    assert by_falling.count(16) > 10 > by_falling.count(2048)
    assert by_rising.count(2048) > 10 > by_rising.count(16)
    assert proposals(tpe(), COMPLETE + FALLING) == proposals(tpe(), COMPLETE + RISING)


def test_our_sampler_tells_tpe_nothing_of_what_pruned_trials_reported() -> None:
    config = tiny_config(
        search__sampler="tpe",
        search__batch_size=SIZES,
        search__epochs=LENGTHS,
    )

    def proposed(trials: list[FrozenTrial]) -> dict[str, Any]:
        study = optuna.create_study(direction="maximize", sampler=PointSampler(config))
        study.add_trials(trials)
        return suggest(study.ask(), config).params

    for asked in range(5):  # the number of trials is part of the seed
        assert proposed(FALLING + COMPLETE[:asked]) == proposed(RISING + COMPLETE[:asked])


# -- the space --------------------------------------------------------------------------------------------------------


def test_choices_cannot_be_changed_while_a_study_continues(study: optuna.Study) -> None:
    study.optimize(lambda trial: trial.suggest_categorical("batch_size", [32, 64]) / 64, n_trials=1)
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        study.optimize(lambda trial: trial.suggest_categorical("batch_size", [32, 64, 128]) / 128, n_trials=1)


@pytest.mark.parametrize("change", [{"search__batch_size": [64, 128, 256]}, {"search__epochs": [1, 2, 4]}])
def test_ours_refuses_other_choices_before_a_trial_is_asked_for(
    store: Store, digits: StudyData, change: dict[str, Any]
) -> None:
    create_or_continue(store, "tiny", tiny_config(), digits)
    key = next(iter(change)).replace("__", r"\.")
    with pytest.raises(UserError, match=f"exists with another configuration: .*{key}"):
        create_or_continue(store, "tiny", tiny_config(**change), digits)
