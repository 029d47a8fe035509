"""``sweetspot doctor``: is everything there that a run needs, and what is to be done about what is not?"""

from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Data, Device, Json, Storage
from sweetspot.cli.printing import print_json, print_rich


def doctor(
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Open this data set, too, if it needs no download.", show_default="none"),
    ] = None,
    device: Device = "auto",
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
    json_: Json = False,
) -> None:
    """Check versions, devices, database, artifacts and data. Each is ok, or it says what to do. Makes nothing.

    Exit status 1 if something is wrong.
    """
    from sweetspot.report.doctor import checks_text
    from sweetspot.workers.doctor import examine

    checks = examine(storage=storage, artifacts=artifacts, data=data, dataset=dataset, device=device)
    print_json([check.to_dict() for check in checks]) if json_ else print_rich(checks_text(checks))
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(1)
