"""SimilarityEntropyPruner: stops a trial before its student is paid for, where the teacher's response says enough."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, log

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweetspot.data.seeding import seed_of
from sweetspot.study.surrogate import Surrogate

SIMILARITY_ENTROPY = "similarity entropy"
FURTHER = ("delivered similarity", "teacher accuracy", "log steps")
"""Measurements that are learned from beside similarity entropy, where they help."""

_HELPS = log(3)
"""A further measurement must make the accuracies three times as likely: less is "not worth more than a bare mention"
(Kass & Raftery 1995)."""
_RUN_ANYWAY = 10
"""One would-be-pruned trial in so many runs all the same, so that wrong pruning is seen."""
_MOST = 200
"""Lessons learned from: the time that learning takes grows with their cube."""


class SimilarityEntropyPruner(BasePruner):
    """Prunes on the similarity entropy S (nats) that a trial reports at the epochs of its teacher.

    S mostly falls along a trajectory but may rise again, so that before a trial's own epochs only ``low`` acts. At its
    own epochs ``high`` acts too, and what completed trials have taught: the points' latent mean accuracy as a function
    of S, and how far points are off it (:class:`~sweetspot.study.surrogate.Surrogate`). The trial is pruned when the
    chance that its mean comes within ``margin`` of the best of that function is below ``p``. That best is the highest
    expected one at a completed trial, never the best observed one, which is partly luck; both it and how far off the
    function the trial may be are uncertain. Outside the range of S that completed trials have seen nothing learned
    acts, and one in ten of those it would prune runs anyway, marked by the user attribute ``would_prune``. Why a trial
    was pruned stands in its user attribute ``pruned_because``.

    Works in any study that maximises, reports S as intermediate value with the epoch as step, and has a parameter for
    the epochs. (Report NaN at a further step before raising ``TrialPruned``: Optuna takes the last value reported for
    the value of a pruned trial, and S is no accuracy.) Where the user attribute ``replicate_accuracies`` lists the
    accuracies behind a trial's value, the noise is learned from them. Where completed trials and the one to be judged
    have the user attributes ``delivered_similarity``, ``teacher_accuracy`` or ``steps``, each that helps is used beside
    S.

    Args:
        low: S below which a trial is pruned at any step; None: never.
        high: S above which a trial is pruned at its own epochs; None: never.
        learn: whether to learn from completed trials.
        n_startup_trials: points that are complete before anything learned acts; at least 4.
        p: the chance below which a trial is pruned.
        margin: how far below the best a mean accuracy may be and still be wanted.
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
        n_startup_trials: int = 6,
        p: float = 0.05,
        margin: float = 0.0,
        epochs: str = "epochs",
        seed: int = 0,
    ) -> None:
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low = {low} must be below high = {high}")
        if n_startup_trials < 4:
            raise ValueError(f"n_startup_trials = {n_startup_trials} must be at least 4: fewer teach nothing")
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
            reason = self._learned(study, trial)
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

    def _learned(self, study: optuna.Study, trial: FrozenTrial) -> str | None:
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        lessons = lessons_of(completed, self._epochs)
        if len(lessons) < self._n_startup_trials:
            return None
        here = measurements_of(trial, self._epochs)
        entropies = [lesson.measurements[SIMILARITY_ENTROPY] for lesson in lessons]
        if not min(entropies) <= here[SIMILARITY_ENTROPY] <= max(entropies) or min(entropies) == max(entropies):
            return None
        names = helpful(lessons, [name for name in FURTHER if name in here])
        judged = LearnedRule.of(lessons, names).judge([[here[name] for name in names]], self._margin)
        if (chance := float(judged.chance[0])) >= self._p:
            return None
        return (
            f"{_words(here, names)} {'promises' if len(names) == 1 else 'promise'} a student accuracy of "
            f"{judged.expected[0]:.3f} where the best is {judged.best:.3f}: a chance of {chance:.1%} to come "
            f"within {self._margin:g} of it"
        )


# -- what is learned from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    """What a completed trial teaches.

    Attributes:
        measurements: of its teacher, by name (:func:`measurements_of`); similarity entropy is among them.
        accuracies: of its students, at least one.
    """

    measurements: dict[str, float]
    accuracies: tuple[float, ...]


def measurements_of(trial: FrozenTrial, epochs: str = "epochs") -> dict[str, float]:
    """What is known of a trial's teacher at the trial's own epochs: finite numbers, by name.

    S as it was reported; delivered similarity (nats), teacher accuracy (fraction) and log steps from the user
    attributes ``delivered_similarity``, ``teacher_accuracy`` and ``steps``.
    """
    attrs = trial.user_attrs
    steps = _number(attrs.get("steps"))
    found = {
        SIMILARITY_ENTROPY: _number(trial.intermediate_values.get(trial.params.get(epochs, -1))),
        "delivered similarity": _number(attrs.get("delivered_similarity")),
        "teacher accuracy": _number(attrs.get("teacher_accuracy")),
        "log steps": log(steps) if steps is not None and steps > 0 else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def lessons_of(trials: Iterable[FrozenTrial], epochs: str = "epochs") -> list[Lesson]:
    """What the completed ones of ``trials`` teach: the newest 200 lessons, in their order.

    Of several visits to a point that list their replicates, the one that lists the most counts, the latest of equals:
    a later visit's list repeats the former's students. Visits that give their value alone are one replicate each.
    """
    lessons: dict[object, Lesson] = {}
    for trial in trials:
        measured = measurements_of(trial, epochs)
        if trial.state != TrialState.COMPLETE or SIMILARITY_ENTROPY not in measured:
            continue
        listed = trial.user_attrs.get("replicate_accuracies")
        replicates = listed if isinstance(listed, list | tuple) else ()
        numbers = [_number(each) for each in replicates or (trial.value,)]
        accuracies = tuple(each for each in numbers if each is not None)
        visit = tuple(sorted(trial.params.items())) if replicates else trial.number
        if len(accuracies) < len(numbers) or (visit in lessons and len(lessons[visit].accuracies) > len(accuracies)):
            continue
        lessons.pop(visit, None)
        lessons[visit] = Lesson(measured, accuracies)
    return list(lessons.values())[-_MOST:]


def helpful(lessons: Sequence[Lesson], further: Iterable[str]) -> tuple[str, ...]:
    """Similarity entropy, and those of the ``further`` measurements that every lesson has and that help.

    They are tried in order, each beside those taken before: one helps if it makes the accuracies three times as
    likely, by the evidence of the surrogate.
    """
    accuracies = [lesson.accuracies for lesson in lessons]
    names: tuple[str, ...] = (SIMILARITY_ENTROPY,)
    candidates = [name for name in further if all(name in lesson.measurements for lesson in lessons)]
    if not candidates:
        return names
    evidence = Surrogate(_rows(lessons, names), accuracies).evidence
    for name in candidates:
        more = Surrogate(_rows(lessons, (*names, name)), accuracies).evidence
        if more > evidence + _HELPS:
            names, evidence = (*names, name), more
    return names


# -- the rule ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """Of m points against the best that the features promise at any of those learned from.

    Attributes:
        chance: (m,) that a point's latent mean accuracy comes within the margin of the best.
        expected: (m,) mean accuracies.
        deviation: (m,) standard deviations of the latent means.
        best: the best, as expected.
    """

    chance: NDArray[np.float64]
    expected: NDArray[np.float64]
    deviation: NDArray[np.float64]
    best: float


class LearnedRule:
    """Judges points by features of theirs, whatever these are.

    The best is the highest expected value of the function of the features, at a point learned from, and not that
    point's own mean: one point in n is the best of n even where the features say nothing, and a rule that compared
    with it would stop the newest of many equal points (measured: the best one in half of such searches).

    Args:
        features: (n, d) of the points learned from, n >= 1.
        replicates: the accuracies of each one's students, at least one.
    """

    def __init__(self, features: ArrayLike, replicates: Sequence[Sequence[float]]) -> None:
        self._features = np.asarray(features, dtype=np.float64)
        self._surrogate = Surrogate(self._features, replicates)

    @classmethod
    def of(cls, lessons: Sequence[Lesson], names: Sequence[str]) -> "LearnedRule":
        """Learned from these measurements."""
        return cls(_rows(lessons, names), [lesson.accuracies for lesson in lessons])

    def chance(self, row: Sequence[float], margin: float = 0.0) -> float:
        """That the point with these d features comes within ``margin`` of the best."""
        return float(self.judge([row], margin).chance[0])

    def judge(self, rows: ArrayLike, margin: float = 0.0) -> Judgement:
        """The points with these features (m, d), against the best."""
        every = np.vstack([self._features, np.asarray(rows, dtype=np.float64)])
        known = len(self._features)
        belief = self._surrogate.at(every, own=np.arange(len(every)) >= known)
        best = int(np.argmax(belief.mean[:known]))
        chances = [belief.chance_above(each, best, margin) for each in range(known, len(every))]
        return Judgement(np.array(chances), belief.mean[known:], belief.deviation[known:], float(belief.mean[best]))


def _rows(lessons: Sequence[Lesson], names: Sequence[str]) -> list[list[float]]:
    return [[lesson.measurements[name] for name in names] for lesson in lessons]


def _words(measurements: dict[str, float], names: Sequence[str]) -> str:
    parts = [
        f"{round(np.exp(measurements[name])):,} steps" if name == "log steps" else f"{name} {measurements[name]:.3f}"
        for name in names
    ]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(value: object) -> float | None:
    """A finite number, or nothing."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _runs_anyway(seed: int, trial: FrozenTrial) -> bool:
    drawn = seed_of("run anyway", seed, *(f"{k}={v}" for k, v in sorted(trial.params.items())))
    return drawn % _RUN_ANYWAY == 0


def _set(study: optuna.Study, trial: FrozenTrial, key: str, value: str) -> None:
    # A pruner is handed a frozen trial: as Optuna's own pruners do, it writes through the storage.
    study._storage.set_trial_user_attr(trial._trial_id, key, value)
