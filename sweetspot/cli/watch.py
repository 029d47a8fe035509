"""``sweetspot watch``: follow a study that runs elsewhere."""

from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Json, Storage, StudyName


def watch(
    study: StudyName = None,
    interval: Annotated[float, typer.Option(metavar="S", help="Seconds between looks at the database.")] = 2.0,
    storage: Storage = None,
    artifacts: Artifacts = None,
    json_: Json = False,
) -> None:
    """Follow a study that runs elsewhere. Map, best point, workers and when it will be over, until it is done.

    Where the output is no terminal: one line per event; with --json one object per line. Ctrl-C leaves the study alone.
    """
    from rich.console import Console

    from sweetspot.report.watch_view import watch_view
    from sweetspot.workers.watch import watch_study

    view = watch_view(Console(highlight=False), as_json=json_)
    watch_study(study, view, storage=storage, artifacts=artifacts, interval=interval)
