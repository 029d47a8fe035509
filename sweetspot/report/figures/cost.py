"""What a study has cost so far, and what sharing has saved."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from optuna.trial import FrozenTrial, TrialState

from sweetspot.report.figures.parts import count_axis, title
from sweetspot.report.figures.spec import (
    Axis,
    Band,
    Bars,
    Figure,
    Key,
    Layer,
    Legend,
    Line,
    NothingToShow,
    Panel,
    Rule,
    Tick,
)
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import cost as spent
from sweetspot.report.sentences import duration

_MOST_ON_A_LINE = 400
_PHASES = {"teacher": "teachers", "measuring": "measuring", "students": "students", "waiting": "waiting"}
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def cost(result: StudyResult) -> Figure:
    """Along the trials that have finished, in that order, those of the confirmation last.

    Raises:
        NothingToShow: before a trial has finished.
    """
    search, confirming = _ended(result.trials), _ended(result.confirming)
    trials = [*search, *confirming]
    if not trials:
        raise NothingToShow(f"no trial of the study {result.name!r} has finished yet: nothing is counted before")
    asked = _sums(t.user_attrs.get("epochs_reached", 0) if t.state in _COUNTED else 0 for t in trials)
    trained = _sums(t.user_attrs.get("epochs_trained", 0) for t in trials)
    students = _sums(t.user_attrs.get("student_epochs", 0) for t in trials)
    kept = _thinned(len(asked))
    x = tuple(float(i) for i in kept)

    def at(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[i] for i in kept)

    begins: list[Layer] = [Rule("x", len(search) + 0.5, "accent")] if confirming and search else []
    teachers: list[Layer] = [
        *begins,
        Band(x, at(trained), tuple(map(max, at(trained), at(asked))), 0.55),
        Line(x, at(asked), "muted", is_dashed=True, hover=_hovers(kept, asked, "asked for")),
        Line(x, at(trained), "ink", 2.4, hover=_hovers(kept, trained, "trained")),
    ]
    axis = count_axis("finished trials", len(trials))
    keys = [
        Key("asked for", None, "muted", line="dashed"),
        Key("trained", None, line="solid"),
        Key("saved by sharing", "swatch", 0.55, is_faint=True),
        *([Key("confirmation begins", None, "accent", line="dashed")] if begins else []),
    ]
    return Figure(
        "cost",
        title(result, "what it has cost so far"),
        _words(result),
        (
            Panel(
                "Teacher epochs, summed", axis, _from_zero("epochs", [*asked, *trained]), tuple(teachers), is_wide=True
            ),
            Panel(
                "Student epochs, summed", axis, _from_zero("epochs", students),
                (*begins, Line(x, at(students), "ink", 2.4, hover=_hovers(kept, students, "trained"))),
            ),
            _times(trials),
        ),
        (Legend("teacher epochs", tuple(keys)),),
        columns=2,
        height=620,
    )  # fmt: skip


def _ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that cannot spend any more, as they ended."""
    ended = [t for t in trials if t.state.is_finished() and "epochs_trained" in t.user_attrs]
    return sorted(ended, key=lambda t: (str(t.datetime_complete), t.number))


def _sums(values: Iterable[float]) -> list[float]:
    """From 0, before the first trial."""
    return [0.0, *(float(value) for value in accumulate(values))]


def _thinned(count: int) -> list[int]:
    step = -(-count // _MOST_ON_A_LINE)
    return sorted({*range(0, count, step), count - 1})


def _hovers(kept: Sequence[int], sums: Sequence[float], what: str) -> tuple[str, ...]:
    return tuple(f"after {i:,} trials: {sums[i]:,.0f} epochs {what}" for i in kept)


def _from_zero(label: str, values: Sequence[float]) -> Axis:
    return Axis(label, low=0, high=max(1.0, *values) * 1.05)


def _times(trials: Sequence[FrozenTrial]) -> Panel:
    took = {
        words: sum(t.user_attrs.get("seconds", {}).get(name, 0.0) for t in trials) for name, words in _PHASES.items()
    }
    names = list(reversed(took))
    unit, seconds = _unit(max(took.values()))
    values = tuple(took[name] / seconds for name in names)
    return Panel(
        "Worker time",
        Axis(unit, low=0, high=max(*values, 1e-9) * 1.3),
        Axis(scale="category", ticks=tuple(Tick(float(i), name) for i, name in enumerate(names))),
        (
            Bars(
                values,
                tuple(map(float, range(len(names)))),
                "muted",
                tuple(duration(took[name]) for name in names),
                tuple(f"{name}: {duration(took[name])}" for name in names),
            ),
        ),
    )


def _unit(seconds: float) -> tuple[str, float]:
    """The unit in which so long a time is a small number, and its seconds."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return unit, size
    return "seconds", 1.0


def _words(result: StudyResult) -> tuple[str, ...]:
    return (
        f"{spent(result)}, waiting not counted.",
        "Epochs that other studies had trained before count as shared; those of failed trials as trained alone.",
    )
