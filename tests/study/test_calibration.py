"""Simulated studies whose truth is known go the whole way: outcomes, intervals, verdicts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration import (
    DESIGNS,
    EQUAL,
    Design,
    World,
    false_confirmations,
    false_denials,
    follow_plans,
    judged,
    looked_again,
    main,
    measure_power,
    studies,
)
from sweetspot.study.arms import ALONE, BEST
from sweetspot.study.inference import ERROR, Outcomes

STUDIES = 500
MOST_FALSE = 37
"""Of 500: what a test with an error of 5 % exceeds in less than 1 % of cases."""
LEAST_FALSE = 7
"""Of 500: what one with an error of 3.75 %, that of a first look, falls short of in less than 0.1 % of cases."""
WORLD = World()


@pytest.mark.parametrize("design", [Design(5, 6), Design(0, 10)], ids=lambda design: design.claim)
def test_equal_points_are_rarely_confirmed_to_differ(design: Design) -> None:
    """Students without a teacher are much worse, so that the comparison of the two points alone decides."""
    confirmed, gains = false_confirmations(WORLD, design, STUDIES, seed=1)
    assert LEAST_FALSE <= confirmed <= MOST_FALSE
    held = sum(gain.low <= 0 <= gain.high for gain in gains)
    assert 0.925 <= held / STUDIES <= 0.98


@pytest.mark.parametrize("design", [Design(5, 6), Design(0, 10)], ids=lambda design: design.claim)
def test_a_best_point_that_is_better_by_the_margin_is_rarely_denied_to_be(design: Design) -> None:
    """Of four rivals, to all of which the same error belongs."""
    assert 0 < false_denials(WORLD, design, STUDIES, seed=5) <= MOST_FALSE


def test_five_looks_with_more_and_more_teachers_err_no_more_often_than_one() -> None:
    spent, naive = looked_again(WORLD, STUDIES, seed=3)
    assert LEAST_FALSE <= spent <= MOST_FALSE
    assert naive > MOST_FALSE


def test_students_of_one_teacher_taken_for_the_point_would_be_wrong_often() -> None:
    """Why there are two claims: 20 students of one teacher each, counted as if each had its own."""
    wrong = 0
    for outcomes in studies(WORLD, EQUAL, Design(2, 20), 200, seed=5):
        of_one = {arm: Outcomes(each.correct[:20], np.arange(20)) for arm, each in outcomes.items()}
        wrong += judged(of_one, Design(0, 20)).p_value < ERROR
    assert wrong / 200 > 0.1


@pytest.mark.parametrize("design", [Design(3, 8), Design(10, 6), Design(0, 20)], ids=str)
def test_a_difference_of_a_point_is_found_as_often_as_the_power_claims(design: Design) -> None:
    """In the comparison with one arm. A verdict needs several, so that it is confirmed less often, never more."""
    power = measure_power(WORLD, design, STUDIES, seed=2)
    error = math.sqrt(power.claimed * (1 - power.claimed) / STUDIES)
    assert abs(power.found - power.claimed) < 3 * error
    assert power.found / 2 < power.confirmed < power.found


def test_as_many_seeds_as_a_small_confirmation_asks_for_settle_the_difference_as_often_as_promised() -> None:
    """80 %, and a little more, as seeds are whole."""
    planned = follow_plans(WORLD, 200, seed=4)
    assert 0.72 <= planned.settled <= 0.92
    assert planned.hopeless < 0.1


def test_the_simulated_truth_is_what_it_is_said_to_be() -> None:
    mean = dict.fromkeys(EQUAL, 0.0)
    for outcomes in studies(World(images=4000), EQUAL, Design(6, 2), 60, seed=6):
        for arm, each in outcomes.items():
            mean[arm] += each.correct.mean() / 60
    assert mean[BEST] == pytest.approx(EQUAL[BEST], abs=0.003)
    assert mean[ALONE] == pytest.approx(EQUAL[ALONE], abs=0.003)


def test_the_benchmark_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--studies", "3", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["benchmark"] == "calibration"
    assert {"command", "machine", "versions", "world", "designs", "five_looks", "planned"} <= found.keys()
    assert [(row["teachers"], row["students"]) for row in found["designs"]] == [
        (design.teachers, design.students) for design in DESIGNS
    ]
    assert "five looks: " in capsys.readouterr().out
