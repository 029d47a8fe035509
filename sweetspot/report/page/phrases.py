"""How a report puts numbers, times and facts. Plain text, as all of its sentences: whoever writes a file escapes it."""

import re
from dataclasses import dataclass
from datetime import datetime

from sweetspot.study.inference import Interval


@dataclass(frozen=True)
class Fact:
    what: str
    text: str


def percent(fraction: float) -> str:
    """To be told from the 95 % interval's own sign: a number and its unit stay on one line."""
    return f"{100 * fraction:.2f}\u00a0%"


def between(low: float, high: float) -> str:
    """An interval of accuracies."""
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"


def gained(interval: Interval) -> str:
    """A difference in percentage points, with its interval."""
    mean, low, high = (f"{round(100 * v, 2) + 0.0:+.2f}" for v in (interval.mean, interval.low, interval.high))
    return typeset(f"{mean} points (95 % interval {low} to {high})")


def typeset(text: str) -> str:
    """With a true minus before numbers, and no line that ends between a number and its "%"."""
    return re.sub(r"(?<=\d) %", "\u00a0%", re.sub(r"(?<![\w.])-(?=\d)", "−", text))


def moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
