"""The commands of ``sweetspot``. Each imports what it needs when it runs."""

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from sweetspot.cli import snapshots, teacher, workers
from sweetspot.cli.dashboard import dashboard
from sweetspot.cli.doctor import doctor
from sweetspot.cli.export import export
from sweetspot.cli.grid import grid
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
    Teacher,
    Workers,
    WorkersPerGPU,
    offer_storage_file,
    on_each_gpu,
    worker_count,
)
from sweetspot.cli.plot import plot
from sweetspot.cli.printing import print_json, print_rich
from sweetspot.cli.report import report
from sweetspot.cli.watch import watch
from sweetspot.errors import RunError

app = typer.Typer(
    name="sweetspot",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finds how long, and at which batch size, to train a teacher so that its student is best.",
)


def optimize(
    dataset: Dataset = None,
    study: StudyFile = None,
    name: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Name of the study.", show_default="after file or data set")
    ] = None,
    teacher: Teacher = None,
    student: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Student network.", show_default="the study's")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Total of finished trials, those of earlier runs included.",
            show_default="the stored total, else the study's",
        ),
    ] = None,
    workers: Workers = "auto",
    workers_per_gpu: WorkersPerGPU = 1,
    device: Device = "auto",
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
    set_: Set = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=0, help="Seconds after which the search starts no further trial.", show_default="none"
        ),
    ] = None,
    log_file: LogFile = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write traces of each worker there, for chrome://tracing, and say where the time went.",
            show_default="none",
        ),
    ] = None,
    seed: Seed = None,
    no_confirm: Annotated[bool, typer.Option("--no-confirm", help="Leave the confirmation out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the expected cost, and do nothing.")] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Find the sweet spot: search, confirm, and say what was found. Run again, it continues."""
    from sweetspot.study_file import default_name, drafted

    given = {
        "teacher.model": ("--teacher", teacher),
        "student.model": ("--student", student),
        "search.trials": ("--trials", trials),
        "seed": ("--seed", seed),
        "confirm.seeds": ("--no-confirm", 0 if no_confirm else None),
    }
    draft = drafted(dataset, study, set_, given)
    total = draft.overridden("search.trials")
    config = draft.config()

    from rich.console import Console

    with uncollected():
        from sweetspot.report.profile import profile_text, read_profile
        from sweetspot.workers.optimize import Run, plan, run_study

    run = Run(
        name=name if name is not None else default_name(config.data.dataset, study),
        storage=storage,
        artifacts=artifacts,
        data=data,
        workers=worker_count(workers),
        workers_per_gpu=on_each_gpu(workers_per_gpu, workers, device),
        device=device,
        trials=config.search.trials if total else None,
        timeout=timeout,
        log=log_file,
        profile=profile,
    )
    if dry_run:
        cost, sentence = plan(config, run)
        print_json(cost.to_dict()) if json_ else print(sentence)
        return
    try:
        result = run_study(config, run, Console(stderr=True), quiet=quiet)
    except (KeyboardInterrupt, RunError):
        if profile is not None and not quiet:
            Console(stderr=True, highlight=False).print(profile_text(profile), soft_wrap=True)
        raise
    if json_:
        print_json(result.to_dict() | ({} if profile is None else {"profile": read_profile(profile).to_dict()}))
    elif not quiet:
        from sweetspot.report.text import summary

        print_rich(summary(result))
        if profile is not None:
            print_rich(profile_text(profile))


def entropy(
    dataset: Dataset = None,
    study: StudyFile = None,
    teacher: Teacher = None,
    device: Device = "auto",
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
    set_: Set = None,
    seed: Seed = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html|.png|.json",
            help="Write the curves there: a page, a picture, or numbers.",
            show_default="a table",
        ),
    ] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train teachers without students: the cheapest look. It shows how soft and how telling their responses are."""
    from sweetspot.report.survey import check_output, write
    from sweetspot.study_file import drafted

    if output is not None:
        check_output(output)
    config = drafted(dataset, study, set_, {"teacher.model": ("--teacher", teacher), "seed": ("--seed", seed)}).config()

    from rich.console import Console

    from sweetspot.workers.survey import run_survey

    survey = run_survey(
        config, Console(stderr=True), storage=storage, artifacts=artifacts, data=data, device=device, quiet=quiet
    )
    if output is not None:
        write(survey, output)
    if json_:
        print_json(survey.to_dict())
    elif not quiet:
        from sweetspot.report.survey_text import survey_text

        print_rich(survey_text(survey, output))


def worker(
    name: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Study to join.", show_default="every study that has trials left"),
    ] = None,
    device: Device = "auto",
    forever: Annotated[
        bool, typer.Option("--forever", help="Wait for further studies, or for further trials of this one.")
    ] = False,
    storage: Storage = None,
    artifacts: Artifacts = None,
    data: Data = None,
) -> None:
    """Join a study that exists, until it is done. Its configuration is in the database.

    SIGTERM, Ctrl-C and sweetspot workers drain: it saves its place, gives its trial back and ends. Once more: at once.
    """
    signal.signal(signal.SIGTERM, _leave)  # the imports take seconds, and nothing is taken yet

    with uncollected():
        from sweetspot.workers.worker import work

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    work(name, storage=storage, artifacts=artifacts, data=data, device=device, forever=forever)


def init(storage: Storage = None, artifacts: Artifacts = None) -> None:
    """Make the database's tables, or bring them up to date. The artifacts are marked as its own."""
    from sweetspot.store import Store
    from sweetspot.store.url import shown

    with Store(storage, artifacts) as store:
        print(f"ready: {shown(store.url)}, artifacts in {shown(store.artifacts_url)}")


def status(study: StudyName = None, storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """The studies, how far they are, and who works on them."""
    from sweetspot.report.result import read_result, read_results
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        results = read_results(store) if study is None else [read_result(store, study)]
    if json_:
        print_json([result.status_dict() for result in results])
        return
    if not results:
        print("no study yet: start one with sweetspot optimize --dataset digits")
        return
    from sweetspot.report.text import status_table

    print_rich(status_table(results))


def best(study: StudyName = None, storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """The answer of a study: best point, confirmation, cost."""
    from sweetspot.report.result import read_result
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        result = read_result(store, study)
    answer = result.to_dict()  # also tells that no trial has finished
    if json_:
        print_json(answer)
        return
    from sweetspot.report.text import summary

    print_rich(summary(result))


def trials(study: StudyName = None, storage: Storage = None, artifacts: Artifacts = None, json_: Json = False) -> None:
    """Every trial of a study."""
    from sweetspot.report.result import read_result
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        result = read_result(store, study)
    if json_:
        print_json(result.trials_list())
        return
    from sweetspot.report.text import trials_table

    print_rich(trials_table(result))


def delete(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    storage: Storage = None,
    artifacts: Artifacts = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a study, and the networks that nothing else uses."""
    from sweetspot.store import Store
    from sweetspot.study.deletion import delete_study
    from sweetspot.study.search import get_study

    with Store(storage, artifacts) as store:
        record = get_study(store, study)
        if not yes and not typer.confirm(f"Remove the study {record.name!r} and its networks?", err=True):
            raise RunError(f"the study {record.name!r} was not removed")
        delete_study(store, record)
    print(f"removed {record.name}")


def studies(json_: Json = False) -> None:
    """The built-in study files."""
    from sweetspot.study_file import built_in, headline

    _list({name: headline(path) for name, path in built_in().items()}, json_)


def datasets(json_: Json = False) -> None:
    """The data sets that can be named."""
    from sweetspot.data import describe, names

    _list({name: describe(name) for name in names()}, json_)


def models(json_: Json = False) -> None:
    """The networks that can be named."""
    from sweetspot.models import describe, names

    _list({name: describe(name) for name in names()}, json_)


# In the order in which --help lists them; groups come last.
for command in (
    optimize, entropy, worker, init, status, best, trials, watch, dashboard, plot, report, export, delete,
    grid, studies, datasets, models, doctor,
):  # fmt: skip
    app.command()(command)
app.add_typer(teacher.app, name="teacher")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(workers.app, name="workers")
offer_storage_file(app)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _list(lines: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json([{"name": name, "description": line} for name, line in lines.items()])
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
