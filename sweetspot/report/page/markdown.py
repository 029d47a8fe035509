"""A report in GitHub's markdown: the same without pictures, the map as a table."""

from collections.abc import Iterator, Sequence

from sweetspot.report.markdown import code, escaped, fenced
from sweetspot.report.page import evidence, spending
from sweetspot.report.page.answer import answer
from sweetspot.report.page.contents import Report
from sweetspot.report.page.method import how_found
from sweetspot.report.page.provenance import repeating, versions, where_the_data_are
from sweetspot.report.page.tables import LEGEND, Table, points_table, text_map, trials_table
from sweetspot.report.page.toml import study_file
from sweetspot.report.sentences import counted, headline


def markdown(report: Report) -> str:
    """The whole file. Every text of the study is escaped: none of it is markup."""
    return "\n\n".join(_blocks(report)) + "\n"


def _blocks(report: Report) -> Iterator[str]:
    said = answer(report)
    yield f"# {escaped(headline(report.result))}"
    yield f"**{escaped(said.lead)}:** {escaped(said.rest)}"
    if said.remarks:
        yield "\n".join(f"- {escaped(remark)}" for remark in said.remarks)
    yield "## The map"
    here = text_map(report)
    if here.rows:
        yield (
            "Mean validation accuracy of the students, in per cent, by batch size (rows) and epochs of the teacher "
            "(columns). \\* is the best point; in brackets are points with too few steps for the sweet spot."
        )
        yield _table(here)
    else:
        yield "No point has been visited yet."
    yield "## How it was found"
    yield "\n".join(f"- **{fact.what}**: {escaped(fact.text)}" for fact in how_found(report))
    yield "## The evidence"
    yield from map(escaped, evidence.confirmation(report))
    if arms := evidence.arms(report):
        heads = ("students of", "point", "students", "test accuracy [95 % interval]", "gain of the best point over it")
        rows = [(arm.name, arm.point, str(arm.students), arm.accuracy, arm.gain) for arm in arms]
        yield _lines(heads, (False, False, True, False, False), rows)
    if verdict := evidence.verdict(report):
        yield f"**Verdict.** {escaped(verdict)}"
    yield from map(escaped, evidence.likeness(report))
    yield "## What was pruned, and why"
    yield from map(escaped, spending.pruned(report))
    if aside := spending.set_aside(report):
        reasons = [(str(point.point), point.state, point.reason or "") for point in aside]
        yield _lines(("point", "state", "why"), (False, False, False), reasons)
    yield "## What it cost"
    yield escaped(spending.cost(report))
    yield "## All points and trials"
    yield escaped(LEGEND)
    for noun, table in (("point", points_table(report)), ("trial", trials_table(report))):
        if table.rows:
            yield f"### {counted(len(table.rows), noun)}"
            yield _table(table)
    yield "## The configuration that repeats it"
    where = escaped(where_the_data_are(report))
    yield f"Saved as a file, it repeats the study with {code(repeating(report))}." + (f" {where}" if where else "")
    yield fenced(study_file(report.config), "toml")
    yield "## Versions"
    yield "\n".join(f"- **{fact.what}**: {escaped(fact.text)}" for fact in versions(report))


def _table(table: Table) -> str:
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    return _lines([c.title for c in table.columns], [c.is_number for c in table.columns], rows)


def _lines(heads: Sequence[str], are_numbers: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if is_number else "---" for is_number in are_numbers]
    lines = [list(map(escaped, heads)), rule, *(list(map(escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
