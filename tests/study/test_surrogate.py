from itertools import pairwise
from math import lgamma

import numpy as np
import pytest
from numpy.typing import NDArray

from sweetspot.study import surrogate as module
from sweetspot.study.surrogate import Belief, Surrogate

Array = NDArray[np.float64]


def plateau(x: Array) -> Array:
    """An accuracy that rises steeply, reaches its best and slowly falls; (n, d) by its first feature."""
    return np.asarray(0.9 - 0.1 * np.exp(-2 * x[:, 0]) - 0.004 * (x[:, 0] - 1.5) ** 2)


def drawn(
    seed: int, points: int, replicates: int, *, noise: float = 0.005, own: float = 0.003, flat: bool = False
) -> tuple[Array, Array, Array]:
    """Features, latent means and replicates of points on the plateau."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 4, (points, 2))
    latent = np.full(points, 0.9) if flat else plateau(x) + rng.normal(0, own, points)
    return x, latent, latent[:, None] + rng.normal(0, noise, (points, replicates))


# -- what it finds ----------------------------------------------------------------------------------------------------


def test_it_recovers_a_function_and_the_noise() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 4, (60, 2))
    replicates = plateau(x)[:, None] + rng.normal(0, 0.005, (60, 3))
    surrogate = Surrogate(x, replicates)
    new = rng.uniform(0.2, 3.8, (40, 2))
    error = surrogate.at(new).mean - plateau(new)
    assert np.sqrt(np.mean(error**2)) < 0.0025, "below the standard error of a point's own three replicates"
    assert surrogate.noise == pytest.approx(0.005, rel=0.12)


def test_a_feature_that_says_nothing_lowers_the_evidence_and_one_that_does_raises_it() -> None:
    x, _, replicates = drawn(2, 40, 1)
    both = Surrogate(x, replicates).evidence
    assert Surrogate(x[:, :1], replicates).evidence > both
    assert both > Surrogate(x[:, 1:], replicates).evidence + 5


@pytest.mark.parametrize(("points", "replicates"), [(20, 1), (50, 1), (20, 4)])
def test_what_it_believes_covers_the_truth_as_often_as_it_says(points: int, replicates: int) -> None:
    seen, new = [], []
    for seed in range(60):
        x, latent, values = drawn(seed, points + 10, replicates)
        belief = Surrogate(x[:points], values[:points]).at(x)
        z = (latent - belief.mean) / belief.deviation
        seen.extend(z[:points])
        new.extend(z[points:])
    for z in (np.abs(seen), np.abs(new)):
        assert np.mean(z < 1.96) == pytest.approx(0.95, abs=0.04)
        assert np.mean(z < 1.28) == pytest.approx(0.80, abs=0.08)


def test_where_all_points_are_equal_the_luckiest_is_not_believed() -> None:
    ahead = []
    for seed in range(40):
        x, _, values = drawn(seed, 25, 3, flat=True)
        belief = Surrogate(x, values).at(x)
        ahead.append(max(belief.mean) - 0.9)
        assert belief.chance_above(int(np.argmin(belief.mean)), int(np.argmax(belief.mean)), 0.0) > 0.01
    raw = 0.0057  # the expected maximum of 25 means of three replicates
    assert np.mean(ahead) < 0.45 * raw


def test_chances_come_true_as_often_as_they_say() -> None:
    said, came = [], []
    for seed in range(60):
        x, latent, values = drawn(seed, 26, 2)
        belief = Surrogate(x[:25], values[:25]).at(x)
        best = int(np.argmax(belief.mean[:25]))
        for each in range(26):
            if each != best:
                said.append(belief.chance_above(each, best, 0.001))
                came.append(latent[each] > latent[best] - 0.001)
    edges = [0.0, 0.05, 0.2, 0.5, 1.0]
    for low, high in pairwise(edges):
        inside = [i for i, chance in enumerate(said) if low <= chance < high]
        assert np.mean([came[i] for i in inside]) == pytest.approx(np.mean([said[i] for i in inside]), abs=0.08)


# -- what must hold exactly -------------------------------------------------------------------------------------------


def same(a: Belief, b: Belief) -> None:
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-7)
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-5, atol=1e-12)


def test_other_units_of_accuracy_change_nothing_else() -> None:
    x, _, values = drawn(3, 30, 2)
    plain, moved = Surrogate(x, values), Surrogate(x, 100 * values - 20)
    same(moved.at(x), Belief(100 * plain.at(x).mean - 20, 100**2 * plain.at(x).covariance))
    assert moved.noise == pytest.approx(100 * plain.noise)


def test_other_units_of_the_features_change_nothing() -> None:
    x, _, values = drawn(4, 30, 2)
    same(Surrogate(x * [1000, 0.01] + [7, -3], values).at(x * [1000, 0.01] + [7, -3]), Surrogate(x, values).at(x))


def test_the_order_of_points_and_of_features_is_no_matter() -> None:
    x, _, values = drawn(5, 30, 2)
    order = np.random.default_rng(0).permutation(30)
    same(Surrogate(x[order], values[order]).at(x), Surrogate(x, values).at(x))
    belief, shuffled = Surrogate(x, values).at(x), Surrogate(x, values).at(x[order])
    same(shuffled, Belief(belief.mean[order], belief.covariance[np.ix_(order, order)]))


def test_rows_with_the_same_features_are_one_point() -> None:
    x, _, values = drawn(6, 15, 4)
    apart = Surrogate(np.concatenate([x, x]), [*values[:, :1].tolist(), *values[:, 1:].tolist()])
    together = Surrogate(x, values)
    same(apart.at(x), together.at(x))
    assert apart.evidence == pytest.approx(together.evidence)


def test_many_replicates_leave_only_their_own_mean() -> None:
    x, latent, _ = drawn(7, 12, 1)
    rng = np.random.default_rng(0)
    values = [latent[0] + rng.normal(0, 0.005, 4000), *(latent[1:, None] + rng.normal(0, 0.005, (11, 2)))]
    belief = Surrogate(x, values).at(x)
    assert belief.mean[0] == pytest.approx(values[0].mean(), abs=2e-5)
    assert belief.deviation[0] == pytest.approx(0.005 / np.sqrt(4000), rel=0.15)
    assert min(belief.deviation[1:]) > 0.001


def test_without_its_own_part_a_point_is_as_points_like_it_are() -> None:
    rng = np.random.default_rng(2)
    x = np.linspace(0.5, 4, 60)[:, None]
    latent = plateau(x) + rng.normal(0, 0.005, 60)
    surrogate = Surrogate(x, latent[:, None] + rng.normal(0, 0.001, (60, 4)))
    itself, like_it = surrogate.at(x), surrogate.at(x, own=[False] * 60)
    np.testing.assert_allclose(itself.mean, latent, atol=0.002)
    assert np.abs(like_it.mean - plateau(x)).mean() < 0.4 * np.abs(latent - plateau(x)).mean()
    mixed = surrogate.at(np.concatenate([x[:1], x[:1]]), own=[True, False])
    np.testing.assert_allclose(mixed.mean, [itself.mean[0], like_it.mean[0]])
    np.testing.assert_allclose(mixed.deviation, [itself.deviation[0], like_it.deviation[0]])


def test_a_point_with_few_replicates_is_drawn_to_its_neighbours() -> None:
    x = np.linspace(0, 4, 20)[:, None]
    values = [list(v) for v in plateau(x)[:, None] + np.random.default_rng(0).normal(0, 0.002, (20, 4))]
    values[10] = [values[10][0] + 0.01]
    belief = Surrogate(x, values).at(x)
    assert plateau(x)[10] < belief.mean[10] < values[10][0] - 0.001
    assert belief.deviation[10] > 1.5 * belief.deviation[9]


# -- held against plain formulas --------------------------------------------------------------------------------------

Z = np.array([[-0.3, 0.2, -0.5, 0.4]])
"""Settings of two features, in standard normal coordinates."""


def direct(
    x: Array, values: list[list[float]], z: Array, at: Array, own_counts: bool = True
) -> tuple[float, Array, Array]:
    """Log likelihood, mean and covariance at settings ``z``, replicate by replicate (no pooling)."""
    scale, noise, own = 1.5 * np.sqrt(2) * np.exp(z[2:]), np.exp(2 * z[0] - 1), np.exp(2 * z[1] - 2.5)
    total = 1 + noise + own
    y = np.concatenate(values)
    centre, spread = y.mean(), y.std(ddof=1)
    y = (y - centre) / spread
    distinct = np.unique(x, axis=0)
    rows = np.repeat(x, [len(each) for each in values], axis=0)

    def kernel(a: Array, b: Array, own: float = own) -> Array:
        gap = (a[:, None] - b[None]) / distinct.std(axis=0) / scale
        r = np.sqrt(5 * (gap**2).sum(axis=-1))
        return ((1 + r + r**2 / 3) * np.exp(-r) + own * (gap == 0).all(axis=-1)) / total

    v = np.linalg.inv(kernel(rows, rows) + noise / total * np.eye(len(y)))
    one = np.ones(len(y))
    constant = one @ v @ y / (one @ v @ one)
    squares = (y - constant) @ v @ (y - constant)
    likelihood = (
        0.5 * np.linalg.slogdet(v)[1]
        - 0.5 * np.log(one @ v @ one)
        - (len(y) / 2 + 1) * np.log(0.5 + 0.5 * squares)
        + lgamma(len(y) / 2 + 1)
    )
    asked = own if own_counts else 0.0
    cross = kernel(at, rows, asked)
    left = 1 - cross @ v @ one
    variance = (1 + squares) / len(y)
    covariance = variance * (kernel(at, at, asked) - cross @ v @ cross.T + np.outer(left, left) / (one @ v @ one))
    mean = constant + cross @ v @ (y - constant)
    return float(likelihood), centre + spread * mean, spread**2 * covariance


@pytest.mark.parametrize("own", [True, False])
def test_at_fixed_settings_it_is_the_textbook_formula(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    x, _, table = drawn(8, 14, 3)
    x[5] = x[9]
    values = [list(row[: 1 + i % 3]) for i, row in enumerate(table)]
    at = np.concatenate([x[:4], x[:1] + 0.3, x[:1] + 0.3])
    likelihood, mean, covariance = direct(x, values, Z[0], at, own)
    monkeypatch.setattr(module, "_sampled", lambda likelihood, dimensions: (Z, likelihood(Z)))
    surrogate = Surrogate(x, values)
    belief = surrogate.at(at, own=[own] * len(at))
    assert surrogate.evidence == pytest.approx(likelihood, abs=1e-5)
    np.testing.assert_allclose(belief.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(belief.covariance, covariance, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("replicates", [1, 3])
def test_the_drawn_settings_stand_for_the_whole_prior(replicates: int) -> None:
    """Against 2,500 draws from the prior, each weighted by its likelihood."""
    x, _, table = drawn(9, 10, replicates)
    values = [list(row) for row in table]
    at = np.concatenate([x[:5], [[0.1, 2.0], [2.0, 2.0], [6.0, 1.0]]])
    each = [direct(x, values, z, at) for z in np.random.default_rng(0).normal(size=(2500, 4))]
    logs = np.array([likelihood for likelihood, _, _ in each])
    weights = np.exp(logs - logs.max())
    evidence = logs.max() + np.log(weights.mean())
    weights /= weights.sum()
    means = np.array([mean for _, mean, _ in each])
    mean = weights @ means
    spread = np.sqrt(weights @ np.array([np.diagonal(c) for _, _, c in each]) + weights @ (means - mean) ** 2)
    surrogate = Surrogate(x, values)
    belief = surrogate.at(at)
    assert np.abs((belief.mean - mean) / spread).max() < 0.2
    np.testing.assert_allclose(belief.deviation, spread, rtol=0.3)
    assert surrogate.evidence == pytest.approx(evidence, abs=0.4)


# -- the edges --------------------------------------------------------------------------------------------------------


def test_one_replicate_of_one_point_is_already_something() -> None:
    belief = Surrogate([[3.0]], [[0.8]]).at([[3.0], [4.0]])
    np.testing.assert_allclose(belief.mean, 0.8)
    assert 0 < belief.deviation[0] < belief.deviation[1] < 0.05


def test_equal_values_everywhere_leave_less_and_less_doubt() -> None:
    def doubt(points: int) -> float:
        belief = Surrogate(np.arange(points)[:, None], [[0.7]] * points).at([[0.5]])
        assert belief.mean[0] == pytest.approx(0.7)
        return float(belief.deviation[0])

    assert 0.01 > doubt(3) > doubt(10) > doubt(40) > 0


def test_a_constant_feature_is_harmless() -> None:
    x, _, values = drawn(10, 20, 2)
    constant = np.column_stack([x, np.full(20, 0.3)])
    belief, plain = Surrogate(constant, values).at(constant), Surrogate(x, values).at(x)
    np.testing.assert_allclose(belief.mean, plain.mean, atol=0.001)
    np.testing.assert_allclose(belief.deviation, plain.deviation, rtol=0.2)


def test_points_as_good_as_on_top_of_each_other_are_no_trouble() -> None:
    x = np.repeat([[1.0], [2.0], [3.0]], 10, axis=0) + 1e-13 * np.arange(30)[:, None]
    belief = Surrogate(x, [[0.8 + 0.1 * value] for value in x[:, 0]]).at(x)
    assert np.isfinite(belief.mean).all()
    assert (belief.deviation > 0).all()


def test_a_covariance_is_one() -> None:
    x, _, values = drawn(11, 25, 1)
    covariance = Surrogate(x, values).at(np.concatenate([x, x + 0.1])).covariance
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_large_histories_give_what_small_parts_of_memory_give(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, values = drawn(12, 20, 2)
    plain = Surrogate(x, values).at(x)
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    same(Surrogate(x, values).at(x), plain)


def test_the_chance_to_be_above_is_joint() -> None:
    belief = Belief(np.array([0.80, 0.81]), np.array([[4e-4, 3.9e-4], [3.9e-4, 4e-4]]))
    assert belief.chance_above(0, 1, 0.0) == pytest.approx(0.01267, abs=1e-4)  # -0.01 over sqrt(2e-5)
    assert belief.chance_above(0, 1, 0.01) == pytest.approx(0.5)
    assert belief.chance_above(1, 1, 0.0) == 1.0
    certain = Belief(np.array([0.80, 0.81]), np.zeros((2, 2)))
    assert [certain.chance_above(0, 1, margin) for margin in (0.005, 0.02)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("features", "replicates", "message"),
    [
        ([], [], "table"),
        ([[1.0]], [], "as many"),
        (np.empty((0, 2)), [], "at least one"),
        ([[1.0]], [[]], "at least one replicate"),
        ([[np.nan]], [[0.5]], "features must be finite"),
        ([[1.0]], [[np.inf]], "replicates must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(features: Array, replicates: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Surrogate(features, replicates)


def test_a_prediction_needs_as_many_features() -> None:
    with pytest.raises(ValueError, match="1 features where 2 are known"):
        Surrogate([[1.0, 2.0]], [[0.5]]).at([[1.0]])
