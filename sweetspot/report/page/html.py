"""A report as one HTML file: everything is in it, and it asks nothing of the network."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sweetspot.report.figures.scheme import DARK, LIGHT, variables
from sweetspot.report.page import evidence, spending
from sweetspot.report.page.answer import answer
from sweetspot.report.page.contents import Report
from sweetspot.report.page.figures import drawn
from sweetspot.report.page.method import how_found
from sweetspot.report.page.phrases import moment
from sweetspot.report.page.provenance import repeating, versions, where_the_data_are
from sweetspot.report.page.tables import LEGEND, points_table, trials_table
from sweetspot.report.page.toml import study_file
from sweetspot.report.sentences import counted, headline

_HERE = Path(__file__).parent


def page(report: Report) -> str:
    """The whole file. It works from ``file://`` and, but for sorting, without JavaScript."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (_HERE / "sort.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        title=headline(report.result),
        written=moment(report.written),
        answer=answer(report),
        how_found=how_found(report),
        confirmation=evidence.confirmation(report),
        arms=evidence.arms(report),
        verdict=evidence.verdict(report),
        likeness=evidence.likeness(report),
        pruned=spending.pruned(report),
        aside=spending.set_aside(report),
        cost=spending.cost(report),
        legend=LEGEND,
        counted=counted,
        figures={figure.name: figure for figure in drawn(report)},
        points=points_table(report),
        trials=trials_table(report),
        toml=study_file(report.config),
        command=repeating(report),
        where=where_the_data_are(report),
        versions=versions(report),
        style=_trusted(_colours() + (_HERE / "report.css").read_text(encoding="utf-8")),
        script=_trusted(script),
        script_hash=_sha256(script),
    )


def _colours() -> str:
    """The variables that figures draw with, too; print is light whatever the screen is."""
    light, dark = (" ".join(f"{name}: {colour};" for name, colour in variables(s).items()) for s in (LIGHT, DARK))
    return (
        f":root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ {light} }} }}\n"
    )


def _trusted(text: str) -> Markup:
    """A file of this package: the one kind of text that is not escaped, beside pictures."""
    return Markup(text)


def _sha256(text: str) -> str:
    """As a content security policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
