"""``sweetspot teacher``: teachers that were trained elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Data, Dataset, Device, Json, Set, Storage, StudyFile
from sweetspot.cli.printing import print_json, print_rich

app = typer.Typer()


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Bring a teacher of your own, to be compared with those found."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="The network's state dict.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="Which network it is: see sweetspot models.")],
    epochs: Annotated[int, typer.Option(metavar="N", min=1, max=2**31 - 1, help="How long it was trained.")],
    dataset: Dataset = None,
    study: StudyFile = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it.", show_default="the file's name")
    ] = None,
    set_: Set = None,
    device: Device = "auto",
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
    json_: Json = False,
) -> None:
    """Register a network as a teacher: it is measured, and becomes an arm of confirmations on its data."""
    from sweetspot.study_file import drafted

    config = drafted(dataset, study, set_, {"teacher.model": ("--model", model)}).config()

    from sweetspot.report.external import added_dict, added_text
    from sweetspot.workers.external import add_teacher

    added = add_teacher(file, config, epochs, name=name, storage=storage, artifacts=artifacts, data=data, device=device)
    if json_:
        print_json(added_dict(added.teacher, added.studies, added.measured))
    else:
        print_rich(added_text(added.teacher, added.studies, added.measured, added.classes))


@app.command()
def ls(storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """The teachers that were added, and the studies on their data."""
    from sweetspot.report.external import listed, teacher_dict, teachers_table
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        found = listed(store)
    if json_:
        print_json([teacher_dict(teacher, studies) for teacher, studies in found])
    elif not found:
        print("no teacher was added: sweetspot teacher add brings one that was trained elsewhere")
    else:
        print_rich(teachers_table(found))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or the beginning of its weights' hash.")],
    storage: Storage = None,
    artifacts: Artifacts = None,
) -> None:
    """Forget a teacher that was added: later confirmations do without it."""
    from sweetspot.store import Store
    from sweetspot.workers.external import remove_teacher

    with Store(storage, artifacts) as store:
        removed = remove_teacher(store, name)
    print(f"removed {removed.name}")
