"""The figures of a study by the names that people call them by."""

from collections.abc import Callable, Mapping

from sweetspot.report.figures.accuracy_map import accuracy_map
from sweetspot.report.figures.confirmation import confirmation
from sweetspot.report.figures.cost import cost
from sweetspot.report.figures.entropy import entropy
from sweetspot.report.figures.spec import Figure
from sweetspot.report.figures.steps import steps
from sweetspot.report.figures.tradeoff import tradeoff
from sweetspot.report.result import StudyResult

FIGURES: Mapping[str, Callable[[StudyResult], Figure]] = {
    "map": accuracy_map,
    "entropy": entropy,
    "tradeoff": tradeoff,
    "steps": steps,
    "cost": cost,
    "confirm": confirmation,
}
"""Each raises :class:`sweetspot.report.figures.spec.NothingToShow` where its data is not there (yet)."""
