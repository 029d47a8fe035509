"""Conclusion: what a confirmation that has finished has shown."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from sweetspot.config import ConfirmArm
from sweetspot.store import Store, StudyRecord
from sweetspot.study.arms import ACCURATE_T, BEST, BEST_T, ECONOMY, YOURS
from sweetspot.study.choices import LRCheck, lr_check, lr_rivals, teacher_seconds
from sweetspot.study.comparisons import Comparisons, gains_of, needed_of
from sweetspot.study.confirmation import FINALIST, NEEDED, Plan, current_plan, failed_arms, is_complete, outcomes
from sweetspot.study.inference import Interval, Outcomes, accuracy, difference, look_level, pairing_correlation
from sweetspot.study.ranking import Ranked
from sweetspot.study.search import TEST_EXPORTED, load
from sweetspot.study.space import ExternalPoint, Point
from sweetspot.study.verdict import Economy, Verdict, economy_words, verdicts


@dataclass(frozen=True)
class Confirmation:
    """A confirmation that has finished. Accuracies and gains are on the test split, fractions.

    Attributes:
        accuracies: of each arm that could be trained: one per student; an arm that is another one shares its students.
        intervals: of each arm's mean accuracy.
        gains: of the best point over each other arm, as far as they could be trained; over the most accurate teacher
            at its own best temperature, that of the best point at its own.
        verdicts: of each finalist, the best point's first.
        economy: whether the cheapest teacher is as good; None where that is the best point, or was left out.
        cost_ratio: seconds to train the cheapest teacher, as a share of those of the best point's.
        correlations: of the students of the best point and of each other arm, seed by seed, where they are pairs:
            reported, never relied upon.
        failed: which arms could not be trained, and why.
        lr_check: what other learning rates do; None where that was not asked for.
    """

    plan: Plan
    accuracies: Mapping[str, list[float]]
    intervals: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    verdicts: tuple[Verdict, ...]
    economy: Economy | None
    cost_ratio: float | None
    correlations: Mapping[str, float]
    failed: Mapping[str, str]
    lr_check: LRCheck | None

    @property
    def verdict(self) -> Verdict:
        """About the best point."""
        return self.verdicts[0]


def confirmation(store: Store, record: StudyRecord, ranked: list[Ranked]) -> Confirmation | None:
    """The result of a study's confirmation; None while it has none that is complete.

    Args:
        ranked: the study's points, best first.
    """
    plan = current_plan(store, record.name)
    if plan is None:
        return None
    found = outcomes(store, record, plan)
    if not found.keys() >= set(NEEDED) or not is_complete(store, record, plan):
        return None
    failed = failed_arms(store, record, plan)
    rivals = lr_rivals(record, ranked)
    checked = lr_check(store, record, rivals) if rivals else None
    economy = plan.arms.get(ECONOMY)
    cost = cost_ratio(store, record, economy, plan.best) if isinstance(economy, Point) else None
    same = frozenset(arm for arm in plan.arms if plan.same_as_best(arm))
    if ACCURATE_T in plan.arms and plan.arms[ACCURATE_T] == plan.arms[BEST_T]:
        same |= {ACCURATE_T}
    common = Comparisons(
        claim=plan.claim,
        gains=gains_of({arm: o for arm, o in found.items() if not arm.startswith(FINALIST)}),
        teachers=plan.teachers,
        students=plan.seeds,
        images=found[BEST].correct.shape[1],
        margin=plan.margin,
        look=plan.look,
        same=same,
        failed=[arm for arm in plan.arms if arm not in found],
        left_out=left_out(store, record),
        names={arm: p.name for arm, p in plan.arms.items() if isinstance(p, ExternalPoint)},
        economy_cost=cost,
        lr_checked=checked is not None and checked.stays_ahead is True,
        was_exported=_was_exported(store, record),
    )
    others = _finalists(plan, found)
    of_best = replace(common, needed=needed_of(found, common, 1 + len(others)))
    judged = verdicts([of_best, *(_of_finalist(arm, plan, found, common, 1 + len(others)) for arm in others)])
    is_cheaper = ECONOMY in found and ECONOMY not in same
    return Confirmation(
        plan=plan,
        accuracies={arm: [float(a) for a in o.correct.mean(axis=1)] for arm, o in found.items()},
        intervals={arm: accuracy(o) for arm, o in found.items()},
        gains=common.gains,
        verdicts=tuple(judged),
        economy=_economy(found, plan.margin, cost, plan.look) if is_cheaper and cost else None,
        cost_ratio=cost,
        correlations=_correlations(plan, found),
        failed={arm: failed.get(arm, "some of its students are missing") for arm in plan.arms if arm not in found},
        lr_check=checked,
    )


def _economy(found: Mapping[str, Outcomes], margin: float, cost: float, look: int) -> Economy:
    """Whether the cheapest teacher is as good as the best point, at the error of this look."""
    return economy_words(difference(found[ECONOMY], found[BEST]), margin, cost, level=look_level(look))


def _finalists(plan: Plan, found: Mapping[str, Outcomes]) -> list[str]:
    """The arms of the finalists after the best point."""
    return [arm for arm in plan.arms if arm.startswith(FINALIST) and arm in found]


def _of_finalist(
    arm: str, plan: Plan, found: Mapping[str, Outcomes], common: Comparisons, finalists: int
) -> Comparisons:
    """The comparisons of a further finalist, at the study's temperature alone."""
    left = {a: o for a, o in found.items() if not a.startswith(FINALIST) and a not in (BEST_T, ACCURATE_T, ECONOMY)}
    own = replace(
        common,
        gains=gains_of({**left, BEST: found[arm]}),
        same=frozenset(a for a in left if plan.arms[a] == plan.arms[arm]),
        finalist=f"finalist {arm.removeprefix(f'{FINALIST}_')}",
        economy_cost=None,
    )
    return replace(own, needed=needed_of({**left, BEST: found[arm]}, own, finalists))


def left_out(store: Store, record: StudyRecord) -> tuple[str, ...]:
    """The entries of ``[confirm] arms`` that the study's file leaves out although there is something to compare."""
    left = [arm for arm in get_args(ConfirmArm) if arm not in record.config.confirm.arms]
    has_teachers = bool(store.external_teachers.of_data(record.data_hash))
    return tuple(arm for arm in left if arm != YOURS or has_teachers)


def _was_exported(store: Store, record: StudyRecord) -> bool:
    """Whether a table was written with test accuracies of this data."""
    same = [other.name for other in store.studies.all() if other.data_hash == record.data_hash]
    by_those_here = any(load(store, name).user_attrs.get(TEST_EXPORTED) for name in same)
    return by_those_here or store.studies.has_exported(record.data_hash)


def cost_ratio(store: Store, record: StudyRecord, cheap: Point, dear: Point) -> float | None:
    """Seconds to train one teacher, as a share of those of another; None where they are not known."""
    if cheap == dear:
        return 1.0
    cost = teacher_seconds(store, record, [cheap, dear])
    return cost[cheap] / cost[dear] if cheap in cost and cost.get(dear) else None


def _correlations(plan: Plan, found: Mapping[str, Outcomes]) -> dict[str, float]:
    known = {arm: pairing_correlation(found[BEST], found[arm]) for arm in found if not plan.same_as_best(arm)}
    return {arm: c for arm, c in known.items() if c is not None and arm != BEST and np.isfinite(c)}
