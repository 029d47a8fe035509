"""Schedules: the factor along a run, and what a longer run shares with it."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sweetspot import config
from sweetspot.training.schedules import (
    WSD,
    Constant,
    Cosine,
    Multistep,
    Schedule,
    learning_rates,
    scaled_lr,
    schedule,
)

warmups = st.floats(0, 20)


def multisteps() -> st.SearchStrategy[config.Multistep]:
    epochs = st.sets(st.integers(1, 120).map(float), min_size=1, max_size=4)
    fractions = st.sets(st.floats(0.01, 0.99), min_size=1, max_size=4)
    return st.builds(
        lambda milestones, warmup: config.Multistep(milestones=tuple(sorted(milestones)), warmup=warmup),
        epochs | fractions,
        warmups,
    )


options = (
    st.builds(config.Constant, warmup=warmups)
    | multisteps()
    | st.builds(config.WSD, warmup=warmups, decay=st.floats(0.001, 1))
    | st.builds(config.Cosine, warmup=warmups)
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Schedule, int, int]:
    """A schedule as a study would make it, and the lengths of two of its runs, the shorter first."""
    shortest = draw(st.integers(1, 30))
    plan = schedule(draw(options), shortest)
    total = draw(st.integers(shortest, 150))
    longer = total + draw(st.integers(1, 100) | st.just(10**9))
    return plan, total, longer


@given(runs(), st.integers(1, 7))
def test_the_shared_epochs_of_a_run_are_identical_with_those_of_any_longer_run(
    case: tuple[Schedule, int, int], steps: int
) -> None:
    plan, total, longer = case
    shared = plan.shared_epochs(total)
    assert 0 <= shared <= total
    for epoch in range(shared):
        assert learning_rates(plan, 0.1, epoch, total, steps) == learning_rates(plan, 0.1, epoch, longer, steps)


@given(runs())
def test_a_longer_run_shares_no_less(case: tuple[Schedule, int, int]) -> None:
    """Otherwise the trunk of one length would run through the decay of another."""
    plan, total, longer = case
    assert plan.shared_epochs(total) <= plan.shared_epochs(longer)


@given(runs())
def test_a_run_is_truncated_where_it_shares_all_of_it_and_annealed_otherwise(case: tuple[Schedule, int, int]) -> None:
    plan, total, _ = case
    assert plan.epochs_mean == ("truncated" if plan.shared_epochs(total) == total else "annealed")


@given(runs(), st.integers(1, 7))
def test_no_step_of_a_run_is_wasted_on_a_learning_rate_of_zero_or_exceeds_the_full_one(
    case: tuple[Schedule, int, int], steps: int
) -> None:
    plan, total, _ = case
    assume(not isinstance(plan, Multistep))  # its gamma may be as small as one likes
    for epoch in range(total):
        rates = learning_rates(plan, 0.1, epoch, total, steps)
        assert len(rates) == steps
        assert all(0 < rate <= 0.1 for rate in rates)


@pytest.mark.parametrize(
    ("plan", "factors"),
    [
        (Constant(0), {0: 1, 50: 1, 100: 1}),
        (Multistep(0, (30, 60), 0.1), {0: 1, 29.99: 1, 30: 0.1, 59.99: 0.1, 60: 0.01, 100: 0.01}),
        (Multistep(0, (0.5, 0.75), 0.1), {0: 1, 49.99: 1, 50: 0.1, 74.99: 0.1, 75: 0.01, 100: 0.01}),
        (WSD(0, 0.2), {0: 1, 79.99: 1, 80: 1, 90: 0.5, 95: 0.25, 100: 0}),
        (WSD(0, 1.0), {0: 1, 25: 0.75, 100: 0}),
        (Cosine(0), {0: 1, 25: 0.5 * (1 + math.sqrt(0.5)), 50: 0.5, 100: 0}),
        (Cosine(10), {5: 0.5, 10: 1, 55: 0.5, 100: 0}),
    ],
)
def test_the_factors_of_a_run_of_100_epochs(plan: Schedule, factors: dict[float, float]) -> None:
    assert {epoch: plan.factor(epoch, 100) for epoch in factors} == pytest.approx(factors)


@pytest.mark.parametrize("make", [Constant, Cosine, lambda w: WSD(w, 0.2), lambda w: Multistep(w, (0.5,), 0.1)])
def test_a_warm_up_rises_linearly_from_zero(make: Any) -> None:
    plan = make(4)
    assert [plan.factor(epoch, 100) for epoch in (0, 1, 2, 3, 4)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    ("plan", "total", "shared"),
    [
        (Constant(0), 7, 7),
        (Multistep(0, (30, 60), 0.1), 100, 100),
        (Multistep(0, (30, 60), 0.1), 20, 20),
        (Multistep(0, (0.5,), 0.1), 100, 0),
        (WSD(0, 0.2), 100, 80),
        (WSD(0, 0.2), 10, 8),
        (WSD(0, 0.2), 2, 1),
        (WSD(0, 0.2), 1, 0),
        (WSD(0, 0.001), 100, 99),
        (WSD(0, 1.0), 100, 0),
        (Cosine(0), 100, 0),
    ],
)
def test_how_much_of_a_run_is_shared(plan: Schedule, total: int, shared: int) -> None:
    assert plan.shared_epochs(total) == shared


@pytest.mark.parametrize("name", ["constant", "multistep", "wsd", "cosine"])
def test_the_warm_up_is_at_most_a_tenth_of_the_shortest_run(name: str) -> None:
    kinds = {"constant": config.Constant, "multistep": config.Multistep, "wsd": config.WSD, "cosine": config.Cosine}
    assert schedule(kinds[name](warmup=5), shortest=100).warmup == 5
    assert schedule(kinds[name](warmup=5), shortest=20).warmup == 2
    assert schedule(kinds[name](warmup=5), shortest=1).warmup == pytest.approx(0.1)


def test_a_schedule_is_made_of_its_options() -> None:
    assert schedule(config.WSD(warmup=1, decay=0.3), 10) == WSD(1, 0.3)
    assert schedule(config.Multistep(milestones=(3, 5), gamma=0.2), 10) == Multistep(0, (3, 5), 0.2)


def test_the_learning_rate_of_a_step_is_that_of_its_middle() -> None:
    assert learning_rates(WSD(1, 0.5), 0.4, 0, 4, 2) == pytest.approx([0.1, 0.3])
    assert learning_rates(WSD(1, 0.5), 0.4, 1, 4, 2) == pytest.approx([0.4, 0.4])
    assert learning_rates(WSD(1, 0.5), 0.4, 3, 4, 2) == pytest.approx([0.15, 0.05])


@pytest.mark.parametrize(
    ("rule", "scales"),
    [
        ("none", {32: 1, 128: 1, 4096: 1}),
        ("linear", {32: 0.25, 128: 1, 256: 2, 512: 4, 1024: 4}),
        ("sqrt", {32: 0.5, 128: 1, 512: 2, 2048: 4, 4096: 4}),
    ],
)
def test_the_learning_rate_follows_the_batch_size_up_to_a_cap(rule: Any, scales: dict[int, float]) -> None:
    options = config.LRRule(name=rule, batch_size=128, cap=4)
    assert {size: scaled_lr(0.1, options, size) / 0.1 for size in scales} == pytest.approx(scales)
