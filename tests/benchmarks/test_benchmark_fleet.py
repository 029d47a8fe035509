"""A small fleet at a real PostgreSQL: every trial is done once, and every figure is there."""

from collections import Counter

import pytest

from benchmarks.fleet import Fleet, measure, study, summary, table
from benchmarks.fleet_worker import Note
from sweetspot.study.space import distributions, points

WORKERS, TRIALS = 4, 12


def note(number: int, *, held: float = 0.1) -> Note:
    """A trial that is claimed at ``number`` seconds and takes 10.5 s."""
    seconds = {"claim": held, "claim/back-off": 0.2, "trial/write": 0.4, "trial": 9.6, "finish": 0.2}
    asked = {"claim": Counter(statements=20 + number)}
    return Note(
        wanted=number, claimed=number + 0.2, suggested=number + 0.2 + held, released=number + 0.2 + held,
        returned=number + 10.3, ended=number + 10.5, number=number, cpu=0.25, seconds=seconds, asked=asked,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cases() -> list[dict[str, object]]:
    return list(measure([("tpe", WORKERS, 0.2)], TRIALS))


@pytest.mark.ci
def test_a_fleet_does_every_trial_once_and_says_what_it_cost(cases: list[dict[str, object]]) -> None:
    """That each is done once, and at a point of its own, ``measure`` would complain of."""
    assert [case["kind"] for case in cases] == ["tpe"]
    for case in cases:
        states = case["states"]
        assert isinstance(states, dict)
        assert states.get("complete", 0) + states.get("pruned", 0) == TRIALS
        assert case["workers"] == WORKERS
        for figure in ("claim_seconds", "finish_seconds", "claim_and_finish_seconds", "held_seconds"):
            spread = case[figure]
            assert isinstance(spread, dict)
            assert 0 < spread["p50"] <= spread["p95"]
        assert case["database_cpu_seconds_per_trial"] > 0  # type: ignore[operator]
        assert case["worker_cpu_seconds_per_trial"] > 0  # type: ignore[operator]


@pytest.mark.ci
def test_what_is_asked_of_the_database_is_counted_by_stage(cases: list[dict[str, object]]) -> None:
    for case in cases:
        asked = case["asked_of_the_database_per_trial"]
        assert isinstance(asked, dict)
        for stage in ("claim", "trial", "finish"):
            assert asked[stage]["statements"] >= asked[stage]["commits"] > 0


@pytest.mark.ci
def test_the_parts_of_a_claim_are_named(cases: list[dict[str, object]]) -> None:
    parts = cases[0]["milliseconds_of_a_claim"]
    assert isinstance(parts, dict)
    assert {"lease", "sweep", "wants_trial", "read trials", "create a trial", "write"} <= parts.keys()


@pytest.mark.ci
def test_the_table_has_a_line_for_each_block_and_one_for_all(cases: list[dict[str, object]]) -> None:
    assert [line.split()[2] for line in table(cases[:1]).splitlines()[1:3]] == ["1-12", "all"]


def test_blocks_show_the_growth() -> None:
    notes = [note(0), note(1), note(2, held=0.5), note(3, held=0.5)]
    found = summary(Fleet(2, notes, [0.0, 20.0], [5.0, 7.0], 1.0, 0.0, Counter(complete=4)), block=2)
    assert [block["trials"] for block in found["blocks"]] == ["1-2", "3-4"]
    assert [block["held_seconds"]["p50"] for block in found["blocks"]] == [0.1, 0.5]
    assert [block["database_cpu_seconds_per_trial"] for block in found["blocks"]] == [0.575, 0.1]
    assert found["asked_of_the_database_per_trial"] == {"claim": {"statements": 21.5}}
    assert found["share_of_a_real_trial"] == pytest.approx((0.5 + 0.2 + 0.4) / 60, abs=1e-4)
    assert found["on_paper"]["trial_seconds_at_which_the_claim_is_always_held"] == 500


@pytest.mark.parametrize("kind", ["tpe", "random", "points"])
def test_the_space_has_a_point_for_every_trial(kind: str) -> None:
    config = study(kind, 2000)
    every = points(config)
    assert (every is None) == (kind != "points")
    assert every is None or len(every) >= 2000
    assert config.search.sampler == ("random" if kind == "random" else "tpe")
    assert ("student.temperature" in distributions(config)) == (kind != "points")
