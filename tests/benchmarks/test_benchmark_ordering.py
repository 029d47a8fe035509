"""The simulated workers wait as real ones do, and ordering spares them the waiting."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import tiny_config

from benchmarks.ordering import measure
from benchmarks.simulation import Clock, Costs, Poll, Process, simulate
from sweetspot.config import StudyConfig
from sweetspot.store import Store

COSTS = Costs(images=1030, images_per_second=1000.0, step_seconds=0.0, student_seconds=5.0)
"""1.03 s an epoch at any batch size."""

WSD = {"name": "wsd", "warmup": 0, "decay": 0.2}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def config(**values: object) -> StudyConfig:
    return tiny_config(search__sampler="random", **values)


def test_a_process_that_polls_goes_on_at_its_next_look_after_something_has_happened() -> None:
    clock, looks = Clock(), list[float]()

    def waits() -> Process:
        yield 0.3
        for _ in range(2):
            yield Poll("run", since=0.3)
            looks.append(clock.now)

    def works() -> Process:
        for run in ("another run", "run", "run"):
            yield 1.0
            clock.happened(run)

    clock.run([waits(), works()])
    assert looks == pytest.approx([2.3, 3.3])


def test_two_workers_at_one_trajectory_train_it_once_and_one_waits_for_its_first_snapshot(store: Store) -> None:
    one = config(search__batch_size=[64], search__epochs=[10, 20], search__trials=2)
    outcome = simulate(one, store, 2, COSTS, ordered=False)
    assert sorted(outcome.waiting) == pytest.approx([0.0, 10.5])  # 10 epochs, and on to the next look
    assert (outcome.trained, outcome.requested) == (20, 30)


@pytest.mark.parametrize(("schedule", "trained"), [({"name": "constant"}, 40), (WSD, 32 + 2 + 4 + 8)])
def test_all_of_a_space_is_trained_once(store: Store, schedule: dict[str, object], trained: int) -> None:
    """With wsd the branches of 10, 20 and 40 epochs hang from the trunk at 8, 16 and 32."""
    whole = config(search__batch_size=[64], search__epochs=[10, 20, 40], search__trials=3, teacher__schedule=schedule)
    assert simulate(whole, store, 2, COSTS, ordered=True).trained == trained


def test_workers_that_see_the_leases_wait_less() -> None:
    studies = [
        config(seed=seed, search__batch_size=[32, 64, 128], search__epochs=[10, 20, 40], search__trials=6)
        for seed in range(2)
    ]
    pairs = measure(studies, 3, COSTS)
    assert [pair.seed for pair in pairs] == [0, 1]
    assert all(sum(pair.after.waiting) <= sum(pair.before.waiting) for pair in pairs)
    assert sum(sum(pair.after.waiting) for pair in pairs) < sum(sum(pair.before.waiting) for pair in pairs)


def test_a_simulation_repeats_exactly() -> None:
    study = config(search__trials=3)
    first, second = (measure([study], 2, COSTS) for _ in range(2))
    assert first == second
