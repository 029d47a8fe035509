"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Data set, with its built-in study: see sweetspot datasets; or npz:PATH."),
]
StudyFile = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE.toml", help="Built-in study or study file.", show_default="the data set's"),
]
Teacher = Annotated[str | None, typer.Option(metavar="MODEL", help="Teacher network.", show_default="the study's")]
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
