"""``sweetspot export``: the best point's teacher and a student of it, as files."""

from pathlib import Path
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Data, Device, Json, Quiet, Storage, StudyName
from sweetspot.cli.printing import print_json, print_rich


def export(
    study: StudyName = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder that is made; an earlier export there is replaced as a whole, anything else is left alone.",
        ),
    ] = ...,  # type: ignore[assignment]
    device: Device = "auto",
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write the best point's teacher and student as files. A model card says what they are and how to load them."""
    from rich.console import Console

    from sweetspot.workers.export import export as write_export

    console = Console(stderr=True, quiet=quiet)
    found = write_export(study, output, console, storage=storage, artifacts=artifacts, data=data, device=device)
    if json_:
        print_json({"folder": str(found.folder), **found.values})
    elif not quiet:
        from sweetspot.report.card import export_text

        print_rich(export_text(found.values, str(found.folder)))
