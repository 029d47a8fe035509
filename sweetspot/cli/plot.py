"""``sweetspot plot``: a figure of a study as a file."""

from pathlib import Path
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Storage, StudyName


def plot(
    figure: Annotated[
        str, typer.Argument(metavar="map|entropy|tradeoff|steps|cost|confirm", help="Which figure.", show_default=False)
    ],
    study: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.png|.svg|.html",
            help="Write it there: a picture, a drawing, or a page to look around in.",
            show_default="STUDY-FIGURE.png in this folder",
        ),
    ] = None,
    storage: Storage = None,
    artifacts: Artifacts = None,
) -> None:
    """Draw a figure of a study as it stands."""
    from sweetspot.errors import unknown_name
    from sweetspot.report.figures.catalogue import FIGURES
    from sweetspot.report.figures.files import SUFFIXES, content
    from sweetspot.report.output import check_output, file_stem, write_output

    if figure not in FIGURES:
        raise unknown_name("figure", figure, FIGURES)
    if output is not None:
        check_output(output, SUFFIXES)

    from sweetspot.report.result import read_result
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        result = read_result(store, study, with_curves=True)
    drawn = FIGURES[figure](result)
    if output is None:
        output = Path(f"{file_stem(result.name)}-{figure}.png")
        check_output(output, SUFFIXES)
    write_output(output, content(drawn, output.suffix.lower()))
    print(f"wrote {output}")
