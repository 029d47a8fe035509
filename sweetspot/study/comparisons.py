"""A finalist beside the other arms of a confirmation, in numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, SMOOTHED
from sweetspot.study.inference import Claim, Interval, Outcomes, difference, look_level, seeds_needed

MUST_BEAT = (ALONE, SMOOTHED, ACCURATE, ACCURATE_T)
"""What a finalist must beat, as far as it is there; the last with each at its own best temperature."""

THE_BEST = "the best point"
"""What the first finalist is called."""


@dataclass(frozen=True)
class Comparisons:
    """A finalist against the other arms, on the test split.

    Attributes:
        claim: what it is about.
        gains: of the finalist over each other arm that has students; over `ACCURATE_T` at the finalist's own best
            temperature.
        teachers: fresh ones of each arm; 0 for "this teacher".
        students: fresh ones of each teacher.
        images: of the test split.
        margin: the difference, a fraction, that does not matter.
        look: which look at the test split this is, from 1.
        same: the arms that are the finalist itself.
        failed: the arms that could not be trained.
        left_out: the entries of ``[confirm] arms`` that the study leaves out.
        needed: of the arms that are undecided, the seeds (teachers, students of each) that would settle
            `detectable`; None: no number would.
        names: what people know teachers by that were trained elsewhere, of their arms.
        economy_cost: the seconds to train the cheapest teacher, as a share of those of the finalist's.
        lr_checked: whether the best batch size was ahead at other learning rates, too.
        was_exported: whether test accuracies of this data were written to a table.
        finalist: what it is called: the best point, "finalist 2", and so on.

    Raises:
        ValueError: a margin that is not a finite number of at least 0; teachers that do not go with the claim.
    """

    claim: Claim
    gains: Mapping[str, Interval]
    teachers: int
    students: int
    images: int
    margin: float
    look: int
    same: frozenset[str] = frozenset()
    failed: Sequence[str] = ()
    left_out: Sequence[str] = ()
    needed: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    economy_cost: float | None = None
    lr_checked: bool = False
    was_exported: bool = False
    finalist: str = THE_BEST

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"the margin must be a finite number of at least 0, found {self.margin}")
        if (self.claim == "this point") != (self.teachers > 0):
            raise ValueError(f"a claim about {self.claim} with {self.teachers} fresh teachers")

    @property
    def rivals(self) -> list[str]:
        """The arms that the finalist must beat, and was compared with."""
        return [arm for arm in MUST_BEAT if arm in self.gains and arm not in self.same]

    @property
    def missing(self) -> list[str]:
        """The arms without which there is no verdict, and that it was not compared with."""
        return [arm for arm in (ALONE, ACCURATE) if arm not in self.gains and arm not in self.same]

    @property
    def p_value(self) -> float:
        """Of "there is an arm that the finalist is not better than", the largest of its rivals' (Berger 1982)."""
        if self.missing or ACCURATE in self.same:
            return 1.0
        return max(self.gains[arm].p_above() for arm in self.rivals)

    def share(self, level: float) -> float:
        """Of an error of ``level``, what a statement about one rival may have where any of them may be made.

        Being better than all of them at once needs no such share (Berger 1982); being no better than some one does.
        """
        return level / max(1, len(self.rivals))

    def detectable(self, arm: str) -> float:
        """The difference from an arm that is worth settling: the larger of the margin and of the one observed."""
        return max(self.margin, abs(self.gains[arm].mean))


def gains_of(outcomes: Mapping[str, Outcomes]) -> dict[str, Interval]:
    """The gains of `BEST` over each other arm; over `ACCURATE_T` those of `BEST_T`, where both are there."""
    return {
        arm: difference(outcomes[BEST_T if arm == ACCURATE_T else BEST], other)
        for arm, other in outcomes.items()
        if arm != BEST and (arm != ACCURATE_T or BEST_T in outcomes)
    }


def needed_of(
    outcomes: Mapping[str, Outcomes], comparisons: Comparisons, finalists: int = 1
) -> dict[str, tuple[int, int] | None]:
    """The seeds that would settle what is undecided, at the level of the next look, shared by so many finalists."""
    now, then = (look_level(look) / finalists for look in (comparisons.look, comparisons.look + 1))
    found = {}
    for arm in comparisons.rivals:
        gain = comparisons.gains[arm]
        if not beats(gain, now) and not is_too_small(gain, comparisons.margin, comparisons.share(now)):
            found[arm] = seeds_needed(
                outcomes[BEST_T if arm == ACCURATE_T else BEST],
                outcomes[arm],
                detectable=comparisons.detectable(arm),
                claim=comparisons.claim,
                level=then,
            )
    return found


def beats(gain: Interval, level: float) -> bool:
    """Whether a gain is known to be above zero, at this one-sided error."""
    return gain.p_above() < level


def is_too_small(gain: Interval, margin: float, level: float) -> bool:
    """Whether a gain is known to be below the margin, at this one-sided error."""
    upper = gain.upper(level)
    return upper < margin or upper <= 0  # of an arm that ties with itself, at margin 0
