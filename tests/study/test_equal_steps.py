"""Equal steps: batch size, or the amount of training? On made-up studies whose truth is known."""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import pytest

from sweetspot.store import Student
from sweetspot.study.equal_steps import equal_steps
from sweetspot.study.ranking import Ranked
from sweetspot.study.space import TEACHER_SEED, Point

SIZES = (16, 32, 64, 128)
EPOCHS = (2, 3, 5, 8, 13, 20, 32, 51, 80)
IMAGES = 1497
Truth = Callable[[int, int], float]


def saturating(steps: int, size: int) -> float:
    return 0.96 - 0.5 * (steps / 60) ** -0.9


def cubic(steps: int, size: int) -> float:
    x = np.log(steps / 500)
    return float(0.9 + 0.02 * x - 0.005 * x**2 + 0.001 * x**3)


def study(
    truth: Truth,
    rng: np.random.Generator,
    *,
    teacher: float = 0.0,
    student: float = 0.0,
    replicates: int = 3,
    seeds: int = 1,
    sizes: Sequence[int] = SIZES,
    epochs: Sequence[int] = EPOCHS,
) -> list[Ranked]:
    """Points whose accuracies are the truth, the luck of each trajectory's teacher, and that of each student."""
    ranked = []
    for size in sizes:
        for seed in range(seeds):
            luck = rng.normal(0, teacher)
            for length in epochs:
                steps = length * (IMAGES // size)
                point = Point(size, length, ((TEACHER_SEED, seed),) if seeds > 1 else ())
                rows = tuple(
                    Student("", "search", i, "", truth(steps, size) + luck + rng.normal(0, student), {}, 1.0, "")
                    for i in range(replicates)
                )
                ranked.append(Ranked(point, steps, rows, 0.0, is_under_trained=steps < 60, is_settled=True))
    return ranked


def most_by_chance(count: int, share: float) -> float:
    """What a share of so many simulations stays under with 99.5 %."""
    return share + NormalDist().inv_cdf(0.995) * (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize("truth", [saturating, cubic])
@pytest.mark.parametrize(("teacher", "seeds"), [(0.0105, 1), (0.002, 1), (0.0105, 5)])
def test_batch_size_that_does_not_matter_is_said_to_matter_in_a_twentieth_of_studies_at_most(
    truth: Truth, teacher: float, seeds: int
) -> None:
    rng, count = np.random.default_rng(7), 200
    found = [equal_steps(study(truth, rng, teacher=teacher, student=0.007, seeds=seeds), 0.0) for _ in range(count)]
    assert all(found)
    assert np.mean([bool(f and f.matters) for f in found]) <= most_by_chance(count, 0.05)


def test_the_interval_has_the_true_change_in_nineteen_of_twenty_studies() -> None:
    rng, count = np.random.default_rng(8), 200
    inside = 0
    for _ in range(count):
        found = equal_steps(study(lambda s, b: cubic(s, b) - 0.01 * np.log2(b), rng, teacher=0.01, student=0.007), 0.0)
        assert found is not None
        inside += found.per_doubling.low <= -0.01 <= found.per_doubling.high
    assert 1 - inside / count <= most_by_chance(count, 0.05)
    assert inside / count <= most_by_chance(count, 0.95)  # nor is it needlessly wide


def test_a_point_per_doubling_is_found_where_noise_is_small() -> None:
    def truth(steps: int, size: int) -> float:
        return saturating(steps, size) - 0.01 * np.log2(size)

    found = equal_steps(study(truth, np.random.default_rng(1), teacher=0.001, student=0.003), 0.002)
    assert found is not None
    assert found.matters is True
    assert found.per_doubling.mean == pytest.approx(-0.01, abs=0.003)
    assert found.whole_range.mean == pytest.approx(3 * found.per_doubling.mean)
    assert found.words.startswith("batch size matters at equal steps: ")
    assert "with each doubling" in found.words
    assert f"{100 * found.whole_range.low:+.2f} to {100 * found.whole_range.high:+.2f}" in found.words
    assert "one teacher for each of 4 batch sizes" in found.words


def test_a_change_that_is_surely_below_the_margin_is_none() -> None:
    found = equal_steps(study(cubic, np.random.default_rng(2), teacher=0.0002, student=0.001), 0.01)
    assert found is not None
    assert found.matters is False
    assert found.words.startswith("amount of training, not batch size: ")
    assert "where less than 1.00 does not matter" in found.words
    assert found.explained > 0.9


def test_three_batch_sizes_with_unlucky_teachers_leave_it_open() -> None:
    found = equal_steps(study(cubic, np.random.default_rng(3), teacher=0.01, student=0.007, sizes=(16, 32, 64)), 0.002)
    assert found is not None
    assert found.matters is None
    assert found.per_doubling.dof == 1
    assert found.words.startswith("whether batch size matters at equal steps is not known: ")
    assert "95 % interval" in found.words


def test_several_teachers_of_a_batch_size_are_several_trajectories() -> None:
    rng = np.random.default_rng(4)
    one = equal_steps(study(cubic, rng, teacher=0.01, student=0.003), 0.002)
    five = equal_steps(study(cubic, rng, teacher=0.01, student=0.003, seeds=5), 0.002)
    assert one is not None
    assert five is not None
    assert (one.trajectories, five.trajectories) == (4, 20)
    assert five.per_doubling.dof == 18
    assert "20 teachers of 4 batch sizes" in five.words


def test_an_exact_law_is_given_back_exactly() -> None:
    found = equal_steps(study(lambda s, b: cubic(s, b) + 0.02 * np.log2(b), np.random.default_rng(0)), 0.002)
    assert found is not None
    assert found.per_doubling.mean == pytest.approx(0.02, abs=1e-9)
    assert found.per_doubling.high - found.per_doubling.low < 1e-6


def test_only_steps_that_half_of_the_batch_sizes_reach_are_compared() -> None:
    ranked = study(cubic, np.random.default_rng(0))
    found = equal_steps(ranked, 0.002)
    assert found is not None
    # 16: 186 to 7,440 steps; 32: 92 to 3,680; 64: 69 to 1,840; 128: 88 to 880, with fewer under-trained
    assert found.steps == (88, 3680)
    wild = [
        r if r.steps <= 3680 else Ranked(r.point, r.steps, (Student("", "search", 0, "", 0.1, {}, 1.0, ""),), 0.1,
                                         is_under_trained=False, is_settled=True)
        for r in ranked
    ]  # fmt: skip
    assert equal_steps(wild, 0.002) == found


def test_nothing_is_said_of_two_batch_sizes_or_of_few_points() -> None:
    rng = np.random.default_rng(5)
    assert equal_steps([], 0.002) is None
    assert equal_steps(study(cubic, rng, student=0.01, sizes=(16, 32)), 0.002) is None
    assert equal_steps(study(cubic, rng, student=0.01, epochs=(20, 40)), 0.002) is None
    assert equal_steps([r for r in study(cubic, rng) if r.point.epochs == 20], 0.002) is None


def test_under_trained_points_are_left_out() -> None:
    ranked = study(cubic, np.random.default_rng(6), student=0.005)
    assert equal_steps(ranked, 0.002) == equal_steps([r for r in ranked if not r.is_under_trained], 0.002)


def test_students_of_equal_accuracy_tell_that_nothing_changes() -> None:
    found = equal_steps(study(lambda steps, size: 0.9, np.random.default_rng(0)), 0.002)
    assert found is not None
    assert found.matters is False
    assert found.explained == 0.0
    assert "by +0.00 points (95 % interval +0.00 to +0.00)" in found.words


def test_for_programs_it_is_plain_values() -> None:
    found = equal_steps(study(cubic, np.random.default_rng(9), teacher=0.01, student=0.007), 0.002)
    assert found is not None
    values = found.to_dict()
    assert values["per_doubling"].keys() == values["whole_range"].keys() == {"mean", "low", "high"}
    assert values["batch_sizes"] == [16, 32, 64, 128]
    assert values["matters"] is found.matters
    assert values["words"] == found.words
