"""``sweetspot workers``: who works, on what, and asking them to stop."""

import os
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Json, Storage
from sweetspot.cli.printing import print_json, print_rich
from sweetspot.errors import UserError, unknown_name

app = typer.Typer()


@app.callback(invoke_without_command=True)
def main(context: typer.Context, storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """The workers of all machines. Where they are, what they train, and when they were last heard of."""
    if context.invoked_subcommand is not None:
        given = {"--storage": storage, "--artifacts": artifacts, "--json": json_ or None}
        variables = {"--storage": "SWEETSPOT_STORAGE", "--artifacts": "SWEETSPOT_ARTIFACTS"}
        for option, value in given.items():
            if value is not None and value != os.environ.get(variables.get(option, "")):
                raise UserError(f"{option} before {context.invoked_subcommand}: put it after")
        return

    from sweetspot.report.workers import listed, workers_list, workers_table
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        found = listed(store.workers.all())
    if json_:
        print_json(workers_list(found))
    elif not found:
        print("no worker: sweetspot optimize starts some, sweetspot worker joins a study")
    else:
        print_rich(workers_table(found))


@app.command()
def drain(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A worker's name.", show_default="none")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every worker.")] = False,
    storage: Storage = None,
    artifacts: Artifacts = None,
) -> None:
    """Ask workers to stop: each saves its place at the next step, gives its trial back, and ends."""
    from sweetspot.store import Store

    if (name is None) != all_:
        raise UserError("which workers? give a NAME of sweetspot workers, or --all")
    with Store(storage, artifacts) as store:
        there = [worker for worker in store.workers.all() if not worker.ended]
        chosen = [worker for worker in there if all_ or worker.name == name]
        if name is not None and not chosen:
            raise unknown_name("worker", name, {worker.name for worker in there})
        store.workers.drain([worker.id for worker in chosen])
    for worker in chosen:
        print(f"asked {worker.name} to stop")
