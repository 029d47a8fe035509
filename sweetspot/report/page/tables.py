"""The tables of a report: points and trials, as texts to read and values to sort by."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from optuna.trial import FrozenTrial

from sweetspot.report.page.contents import Report
from sweetspot.report.points import PointSummary
from sweetspot.study.search import is_given_back
from sweetspot.study.space import params_of, shown

Key = float | str | None
Mark = Literal["best", "set aside", ""]

LEGEND = (
    "Accuracies are those of the validation split, in per cent. S is similarity entropy, N similarity information and "
    "M delivered similarity of the teacher, on training views, in nats. Steps in brackets are too few for the sweet "
    "spot."
)


@dataclass(frozen=True)
class Column:
    """A column; one of numbers stands at the right and sorts by its values."""

    title: str
    meaning: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """``key`` is what it sorts by: None sorts last in either direction."""

    text: str
    key: Key

    @property
    def sort(self) -> str | None:
        """``key`` as an attribute of a page has it."""
        return f"{self.key:.7g}" if isinstance(self.key, int | float) else self.key


@dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def without_empty(self) -> "Table":
        """Without the columns in which no row says anything."""
        used = [any(row.cells[i].text for row in self.rows) for i in range(len(self.columns))]
        return Table(
            tuple(column for column, keep in zip(self.columns, used, strict=True) if keep),
            tuple(
                Row(tuple(cell for cell, keep in zip(row.cells, used, strict=True) if keep), row.mark)
                for row in self.rows
            ),
        )


# -- points -----------------------------------------------------------------------------------------------------------


def points_table(report: Report) -> Table:
    """One row per visited point, the ranked ones first, best first."""
    points = report.result.points
    rank = {ranked.point: place for place, ranked in enumerate(report.result.ranked)}
    names = _other_parameters([dict(p.point.others) for p in points])
    columns = (
        Column("batch", "batch size"),
        Column("epochs", "epochs of the teacher"),
        *(Column(name.replace(".", "\u200b."), name, is_number=_are_numbers(points, name)) for name in names),
        Column("steps", "steps of the teacher; in brackets where they are too few for the sweet spot"),
        Column("state", "what became of it", is_number=False),
        Column("students", "students that it has"),
        Column("student %", "mean validation accuracy of its students"),
        Column("95 % interval", "of that mean, from the spread of students within points"),
        Column("shrunken %", "that mean, drawn toward those of all points: what it is ranked by"),
        Column("teacher %", "validation accuracy of its teacher"),
        Column("S", "similarity entropy of its teacher, nats"),
        Column("N", "similarity information of its teacher, nats"),
        Column("M", "delivered similarity of its teacher, nats"),
        Column("why", "why it was set aside", is_number=False),
    )
    ordered = sorted(points, key=lambda p: rank.get(p.point, len(rank)))
    return Table(columns, tuple(_point_row(point, names) for point in ordered)).without_empty()


def _point_row(point: PointSummary, names: Sequence[str]) -> Row:
    others = dict(point.point.others)
    interval = Cell("", None)
    if point.low is not None and point.high is not None:
        interval = Cell(f"{100 * point.low:.1f} to {100 * point.high:.1f}", point.low)
    cells = (
        _number(point.point.batch_size, "{}"),
        _number(point.point.epochs, "{}"),
        *(_other(others.get(name)) for name in names),
        _number(point.steps, "({:,})" if point.is_under_trained else "{:,}"),
        Cell("best" if point.is_best else point.state, point.state),
        _number(len(point.accuracies), "{}"),
        _percent(point.mean),
        interval,
        _percent(point.shrunken),
        _percent(point.teacher_accuracy),
        _number(point.similarity_entropy, "{:.3f}"),
        _number(point.similarity_information, "{:.3f}"),
        _number(point.delivered_similarity, "{:.3f}"),
        Cell(point.reason or "", point.reason),
    )
    aside = point.state in ("pruned", "infeasible", "failed")
    return Row(cells, "best" if point.is_best else "set aside" if aside else "")


# -- trials -----------------------------------------------------------------------------------------------------------


def trials_table(report: Report) -> Table:
    """One row per trial, those given back left out."""
    trials = [trial for trial in report.result.trials if not is_given_back(trial)]
    params = [params_of(trial) for trial in trials]
    names = _other_parameters(params)
    numeric = {name: all(isinstance(p.get(name, 0.0), int | float) for p in params) for name in names}
    best = None if report.best is None else report.best.point.params
    columns = (
        Column("trial", "its number"),
        Column("batch", "batch size"),
        Column("epochs", "epochs of the teacher"),
        *(Column(name.replace(".", "\u200b."), name, is_number=numeric[name]) for name in names),
        Column("state", "what became of it", is_number=False),
        Column("student %", "mean validation accuracy of the students it had"),
        Column("±", "standard deviation of these, in percentage points"),
        Column("teacher %", "validation accuracy of its teacher"),
        Column("S", "similarity entropy of its teacher, nats"),
        Column("trained", "teacher epochs that it has trained"),
        Column("reused", "teacher epochs that were there"),
        Column("seconds", "of training and measuring; waiting is not counted"),
        Column("device", "where it ran", is_number=False),
        Column("why", "why it was pruned or failed", is_number=False),
    )
    rows = tuple(_trial_row(trial, p, names, best) for trial, p in zip(trials, params, strict=True))
    return Table(columns, rows).without_empty()


def _trial_row(trial: FrozenTrial, params: dict[str, Any], names: Sequence[str], best: dict[str, Any] | None) -> Row:
    attrs = trial.user_attrs
    accuracies: Sequence[float] = attrs.get("replicate_accuracies", [])
    seconds = [value for name, value in attrs.get("seconds", {}).items() if name != "waiting"]
    why = attrs.get("pruned_because") or attrs.get("infeasible") or attrs.get("error")
    state = "infeasible" if "infeasible" in attrs else trial.state.name.lower()
    cells = (
        _number(trial.number, "{}"),
        _number(params.get("batch_size"), "{}"),
        _number(params.get("epochs"), "{}"),
        *(_other(params.get(name)) for name in names),
        Cell(state, state),
        _percent(fmean(accuracies) if accuracies else None),
        _percent(stdev(accuracies) if len(accuracies) > 1 else None),
        _percent(attrs.get("teacher_accuracy")),
        _number(attrs.get("similarity_entropy"), "{:.3f}"),
        _number(attrs.get("epochs_trained"), "{}"),
        _number(attrs.get("epochs_reused"), "{}"),
        _number(sum(seconds) if seconds else None, "{:,.1f}"),
        Cell(str(attrs.get("device", "")), attrs.get("device")),
        Cell(str(why) if why else "", str(why) if why else None),
    )
    aside = state in ("pruned", "infeasible", "fail")
    return Row(cells, "set aside" if aside else "best" if best is not None and params == best else "")


# -- the map, in text -------------------------------------------------------------------------------------------------


def text_map(report: Report) -> Table:
    """Mean validation accuracy by batch size (rows) and epochs (columns), the best of several points in a cell."""
    points = report.result.points
    epochs = sorted({p.point.epochs for p in points})
    rows = []
    for size in sorted({p.point.batch_size for p in points}):
        here = {e: [p for p in points if (p.point.batch_size, p.point.epochs) == (size, e)] for e in epochs}
        rows.append(Row((_number(size, "{}"), *(_map_cell(here[e]) for e in epochs))))
    return Table((Column("batch \\ epochs"), *(Column(str(e)) for e in epochs)), tuple(rows))


def _map_cell(points: Sequence[PointSummary]) -> Cell:
    if not points:
        return Cell("", None)
    measured = [p for p in points if p.mean is not None]
    if not measured:
        return Cell(points[0].state, None)
    top = max(measured, key=lambda p: (p.is_best, p.mean or 0.0))
    text = f"{100 * (top.mean or 0.0):.2f}"
    return Cell(f"{text} *" if top.is_best else f"({text})" if top.is_under_trained else text, top.mean)


# -- cells ------------------------------------------------------------------------------------------------------------


def _number(value: float | None, form: str) -> Cell:
    return Cell("" if value is None else form.format(value), value)


def _percent(fraction: float | None) -> Cell:
    return _number(None if fraction is None else 100 * fraction, "{:.2f}")


def _other(value: float | str | None) -> Cell:
    return Cell("" if value is None else shown(value), value)


def _other_parameters(params: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({name for each in params for name in each} - {"batch_size", "epochs"})


def _are_numbers(points: Sequence[PointSummary], name: str) -> bool:
    return all(isinstance(dict(p.point.others).get(name, 0.0), int | float) for p in points)
