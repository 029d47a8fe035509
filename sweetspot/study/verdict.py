"""What a confirmation's comparisons allow to be said."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST_T, ECONOMY, LONGEST, SMOOTHED, YOURS
from sweetspot.study.comparisons import THE_BEST, Comparisons, beats, is_too_small
from sweetspot.study.inference import ERROR, POWER, Interval, holm, look_level

Kind = Literal[
    "confirmed for this point",
    "confirmed for this teacher",
    "no better",
    "distillation does not help here",
    "the most accurate teacher is the best point",
    "temperature does it",
    "undecided",
]

_NAMES = {
    ALONE: "the student alone",
    SMOOTHED: "the student with label smoothing",
    ACCURATE: "the most accurate teacher",
    BEST_T: "the best point at its own best temperature",
    ACCURATE_T: "the most accurate teacher, each at its own best temperature",
    LONGEST: "the longest-trained teacher",
    ECONOMY: "the cheapest teacher that is as good",
}
_LEFT_OUT = {
    "label_smoothing": "label smoothing",
    "temperature": "other temperatures",
    "longest_teacher": "the longest-trained teacher",
    "economy": "the cheapest teacher that is as good",
    "your_teacher": "your teachers",
}
"""What is not compared where an entry of ``[confirm] arms`` is missing."""
_ENOUGH = {
    SMOOTHED: "label smoothing is enough here",
    ACCURATE: "training the teacher for accuracy is enough here",
    ACCURATE_T: "training the teacher for accuracy is enough here",
}


# -- the verdict ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a confirmation has shown.

    Attributes:
        confirmed: True, False or None (undecided).
        sentences: the same in plain words: the verdict itself, then what it rests on and what it is not about.
    """

    kind: Kind
    confirmed: bool | None
    sentences: tuple[str, ...]

    @property
    def words(self) -> str:
        return " ".join(self.sentences)


def verdict(comparisons: Comparisons) -> Verdict:
    """What one finalist's comparisons show; see `verdicts`."""
    return verdicts([comparisons])[0]


def verdicts(finalists: Sequence[Comparisons]) -> list[Verdict]:
    """What the comparisons of one or more finalists at one look show.

    A finalist is confirmed when it is better than each of `MUST_BEAT` that is there, at the error of this look; of
    several finalists after Holm's correction. Otherwise it is no better than an arm where the upper bound of its gain
    is under the margin, at the same error, shared by the finalists and by the arms of which this could be said.
    Otherwise nothing is decided. The gains over the longest-trained teacher, the user's own and the cheapest are told,
    and decide nothing.

    Raises:
        ValueError: finalists of different looks.
    """
    if len({each.look for each in finalists}) > 1:
        raise ValueError("finalists of one confirmation are judged at one look")
    if not finalists:
        return []
    level, count = look_level(finalists[0].look), len(finalists)
    p_values = [each.p_value for each in finalists]
    rejected = holm(p_values, level)
    judged = []
    for found, is_better, p in zip(finalists, rejected, p_values, strict=True):
        # Holm: a finalist that is better has what its rank among them leaves of the error.
        own = level / sum(other >= p for other in p_values) if is_better else level / count
        judged.append(_judged(found, is_better, own, count))
    return judged


def _judged(found: Comparisons, is_better: bool, level: float, finalists: int) -> Verdict:
    confirmed, kind, (first, *others) = _decided(found, is_better, level)
    said = first if kind == "no better" else f"{kind.replace(THE_BEST, found.finalist)}: {first}"
    told = (*others, *_told(found), _scope(found), *_reservations(found, finalists))
    return Verdict(kind, confirmed, (f"{said}.", *told))


def _decided(found: Comparisons, is_better: bool, level: float) -> tuple[bool | None, Kind, list[str]]:
    """The verdict in words: the first without its full stop, the others whole sentences."""
    if is_better:
        about: Kind = "confirmed for this point" if found.claim == "this point" else "confirmed for this teacher"
        return True, about, [_confirmed(found, level)]
    share = found.share(level)
    small = [arm for arm in found.rivals if is_too_small(found.gains[arm], found.margin, share)]
    if ALONE in small:
        return False, "distillation does not help here", [_no_help(found, share)]
    if found.missing:
        missing = _and([_NAMES[arm] for arm in found.missing])
        return None, "undecided", [f"{found.finalist} was not compared with {missing}"]
    if SMOOTHED in small:
        return False, "no better", _no_better(found, SMOOTHED, share)
    if ACCURATE in found.same:
        return False, "the most accurate teacher is the best point", _enough(found, ACCURATE, share)
    if ACCURATE in small:
        return False, "no better", _no_better(found, ACCURATE, share)
    if ACCURATE_T in small and beats(found.gains[ACCURATE], share):
        return False, "temperature does it", _temperature(found, share)
    if ACCURATE_T in small:
        return False, "no better", _no_better(found, ACCURATE_T, share)
    return None, "undecided", _undecided(found, share)


def _confirmed(found: Comparisons, level: float) -> str:
    gains = {arm: found.gains[arm] for arm in found.rivals}
    gained = [f"{_gain(gain)} over {_NAMES[arm]} {_at_least(gain, level)}" for arm, gain in gains.items()]
    words = f"{found.finalist} gains {_and(gained)}"
    if any(gain.upper(level) < found.margin for gain in gains.values()):
        words += f", though not by the margin of {_points(found.margin)} points"
    return words


def _no_help(found: Comparisons, level: float) -> str:
    alone = found.gains[ALONE]
    hurts = "it hurts, for " if alone.upper(level) < 0 else ""
    bound = _at_most(alone, found.margin, level)
    return f"{hurts}{found.finalist}'s gain over the student alone is {_gain(alone)} {bound}"


def _no_better(found: Comparisons, arm: str, level: float) -> list[str]:
    gain = found.gains[arm]
    first, *others = _enough(found, arm, level)
    return [
        f"no better than {_NAMES[arm]}: {found.finalist}'s gain over it is {_gain(gain)} "
        f"{_at_most(gain, found.margin, level)}",
        f"{_capital(first)}.",
        *others,
    ]


def _temperature(found: Comparisons, level: float) -> list[str]:
    fixed, own = found.gains[ACCURATE], found.gains[ACCURATE_T]
    first, *others = _enough(found, ACCURATE, level)
    return [
        f"{found.finalist} gains {_gain(fixed)} over the most accurate teacher at this temperature "
        f"{_at_least(fixed, level)}, but with each at its own best temperature {_gain(own)} "
        f"{_at_most(own, found.margin, level)}",
        f"{_capital(first)}.",
        *others,
    ]


def _enough(found: Comparisons, arm: str, level: float) -> list[str]:
    """What is left to say of distillation when it is no better than an arm; as `_decided` has it."""
    alone, enough = found.gains[ALONE], _ENOUGH[arm]
    if beats(alone, level):
        helps = "what is taught helps" if arm == SMOOTHED else "distillation helps"
        return [f"{helps}, by {_gain(alone)} over the student alone {_at_least(alone, level)}, and {enough}"]
    return [
        enough,
        f"Whether distillation helps is undecided, at {_gain(alone)} over the student alone {_between(alone, level)}: "
        f"{_settling(found, [ALONE])}.",
    ]


def _undecided(found: Comparisons, level: float) -> list[str]:
    first, *others = (_standing(_NAMES[arm], found.gains[arm], level) for arm in found.rivals)
    settling = _settling(found, found.rivals)
    return [settling, f"{_capital(found.finalist)} {first}.", *(f"It {each}." for each in others)]


def _settling(found: Comparisons, arms: Sequence[str]) -> str:
    """The seeds that would settle the differences from these arms, as far as they are undecided."""
    needed = {arm: found.needed[arm] for arm in arms if arm in found.needed}
    plans = {arm: plan for arm, plan in needed.items() if plan is not None}
    hopeless = [arm for arm, plan in needed.items() if plan is None]
    if hopeless:
        what = _difference(found, min(hopeless, key=found.detectable))
        return f"a test split of {found.images:,} images is too small to settle {what}, whatever the seeds"
    if plans:
        arm = max(plans, key=lambda arm: max(1, plans[arm][0]) * plans[arm][1])
        what, chance = _difference(found, arm), f"{100 * POWER:g} %"
        return f"about {_more(found, *plans[arm])} would settle {what} with a chance of {chance}"
    return "more [confirm] seeds would narrow it"


def _difference(found: Comparisons, arm: str) -> str:
    return f"a difference of {_points(found.detectable(arm))} points from {_NAMES[arm]}"


def _more(found: Comparisons, teachers: int, students: int) -> str:
    """How many more seeds there are in a plan of so many ``[confirm] teachers`` and ``seeds``."""
    teachers, students = teachers - found.teachers, students - found.students
    if found.claim == "this teacher":
        return f"{students:,} more student seeds" if students != 1 else "1 more student seed"
    fresh = f"{teachers:,} more teacher seed{'s' * (teachers != 1)}"
    each = f"{students:,} more student seed{'s' * (students != 1)} for each teacher"
    return " and ".join([fresh] * (teachers > 0) + [each] * (students > 0))


def _standing(arm: str, gain: Interval, level: float) -> str:
    known = "is better than" if beats(gain, level) else "is not known to be better than"
    return f"{known} {arm}, by {_gain(gain)} {_between(gain, level)}"


# -- what is told with it ---------------------------------------------------------------------------------------------


def _told(found: Comparisons) -> Iterator[str]:
    gains = found.gains
    if LONGEST in found.same:
        yield f"{_capital(found.finalist)} is the longest-trained teacher."
    elif LONGEST in gains:
        yield f"Its gain over the longest-trained teacher is {_gain(gains[LONGEST])} {_between(gains[LONGEST])}."
    for arm in gains:
        if arm.startswith(YOURS):
            yield f"Its gain over {_called(found, arm)} is {_gain(gains[arm])} {_between(gains[arm])}."
    if ECONOMY in gains and ECONOMY not in found.same and found.economy_cost is not None:
        level = look_level(found.look)
        yield f"{_capital(economy_words(-gains[ECONOMY], found.margin, found.economy_cost, level=level).words)}."
    for arm in found.failed:
        yield f"{_capital(_called(found, arm))} could not {'teach' if arm.startswith(YOURS) else 'be trained'}."
    if found.left_out:
        yield f"Left out: {', '.join(_LEFT_OUT[arm] for arm in found.left_out)}."


def _scope(found: Comparisons) -> str:
    """What the verdict is about, and what it is not."""
    under = [] if ACCURATE_T in found.rivals else ["at this temperature"]
    under += [] if found.lr_checked else ["under this learning-rate rule"]
    conditions = f", {' and '.join(under)}" if under else ""
    if found.claim == "this teacher":
        snapshot = "the exported snapshot" if found.finalist == THE_BEST else f"the snapshot of {found.finalist}"
        return (
            f"This is about {snapshot} and fresh students only ({found.students} of them), not about the "
            f"point in general{conditions}."
        )
    return f"This is about fresh teachers of the point ({found.teachers} x {found.students} students){conditions}."


def _reservations(found: Comparisons, finalists: int) -> Iterator[str]:
    shared = f", shared by {finalists} finalists" if finalists > 1 else ""
    yield (
        f"Decided with an error of {100 * look_level(found.look):.3g} %{shared}, as look {found.look} of this study "
        f"may have: all its looks together err in at most {100 * ERROR:g} %."
    )
    if found.was_exported:
        yield "Test accuracies of this data were exported to a table: its test split is not unseen."


@dataclass(frozen=True)
class Economy:
    """Whether a cheaper teacher is as good as the best point: True, False or None (undecided), and in words."""

    confirmed: bool | None
    words: str


def economy_words(gain_of_economy_over_best: Interval, margin: float, cost_ratio: float, *, level: float) -> Economy:
    """Whether the cheapest teacher is not worse than the best point by more than the margin.

    Non-inferiority: it is as good where the one-sided lower bound of its gain is above ``-margin``, not as good where
    the upper bound is below it.

    Args:
        cost_ratio: the seconds to train it, as a share of those of the best point's teacher.
        level: the one-sided error that this look may make, of each bound.
    """
    gain, cost = gain_of_economy_over_best, f"{_share(cost_ratio)} of the teacher's training"
    lower, upper = gain.lower(level), gain.upper(level)
    sure = f"with {_sure(level)} confidence"
    matters = f"where a loss of {_points(margin)} does not matter"
    if lower > -margin:
        bound = f"at least {_signed(lower)} {sure}, {matters}"
        return Economy(True, f"the cheapest teacher is as good, at {cost}: {_gain(gain)} ({bound})")
    if upper < -margin:
        bound = f"at most {_signed(upper)} {sure}, {matters}"
        return Economy(False, f"the cheapest teacher is not as good, at {cost}: {_gain(gain)} ({bound})")
    open_words = f"whether the cheapest teacher is as good, at {cost}, is undecided: {_gain(gain)}"
    bounds = f"at least {_signed(lower)} and at most {_signed(upper)}, each {sure}"
    return Economy(None, f"{open_words} ({bounds}), {matters}")


def _share(ratio: float) -> str:
    """A share as people say it, like "1/3"; with "about" where it is not nearly that."""
    if ratio > 0.95:
        return f"{100 * ratio:.0f} %"
    simple = [(top, bottom) for bottom in range(2, 11) for top in range(1, bottom)]
    small = [(1, bottom) for bottom in range(11, 101)]
    top, bottom = min(simple + small, key=lambda share: abs(share[0] / share[1] - ratio))
    return f"{'' if abs(top / bottom - ratio) < 0.03 * ratio else 'about '}{top}/{bottom}"


# -- phrases ----------------------------------------------------------------------------------------------------------


def _called(found: Comparisons, arm: str) -> str:
    if arm.startswith(YOURS):
        return f"your teacher {found.names.get(arm, '')}".rstrip()
    return _NAMES.get(arm, arm.replace("_", " "))


def _and(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _gain(gain: Interval) -> str:
    return f"{_signed(gain.mean)} points"


def _signed(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # adding 0.0 makes a rounded -0.0 positive


def _at_least(gain: Interval, level: float) -> str:
    return f"(at least {_signed(gain.lower(level))} with {_sure(level)} confidence)"


def _at_most(gain: Interval, margin: float, level: float) -> str:
    matters = f", where less than {_points(margin)} does not matter" if margin else ""
    return f"(at most {_signed(gain.upper(level))} with {_sure(level)} confidence{matters})"


def _between(gain: Interval, level: float = 0.025) -> str:
    """The interval whose bounds may each err with a probability of ``level``."""
    low, high = gain.lower(level), gain.upper(level)
    return f"({_sure(2 * level)} interval {_signed(low)} to {_signed(high)})"


def _sure(error: float) -> str:
    return f"{100 * (1 - error):.4g} %"
