"""The options that several commands share."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Data set, with its built-in study: see sweetspot datasets; or imagefolder:PATH, npz:PATH."
    ),
]
StudyFile = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE.toml", help="Built-in study or study file.", show_default="the data set's"),
]
Teacher = Annotated[str | None, typer.Option(metavar="MODEL", help="Teacher network.", show_default="the study's")]
Workers = Annotated[str, typer.Option(metavar="N|auto", help="Worker processes. auto: one per GPU, else one per core.")]
WorkersPerGPU = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="With --workers auto: so many on each GPU, for small networks."),
]
LogFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append what the workers log there, with times.", show_default="none"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any field of the study file, e.g. --set search.batch_size=[64,128]; may be repeated.",
        show_default="none",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Seed of split, networks and search.", show_default="the study's"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="SWEETSPOT_STORAGE",
        show_envvar=True,
        show_default="sqlite file in SWEETSPOT_HOME",
        help="Database: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.",
    ),
]
Artifacts = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="SWEETSPOT_ARTIFACTS",
        show_envvar=True,
        show_default="folder 'artifacts' beside the sqlite file, else in SWEETSPOT_HOME",
        help="Where networks are kept: a folder, s3://… or gs://….",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="SWEETSPOT_DATA",
        show_envvar=True,
        show_default="folder 'data' in SWEETSPOT_HOME",
        help="Folder of the data sets that are downloaded.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto (GPUs where there are any), cpu, cuda, or cuda:0,cuda:1,….")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
StudyName = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", show_default="the only study there is", help="A study's name.")
]


StorageFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="SWEETSPOT_STORAGE_FILE",
        show_envvar=True,
        show_default="none",
        help="File whose one line is the database's URL, password and all.",
    ),
]


def with_storage_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes ``--storage`` takes its value from ``--storage-file``, too; any other stays as it is."""
    signature = inspect.signature(command, eval_str=True)
    if "storage" not in signature.parameters:
        return command

    def run(*, storage_file: Path | None = None, **given: Any) -> Any:
        if storage_file is not None:
            from sweetspot.errors import UserError
            from sweetspot.store.url import read_storage_file

            # What was written on the command line counts more than any variable.
            is_given = given["storage"] not in (None, os.environ.get("SWEETSPOT_STORAGE"))
            if is_given and str(storage_file) != os.environ.get("SWEETSPOT_STORAGE_FILE"):
                raise UserError("--storage and --storage-file both name a database: give one of them")
            if not is_given:
                given["storage"] = read_storage_file(storage_file)
        return command(**given)

    functools.update_wrapper(run, command)
    parameters = dict(signature.parameters)
    parameters["storage_file"] = inspect.Parameter(
        "storage_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=StorageFile
    )
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters.values()]
    del run.__wrapped__  # type: ignore[attr-defined]
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in keyword_only}
    return run


def offer_storage_file(app: typer.Typer) -> None:
    """Let every command of an app, and of the apps under it, that takes ``--storage`` take ``--storage-file``."""
    for info in app.registered_commands:
        if info.callback is not None:
            info.callback = with_storage_file(info.callback)
    main = app.registered_callback
    if main is not None and main.callback is not None:
        main.callback = with_storage_file(main.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            offer_storage_file(group.typer_instance)


def worker_count(text: str) -> int | None:
    """What ``--workers`` says; None: auto.

    Raises:
        UserError: if it is neither a number nor "auto".
    """
    from sweetspot.errors import UserError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--workers {text}: give a number of 1 or more, or auto")
    return int(text)


def on_each_gpu(count: int, workers: str, device: str) -> int:
    """What ``--workers-per-gpu`` says.

    Raises:
        UserError: if there is no GPU, or the number of workers is given.
    """
    from sweetspot.errors import UserError
    from sweetspot.training.device import devices

    if count > 1 and workers != "auto":
        raise UserError(f"--workers-per-gpu {count} goes with --workers auto, not with --workers {workers}")
    if count > 1 and devices(device) == ["cpu"]:
        raise UserError(f"--workers-per-gpu {count}: there is no GPU; --workers says how many share the processors")
    return count
