"""``sweetspot report``: a study as one file, for people or for programs."""

from pathlib import Path
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Json, Storage, StudyName
from sweetspot.cli.printing import print_json


def report(
    study: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html|.md|.json",
            help="Write it there: a page, markdown, or numbers. A file of that name is replaced.",
            show_default="STUDY-report.html",
        ),
    ] = None,
    storage: Storage = None,
    artifacts: Artifacts = None,
    json_: Json = False,
) -> None:
    """Write a study as one file to hand on. The answer, the map, the evidence, what was pruned, the cost, every trial.

    The page is one file that needs no network. With --json alone the numbers are printed, and nothing is written.
    """
    from sweetspot.report.output import check_output, write_output
    from sweetspot.report.page.contents import read_report
    from sweetspot.report.page.files import SUFFIXES, content, default_name
    from sweetspot.store import Store

    if output is not None:
        check_output(output, SUFFIXES)
    with Store(storage, artifacts) as store:
        found = read_report(store, study)
    if output is None and not json_:
        output = Path(default_name(found))
        check_output(output, SUFFIXES)
    if output is not None:
        write_output(output, content(found, output.suffix.lower()))
    if json_:
        from sweetspot.report.page.numbers import numbers

        print_json(numbers(found))
    else:
        print(f"wrote {output}")
