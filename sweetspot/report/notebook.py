"""A result as notebooks show it."""

import base64
from contextlib import suppress
from html import escape
from statistics import fmean

from sweetspot.report.figures.accuracy_map import accuracy_map
from sweetspot.report.figures.matplotlib import picture
from sweetspot.report.figures.parts import accuracy_words
from sweetspot.report.figures.spec import NothingToShow
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import by_state, counted, finished, headline, percent

_ROWS = 5
_STYLE = "background: #fff; color: #222; padding: 8px 12px; font-family: system-ui, sans-serif; max-width: 1000px"


def html_of(result: StudyResult) -> str:
    """The study, the best point, the verdict, the map, and the best of the points."""
    lines = [f"{finished(result)} ({by_state(result)})."]
    if result.best is not None:
        best = result.best
        lines.append(
            f"Best point{'' if result.confirmation else ' so far'}: {best.point}, {percent(fmean(best.accuracies))} "
            f"validation accuracy of {counted(len(best.accuracies), 'student')} (chosen as the "
            "best, so partly luck)."
        )
        lines.append(f"Verdict: {result.verdict}")
    said = "".join(f"<p style='margin: 4px 0'>{escape(line)}</p>" for line in lines)
    return f"<div style='{_STYLE}'><b>{escape(headline(result))}</b>{said}{_map(result)}{_table(result)}</div>"


def _map(result: StudyResult) -> str:
    with suppress(NothingToShow):
        figure = accuracy_map(result)
        data = base64.b64encode(picture(figure, "png")).decode()
        return f"<img style='max-width: 100%' alt='{escape(figure.title)}' src='data:image/png;base64,{data}'>"
    return ""


def _table(result: StudyResult) -> str:
    """The best points, best first."""
    rank = {each.point: i for i, each in enumerate(result.ranked)}
    points = sorted((p for p in result.points if p.mean is not None), key=lambda p: rank[p.point])[:_ROWS]
    if not points:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("point", "teacher steps", "validation accuracy", "S, nats"))
    rows = "".join(
        f"<tr><td>{escape(str(p.point))}</td><td>{p.steps:,}</td><td>{accuracy_words(p)}</td>"
        f"<td>{'' if p.similarity_entropy is None else f'{p.similarity_entropy:.3f}'}</td></tr>"
        for p in points
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
