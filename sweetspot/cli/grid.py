"""``sweetspot grid``: every point of a study with several teachers and students each, and the table of it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sweetspot.cli.imports import uncollected
from sweetspot.cli.options import (
    Artifacts,
    Data,
    Dataset,
    Device,
    Json,
    LogFile,
    Quiet,
    Seed,
    Set,
    Storage,
    StudyFile,
    StudyName,
    Workers,
    WorkersPerGPU,
    on_each_gpu,
    worker_count,
)
from sweetspot.cli.printing import print_json


def grid(
    recorded: StudyName = None,
    dataset: Dataset = None,
    study: StudyFile = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Name of the study.", show_default="after file or data set, with -grid"),
    ] = None,
    teachers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=1000, help="Teachers of each point, seeds 0 and on.", show_default="1"),
    ] = None,
    replicates: Annotated[
        int | None,
        typer.Option(
            metavar="R", min=1, max=1000, help="Students of each teacher.", show_default="the study's replicates.max"
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write the table there, once it is complete.", show_default="none"),
    ] = None,
    with_test: Annotated[
        bool,
        typer.Option(
            "--with-test",
            help="For benchmarks only: with test accuracies. Every later verdict on this data counts the look.",
        ),
    ] = False,
    workers: Workers = "auto",
    workers_per_gpu: WorkersPerGPU = 1,
    device: Device = "auto",
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
    set_: Set = None,
    log_file: LogFile = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Record every point of a study, and write it as a table. Run again, it continues.

    With --dataset or --study it records; with the name of a study that is recorded and --export it writes its table.
    """
    records = dataset is not None or study is not None
    _check(records, recorded, name, export, with_test, {
        "--teachers": teachers, "--replicates": replicates, "--set": set_, "--seed": seed, "--log-file": log_file,
    })  # fmt: skip

    from rich.console import Console

    from sweetspot.study_file import default_name, drafted

    told: dict[str, Any] = {}
    console = Console(stderr=True)
    if records:
        config = drafted(dataset, study, set_, {"seed": ("--seed", seed)}).config()
        with uncollected():
            from sweetspot.workers.grid import SUFFIX, grid_config
            from sweetspot.workers.optimize import Run, run_study
        config = grid_config(config, teachers, replicates)
        run = Run(
            name=name if name is not None else default_name(config.data.dataset, study) + SUFFIX,
            storage=storage,
            artifacts=artifacts,
            data=data,
            workers=worker_count(workers),
            workers_per_gpu=on_each_gpu(workers_per_gpu, workers, device),
            device=device,
            trials=config.search.trials,
            log=log_file,
        )
        result = run_study(config, run, console, quiet=quiet)
        recorded = result.name
        told = {"study": recorded, "trials": result.trials_dict(), "cost": result.cost_dict()}
    if export is not None:
        from sweetspot.report.table import table_dict, table_text
        from sweetspot.workers.grid import export_table

        table = export_table(
            recorded or name, export, Console(stderr=True, quiet=quiet),
            with_test=with_test, storage=storage, artifacts=artifacts, data=data, device=device,
        )  # fmt: skip
        told |= table_dict(table) | {"export": str(export)}
    if json_:
        print_json(told)
    elif export is not None and not quiet:
        print(f"wrote {export}: {table_text(table)}")
    elif not quiet:
        print(f"recorded {recorded}: sweetspot grid {shlex.quote(str(recorded))} --export FILE.json writes its table")


def _check(
    records: bool,
    recorded: str | None,
    name: str | None,
    export: Path | None,
    with_test: bool,
    of_recording: Mapping[str, Any],
) -> None:
    """Refuse options that do not go together, before anything is imported or created.

    Args:
        records: whether there is something to record.
        of_recording: the options that only that needs.

    Raises:
        UserError: says which.
    """
    from sweetspot.errors import UserError
    from sweetspot.report.table import check_export

    if records and recorded is not None:
        raise UserError(f"{recorded!r} stands beside --dataset or --study: name what is to be recorded with --name")
    if not records and export is None:
        raise UserError("what is to be recorded? Give --dataset or --study; or --export, and a study that is recorded")
    given = [option for option, value in of_recording.items() if value is not None]
    if not records and given:
        raise UserError(f"{given[0]} is about what is to be recorded: give --dataset or --study, too")
    if recorded is not None and name is not None:
        raise UserError(f"{recorded!r} and --name {name!r} both name a study: give one of them")
    if with_test and export is None:
        raise UserError("--with-test is about what the table has: give --export, too")
    if export is not None:
        check_export(export)
