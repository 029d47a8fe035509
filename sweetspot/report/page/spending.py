"""What a report says of what was pruned, and of what it all cost."""

from sweetspot.report import sentences
from sweetspot.report.page.contents import Report
from sweetspot.report.page.phrases import typeset
from sweetspot.report.points import PointSummary


def pruned(report: Report) -> list[str]:
    """What was pruned or could not be run, and how often pruning would have erred."""
    return [typeset(said) for said in sentences.pruning(report.result)]


def set_aside(report: Report) -> list[PointSummary]:
    """The points that were pruned, could not be run, or failed."""
    return [point for point in report.result.points if point.state in ("pruned", "infeasible", "failed")]


def cost(report: Report) -> str:
    """What the study has cost, and what sharing saved."""
    return typeset(f"{sentences.cost(report.result)}, the confirmation included.")
