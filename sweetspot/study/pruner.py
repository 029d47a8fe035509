"""SimilarityEntropyPruner: stops a trial before its student is paid for, where the teacher's response says enough."""

from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweetspot.data.seeding import seed_of

_RUN_ANYWAY = 10
"""One would-be-pruned trial in so many runs all the same, so that wrong pruning is seen."""


class SimilarityEntropyPruner(BasePruner):
    """Prunes on the similarity entropy S (nats) that a trial reports at the epochs of its teacher.

    S mostly falls along a trajectory but may rise again, so that before a trial's own epochs only ``low`` acts. At its
    own epochs ``high`` acts too, and what completed trials have taught: a quadratic of S is fitted to their values,
    and the trial is pruned when the chance that its value comes within ``margin`` of the best fitted one is below
    ``p``. That chance counts all that S does not explain, seeds included, as uncertainty. Outside the range of S that
    completed trials have seen nothing learned acts, and one in ten of those it would prune runs anyway, marked by the
    user attribute ``would_prune``. Why a trial was pruned stands in its user attribute ``pruned_because``.

    Works in any study that maximises, reports S as intermediate value with the epoch as step, and has a parameter for
    the epochs.

    Args:
        low: S below which a trial is pruned at any step; None: never.
        high: S above which a trial is pruned at its own epochs; None: never.
        learn: whether to learn from completed trials.
        n_startup_trials: completed trials before anything learned acts; at least 4.
        p: the chance below which a trial is pruned.
        margin: how far below the best a value may be and still be wanted.
        epochs: name of the parameter that holds a trial's own epochs.
        seed: of the draw of those that run anyway.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        learn: bool = True,
        n_startup_trials: int = 10,
        p: float = 0.05,
        margin: float = 0.0,
        epochs: str = "epochs",
        seed: int = 0,
    ) -> None:
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low = {low} must be below high = {high}")
        if n_startup_trials < 4:
            raise ValueError(f"n_startup_trials = {n_startup_trials} must be at least 4: a quadratic has three terms")
        if not 0 < p < 0.5:
            raise ValueError(f"p = {p} must be above 0 and below 0.5")
        if margin < 0:
            raise ValueError(f"margin = {margin} must not be negative")
        self._low = low
        self._high = high
        self._learn = learn
        self._n_startup_trials = n_startup_trials
        self._p = p
        self._margin = margin
        self._epochs = epochs
        self._seed = seed

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Optuna: whether the trial should stop at its last reported step.

        Raises:
            ValueError: if the study minimises.
        """
        if study.direction != StudyDirection.MAXIMIZE:
            raise ValueError("SimilarityEntropyPruner is for studies that maximise an accuracy")
        step = trial.last_step
        if step is None or not np.isfinite(entropy := trial.intermediate_values[step]):
            return False
        is_own = step == trial.params.get(self._epochs)
        reason = self._bounds(entropy, is_own)
        if reason is None and is_own and self._learn:
            reason = self._learned(study, entropy)
            if reason is not None and _runs_anyway(self._seed, trial):
                _set(study, trial, "would_prune", reason)
                return False
        if reason is None:
            return False
        _set(study, trial, "pruned_because", f"{reason} (epoch {step})")
        return True

    def _bounds(self, entropy: float, is_own: bool) -> str | None:
        if self._low is not None and entropy < self._low:
            return f"similarity entropy {entropy:.3f} is below low = {self._low:g}"
        if self._high is not None and is_own and entropy > self._high:
            return f"similarity entropy {entropy:.3f} is above high = {self._high:g}"
        return None

    def _learned(self, study: optuna.Study, entropy: float) -> str | None:
        entropies, values = seen(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), self._epochs)
        if len(entropies) < self._n_startup_trials:
            return None
        if not entropies.min() <= entropy <= entropies.max() or np.ptp(entropies) == 0:
            return None
        chance, expected, best = chance_of_best(entropies, values, entropy, self._margin)
        if chance >= self._p:
            return None
        return (
            f"similarity entropy {entropy:.3f} promises a student accuracy of {expected:.3f} where the best is "
            f"{best:.3f}: a chance of {chance:.1%} to come within {self._margin:g} of it"
        )


def seen(trials: Iterable[FrozenTrial], epochs: str = "epochs") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the pruner learns from: S at their own epochs, and the values, of the completed ones of ``trials``."""
    pairs = [
        (t.intermediate_values[t.params[epochs]], t.value)
        for t in trials
        if t.state == TrialState.COMPLETE and t.value is not None and t.params.get(epochs) in t.intermediate_values
    ]
    entropies, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return entropies, values


class Fit:
    """A quadratic of S, fitted to values by least squares.

    Args:
        entropies: (n,) S of completed trials, n >= 4, not all equal.
        values: (n,) their values.

    Attributes:
        best: the best value that the curve has at any completed trial (never the best observed one, which is partly
            luck).
    """

    def __init__(self, entropies: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        self._centre, self._scale = entropies.mean(), entropies.std()
        design = self._terms(entropies)
        self._inverse = np.linalg.pinv(design.T @ design)
        self._weights = self._inverse @ design.T @ values
        fitted = design @ self._weights
        self._variance = float(((values - fitted) ** 2).sum() / max(len(values) - 3, 1))
        self.best = float(fitted.max())

    def at(self, entropies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The values expected, and the standard deviation about them of a single trial's value."""
        terms = self._terms(entropies)
        leverage = ((terms @ self._inverse) * terms).sum(axis=-1)
        return terms @ self._weights, np.sqrt(self._variance * (1 + leverage))

    def chance(self, entropy: float, margin: float) -> float:
        """That a trial with this S comes within ``margin`` of the best."""
        expected, deviation = (float(each) for each in self.at(np.array(entropy)))
        if deviation == 0:
            return 1.0 if expected >= self.best - margin else 0.0
        return 1 - NormalDist(expected, deviation).cdf(self.best - margin)

    def _terms(self, entropies: NDArray[np.float64]) -> NDArray[np.float64]:
        z = (entropies - self._centre) / self._scale
        return np.stack([np.ones_like(z), z, z**2], axis=-1)


def chance_of_best(
    entropies: NDArray[np.float64], values: NDArray[np.float64], entropy: float, margin: float
) -> tuple[float, float, float]:
    """The chance that a trial with this S comes within ``margin`` of the best, by a :class:`Fit`.

    Returns:
        The chance, the value expected at ``entropy``, and the fit's best value.
    """
    fit = Fit(entropies, values)
    return fit.chance(entropy, margin), float(fit.at(np.array(entropy))[0]), fit.best


def _runs_anyway(seed: int, trial: FrozenTrial) -> bool:
    drawn = seed_of("run anyway", seed, *(f"{k}={v}" for k, v in sorted(trial.params.items())))
    return drawn % _RUN_ANYWAY == 0


def _set(study: optuna.Study, trial: FrozenTrial, key: str, value: str) -> None:
    # A pruner is handed a frozen trial: as Optuna's own pruners do, it writes through the storage.
    study._storage.set_trial_user_attr(trial._trial_id, key, value)
