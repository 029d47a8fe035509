"""``sweetspot snapshots``: shows, checks and frees what the store keeps of teachers."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Json, Storage
from sweetspot.cli.printing import print_json, print_rich

app = typer.Typer()

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Show, check and free what is kept of networks."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def ls(storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """The trajectories: their snapshots, what they take, and which studies use them."""
    from sweetspot.report.snapshots import branches_list, branches_table
    from sweetspot.store import Store
    from sweetspot.study.housekeeping import branches

    with Store(storage, artifacts) as store:
        found = branches(store)
    if json_:
        print_json(branches_list(found))
    elif not found:
        print("no snapshot yet: sweetspot optimize and sweetspot entropy make them")
    else:
        print_rich(branches_table(found))


@app.command()
def du(storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """What the artifacts take, by what it is."""
    from sweetspot.report.snapshots import usage_dict, usage_text
    from sweetspot.store import Store
    from sweetspot.store.url import shown
    from sweetspot.study.housekeeping import usage

    with Store(storage, artifacts) as store:
        found = usage(store)
    print_json(usage_dict(found)) if json_ else print_rich(usage_text(found, shown(store.artifacts_url)))


@app.command()
def verify(storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """Read every blob and compare it with its name; what is damaged is put aside and will be trained again."""
    from sweetspot.errors import RunError
    from sweetspot.report.snapshots import verification_dict, verification_text
    from sweetspot.store import Store
    from sweetspot.study.housekeeping import verify as verify_store

    with Store(storage, artifacts) as store, _progress("verifying") as steps:
        found = verify_store(store, steps)
    print_json(verification_dict(found)) if json_ else print_rich(verification_text(found))
    if found.damaged:
        count = len(found.damaged)
        raise RunError(f"{count} blob{'s were' if count > 1 else ' was'} damaged; nothing of it is used any more")


@app.command()
def gc(
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Free snapshots too, those used longest ago first, until this is what remains: 50GB, 800MB.",
            show_default="only what nothing refers to is freed",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, and free nothing.")] = False,
    storage: Storage = None,
    artifacts: Artifacts = None,
    json_: Json = False,
) -> None:
    """Free what nothing refers to; never what a trial, a branch or a recommendation needs."""
    limit = None if max_size is None else parse_size(max_size)

    from sweetspot.errors import RunError
    from sweetspot.report.snapshots import collection_dict, collection_text
    from sweetspot.report.text import size
    from sweetspot.store import Store
    from sweetspot.study.housekeeping import collect

    with Store(storage, artifacts) as store, _progress("freeing") as steps:
        found = collect(store, limit, dry_run=dry_run, steps=steps)
    print_json(collection_dict(found, dry_run=dry_run)) if json_ else print_rich(
        collection_text(found, dry_run=dry_run)
    )
    if limit is not None and found.kept > limit:
        reasons = "; ".join(f"{count} of them because {why}" for why, count in found.needed.items())
        raise RunError(
            f"{size(found.kept)} remain, above {max_size}: students and needed snapshots stay"
            f"{f' ({reasons})' if reasons else ''}; sweetspot delete removes a study with its networks"
        )


def parse_size(text: str) -> int:
    """Bytes of "50GB", "800 MB" or "1.5tb"; a plain number is bytes.

    Raises:
        UserError: if it is none of these.
    """
    from sweetspot.errors import UserError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f"--max-size {text!r}: give a size such as 50GB, 800MB or 0")
    return int(float(match[1]) * _UNITS[(match[2] or "B").upper()])


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """A bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:

        def steps(count: int) -> Callable[[], None]:
            task = bar.add_task(what, total=count)
            return lambda: bar.advance(task)

        yield steps
