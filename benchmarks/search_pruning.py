"""Whether similarity entropy prunes better than what is known without it: the learned rule on other features.

Every search is the same but for its pruner, in two settings: the default search; and a whole grid, where every point is
visited once, in random order, and gets ``replicates.max`` students unless it is pruned, so that nothing else spares the
bad ones. The default pruner is :class:`sweetspot.SimilarityEntropyPruner` as it is,
which takes further measurements where they help. The others judge as it does (so many startup trials, the same chance,
nothing outside the range of what was seen, one in ten runs anyway), each on its own features alone. Log steps and log
batch size are known before a teacher is trained, so that this rule is asked then, and saves the teacher, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from benchmarks.search_methods import Method, Search, learned, unpruned
from benchmarks.search_regret import Course
from sweetspot.config import SimilarityEntropyRule, StudyConfig
from sweetspot.data.seeding import seed_of
from sweetspot.study.pruner import LearnedRule

UNPRUNED = "no pruning"
_RULE = SimilarityEntropyRule()
_RUN_ANYWAY = 10

Features = Callable[[FrozenTrial], tuple[float, ...]]


@dataclass(frozen=True)
class FeaturePruner(BasePruner):
    """Prunes at a trial's own epochs, by these features of its teacher alone."""

    features: Features
    seed: int

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step not in (None, trial.params["epochs"]):
            return False
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(known) < _RULE.n_startup_trials:
            return False
        seen, here = np.array([self.features(t) for t in known]), np.array(self.features(trial))
        if np.any(here < seen.min(axis=0)) or np.any(here > seen.max(axis=0)):
            return False
        rule = LearnedRule(seen, [t.user_attrs["replicate_accuracies"] for t in known])
        if rule.chance(here.tolist(), _RULE.margin) >= _RULE.p:
            return False
        return seed_of("run anyway", self.seed, str(trial.params)) % _RUN_ANYWAY > 0


def _by(features: Features, config: StudyConfig) -> BasePruner:
    return FeaturePruner(features, config.seed)


def _amount_of_training(trial: FrozenTrial) -> tuple[float, ...]:
    return log(trial.user_attrs["steps"]), log(trial.params["batch_size"])


def _attribute(name: str, trial: FrozenTrial) -> tuple[float, ...]:
    return (trial.user_attrs[name],)


@dataclass(frozen=True)
class _Rule:
    pruner: Callable[[StudyConfig], BasePruner]
    is_known_ahead: bool = False


_RULES = {
    UNPRUNED: _Rule(unpruned),
    "default": _Rule(learned),
    "similarity entropy": _Rule(partial(_by, partial(_attribute, "similarity_entropy"))),
    "log steps, log batch": _Rule(partial(_by, _amount_of_training), is_known_ahead=True),
    "teacher accuracy": _Rule(partial(_by, partial(_attribute, "teacher_accuracy"))),
    "non-target mass": _Rule(partial(_by, partial(_attribute, "non_target_mass"))),
}


def _in_search(rule: _Rule) -> Search:
    return Search(pruner=rule.pruner, asks_ahead=rule.is_known_ahead)


def _in_grid(rule: _Rule) -> Search:
    return Search("random", rule.pruner, races=False, asks_ahead=rule.is_known_ahead, visits_all=True)


PRUNERS: dict[str, Method] = {
    f"{setting}: {name}": method(rule)
    for setting, method in (("search", _in_search), ("grid", _in_grid))
    for name, rule in _RULES.items()
}
"""By setting and rule, "search: default"."""


def comparison(courses: Mapping[str, Sequence[Course]]) -> dict[str, dict[str, float]]:
    """What each pruner adds to the regret, and saves of the cost, beside none in searches that have seen the same.

    ``regret_added`` is the mean difference in points, with its standard error; ``cost_saved`` a fraction of the total,
    ``student_cost_saved`` one of what students cost, which is all that a trial's pruning at its own epoch can spare.
    """
    told = {}
    for name, of in courses.items():
        plain = courses[f"{name.partition(':')[0]}: {UNPRUNED}"]
        added = 100 * np.array([a.regrets[-1] - b.regrets[-1] for a, b in zip(of, plain, strict=True)])
        error = added.std(ddof=1) / np.sqrt(len(added)) if len(added) > 1 else 0.0
        cost, full = (sum(float(course.seconds[-1]) for course in each) for each in (of, plain))
        students, every = (sum(course.students for course in each) for each in (of, plain))
        told[name] = {
            "regret_added": round(float(added.mean()), 3),
            "regret_added_error": round(float(error), 3),
            "cost_saved": round(1 - cost / full, 4),
            "student_cost_saved": round(1 - students / every, 4) if every else 0.0,
        }
    return told
