"""A report in GitHub's markdown: the same without pictures, the map as a table."""

import re
from collections.abc import Iterator, Sequence

from sweetspot.report.notes import code
from sweetspot.report.page import words
from sweetspot.report.page.contents import Report
from sweetspot.report.page.tables import Table, points_table, text_map, trials_table
from sweetspot.report.page.toml import study_file
from sweetspot.report.page.usage import repeating

_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!$]|:(?=//)|(?<=www)\.")


def markdown(report: Report) -> str:
    """The whole file. Every text of the study is escaped: none of it is markup."""
    return "\n\n".join(_blocks(report)) + "\n"


def _blocks(report: Report) -> Iterator[str]:
    answer = words.answer(report)
    yield f"# {escaped(words.title(report))}"
    yield f"**{escaped(answer.lead)}:** {escaped(answer.rest)}"
    if answer.remarks:
        yield escaped(" ".join(answer.remarks))
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
    yield "\n".join(f"- **{fact.what}**: {escaped(fact.text)}" for fact in words.how_found(report))
    yield "## The evidence"
    yield from map(escaped, words.confirmation(report))
    if arms := words.arms(report):
        heads = ("students of", "point", "students", "test accuracy [95 % interval]", "gain of the best point over it")
        rows = [(arm.name, arm.point, str(arm.students), arm.accuracy, arm.gain) for arm in arms]
        yield _lines(heads, (False, False, True, False, False), rows)
    if verdict := words.verdict(report):
        yield f"**Verdict.** {escaped(verdict)}"
    yield from map(escaped, words.likeness(report))
    yield "## What was pruned, and why"
    yield from map(escaped, words.pruned(report))
    if aside := words.set_aside(report):
        reasons = [(str(point.point), point.state, point.reason or "") for point in aside]
        yield _lines(("point", "state", "why"), (False, False, False), reasons)
    yield "## What it cost"
    yield escaped(words.cost(report))
    yield "## All points and trials"
    yield escaped(words.LEGEND)
    for noun, table in (("point", points_table(report)), ("trial", trials_table(report))):
        if table.rows:
            yield f"### {words.counted(len(table.rows), noun)}"
            yield _table(table)
    yield "## The configuration that repeats it"
    yield f"Saved as a file, it repeats the study with {code(repeating(report))}."
    yield _fenced(study_file(report.result.config), "toml")
    yield "## Versions"
    yield "\n".join(f"- **{fact.what}**: {escaped(fact.text)}" for fact in words.versions(report))


def escaped(text: str) -> str:
    """Text that means itself, on one line: no character of it is markup, an HTML tag, a formula or a link."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(re.split(r"[\r\n\t]+", text)))


def _table(table: Table) -> str:
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    return _lines([c.title for c in table.columns], [c.is_number for c in table.columns], rows)


def _lines(heads: Sequence[str], are_numbers: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if is_number else "---" for is_number in are_numbers]
    lines = [list(map(escaped, heads)), rule, *(list(map(escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str, language: str) -> str:
    """A block of code that nothing in ``text`` ends."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
