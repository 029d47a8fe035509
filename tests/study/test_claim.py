from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from tiny_study import tiny_config

from sweetspot.config import StudyConfig
from sweetspot.store import Leases, Store
from sweetspot.store.artifacts import ArtifactsError
from sweetspot.study.claim import Outcome, claim_lease, run_next
from sweetspot.study.deletion import delete_study
from sweetspot.study.jobs import FAILED, FULL, Search
from sweetspot.study.search import GIVEN_BACK, Counts, create_or_continue, load
from sweetspot.study.space import Point
from sweetspot.study.workplace import Workplace


class Simulated(Search):
    """The search of a study in which the training is simulated: who gets which trial is the subject here."""

    def __init__(self, workplace: Workplace, train: Callable[[optuna.Trial, Point], float]) -> None:
        record = workplace.store.studies.get("tiny")
        assert record is not None
        super().__init__(record, workplace)
        self._train = train

    def run(self, trial: optuna.Trial, suggested: Point) -> float:
        return self._train(trial, suggested)


def search(
    workplace: Workplace,
    train: Callable[[optuna.Trial, Point], float] = lambda trial, point: 0.5,
    config: StudyConfig | None = None,
) -> Simulated:
    create_or_continue(workplace.store, "tiny", config or tiny_config(), workplace.data)
    return Simulated(workplace, train)


def another(workplace: Workplace) -> Workplace:
    """A second worker on the same store."""
    store = workplace.store
    leases = Leases(store.database, store.workers.register("cpu"), 60.0, store.workers.has_ended)
    return Workplace("tiny", store, leases, workplace.data, workplace.device)


def trials(store: Store) -> list[optuna.trial.FrozenTrial]:
    return load(store, "tiny").trials


def test_exactly_the_total_is_run(workplace: Workplace) -> None:
    job = search(workplace)
    outcomes = [run_next(job, workplace) for _ in range(5)]
    assert outcomes == [Outcome.RAN] * 4 + [Outcome.DONE]
    assert Counts.of(trials(workplace.store)).finished == 4


def test_raising_the_total_continues_and_never_repeats_a_point(workplace: Workplace) -> None:
    job = search(workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    create_or_continue(workplace.store, "tiny", tiny_config(search__trials=6), workplace.data)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    points = [Point.of(t.params) for t in trials(workplace.store)]
    assert len(points) == len(set(points)) == 6


def test_a_full_space_ends_the_search_and_says_so(workplace: Workplace) -> None:
    job = search(workplace, config=tiny_config(search__trials=50))
    while run_next(job, workplace) == Outcome.RAN:
        pass
    record = workplace.store.studies.get("tiny")
    assert record is not None
    assert record.ended == FULL
    assert Counts.of(trials(workplace.store)).complete == 6


def test_the_claim_ends_when_the_parameters_are_suggested(workplace: Workplace) -> None:
    other = another(workplace)
    taken = []

    def train(trial: optuna.Trial, point: Point) -> float:
        if not taken:  # while this trial trains, another worker takes the next one
            taken.append(True)
            assert run_next(search(other), other) == Outcome.RAN
        return 0.5

    job = search(workplace, train)
    assert run_next(job, workplace) == Outcome.RAN
    assert Counts.of(trials(workplace.store)).complete == 2
    first, second = trials(workplace.store)
    assert first.params != second.params
    assert first.user_attrs["worker"] != second.user_attrs["worker"]


def test_while_another_worker_claims_there_is_only_waiting(workplace: Workplace) -> None:
    job = search(workplace)
    claim = another(workplace).leases.acquire(claim_lease("tiny"))
    assert claim is not None
    assert run_next(job, workplace) == Outcome.BUSY
    claim.release()
    assert run_next(job, workplace) == Outcome.RAN


def test_the_last_running_trials_are_waited_for_and_not_overshot(workplace: Workplace) -> None:
    other = another(workplace)
    seen = []

    def train(trial: optuna.Trial, point: Point) -> float:
        if trial.number == 3:
            seen.append(run_next(search(other), other))
        return 0.5

    job = search(workplace, train)
    for _ in range(4):
        run_next(job, workplace)
    assert seen == [Outcome.WAIT]
    assert run_next(search(other), other) == Outcome.DONE


def test_an_interrupted_trial_is_given_back_and_taken_up_with_the_same_parameters(workplace: Workplace) -> None:
    def interrupted(trial: optuna.Trial, point: Point) -> float:
        raise KeyboardInterrupt

    job = search(workplace, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_next(job, workplace)
    job = search(workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    first, second = trials(workplace.store)[:2]
    assert (first.state, first.user_attrs[GIVEN_BACK]) == (TrialState.FAIL, "interrupted")
    assert (second.state, second.params) == (TrialState.COMPLETE, first.params)
    assert Counts.of(trials(workplace.store)) == Counts(4, 0, 0, 0, 0)


def test_a_result_whose_trial_was_taken_away_is_dropped_and_the_worker_goes_on(workplace: Workplace) -> None:
    def train(trial: optuna.Trial, point: Point) -> float:
        if trial.number == 0:  # somebody takes this worker for dead
            trial.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        return 0.5

    job = search(workplace, train)
    assert run_next(job, workplace) == Outcome.RAN
    assert trials(workplace.store)[0].state == TrialState.FAIL
    assert run_next(job, workplace) == Outcome.RAN
    assert trials(workplace.store)[1].state == TrialState.COMPLETE


def test_an_exception_fails_its_trial_with_the_last_line_and_the_search_goes_on(workplace: Workplace) -> None:
    def train(trial: optuna.Trial, point: Point) -> float:
        if trial.number == 0:
            raise OSError("the plug-in's file is gone")
        return 0.5

    job = search(workplace, train)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    failed = trials(workplace.store)[0]
    assert (failed.state, failed.user_attrs["error"]) == (TrialState.FAIL, "OSError: the plug-in's file is gone")
    assert Counts.of(trials(workplace.store)) == Counts(complete=4, pruned=0, failed=1, running=0, waiting=0)


def test_ten_failures_in_a_row_end_the_search_with_the_reason(workplace: Workplace) -> None:
    def train(trial: optuna.Trial, point: Point) -> float:
        raise RuntimeError("always")

    job = search(workplace, train, tiny_config(search__epochs=list(range(1, 13)), search__trials=20))
    while run_next(job, workplace) == Outcome.RAN:
        pass
    record = workplace.store.studies.get("tiny")
    assert record is not None
    assert record.ended == f"{FAILED}10 trials in a row; the last: RuntimeError: always"
    assert len(trials(workplace.store)) == 10


def test_one_success_among_failures_keeps_the_search_going(workplace: Workplace) -> None:
    def train(trial: optuna.Trial, point: Point) -> float:
        if trial.number % 6 == 5:
            return 0.5
        raise RuntimeError("often")

    job = search(workplace, train, tiny_config(search__epochs=list(range(1, 13)), search__trials=3))
    while run_next(job, workplace) == Outcome.RAN:
        pass
    assert Counts.of(trials(workplace.store)) == Counts(complete=3, pruned=0, failed=15, running=0, waiting=0)


def test_a_search_that_was_ended_from_outside_asks_for_nothing_more(workplace: Workplace) -> None:
    job = search(workplace)
    assert run_next(job, workplace) == Outcome.RAN
    workplace.store.studies.set_ended("tiny", "the time was over")
    assert run_next(job, workplace) == Outcome.DONE


def test_workers_spread_over_trajectories(workplace: Workplace) -> None:
    """While another worker extends a trajectory, points that would have to wait for it are left to later."""
    other = another(workplace)
    job = search(workplace, config=tiny_config(search__trials=6))
    lease = other.leases.acquire(f"trajectory/{_recipe(job, 64)}/0", heading_for=3)
    assert lease is not None
    for _ in range(3):
        assert run_next(job, workplace) == Outcome.RAN
    assert [t.params["batch_size"] for t in trials(workplace.store)] == [128] * 3


def _recipe(job: Search, batch_size: int) -> str:
    from sweetspot.study.visit import recipe_at

    return recipe_at(job._config, job._workplace.data.hash, Point(batch_size, 1)).hash


def test_a_full_disk_gives_the_point_back_and_ends_the_worker(workplace: Workplace) -> None:
    """No other point would fare better; and the study is not to blame."""
    full = [True]

    def train(trial: optuna.Trial, point: Point) -> float:
        if full[0]:
            raise ArtifactsError("cannot write to the artifacts in there (No space left on device)")
        return 0.5

    job = search(workplace, train)
    with pytest.raises(ArtifactsError, match="No space left"):
        run_next(job, workplace)
    first, waiting = trials(workplace.store)
    assert (first.state, waiting.state) == (TrialState.FAIL, TrialState.WAITING)
    assert "No space left" in first.user_attrs[GIVEN_BACK]
    full[0] = False
    while run_next(job, workplace) == Outcome.RAN:
        pass
    assert trials(workplace.store)[1].params == first.params
    assert Counts.of(trials(workplace.store)).finished == 4


def test_a_study_that_is_deleted_while_a_trial_runs_leaves_no_failure_behind(
    workplace: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    def train(trial: optuna.Trial, point: Point) -> float:
        record = workplace.store.studies.get("tiny")
        assert record is not None
        delete_study(workplace.store, record)
        trial.set_user_attr("epochs_trained", 1)
        return 0.5

    job = search(workplace, train)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever Optuna makes of it; the worker asks whether the study is there
        run_next(job, workplace)
    assert workplace.store.studies.get("tiny") is None
    assert "Traceback" not in caplog.text
