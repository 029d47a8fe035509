"""``optimize``: from a configuration to a result, with workers of its own."""

import os
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import optuna
import torch
from rich.console import Console
from rich.text import Text

from sweetspot.config import StudyConfig
from sweetspot.data.memory import check_memory
from sweetspot.data.registry import info
from sweetspot.data.split import split
from sweetspot.data.study_data import StudyData, check_batch_sizes, load_study_data
from sweetspot.data.views import padded_size
from sweetspot.errors import RunError, UserError
from sweetspot.models import build
from sweetspot.report.estimate import estimate_text, side_by_side
from sweetspot.report.live import Progress, progress
from sweetspot.report.result import StudyResult, read_result
from sweetspot.report.sentences import counted
from sweetspot.store import Store
from sweetspot.store.outage import DatabaseDownError
from sweetspot.store.url import data_folder
from sweetspot.study.estimate import Estimate, Shape, disk_bytes, estimate, with_trials
from sweetspot.study.jobs import FAILED
from sweetspot.study.racing import Race
from sweetspot.study.search import Counts, check_name, create_or_continue, load
from sweetspot.study.space import points
from sweetspot.study.workplace import resolved
from sweetspot.study_file import Draft, default_name, draft_for, is_study
from sweetspot.training.device import describe, devices, prepare
from sweetspot.training.schedules import schedule
from sweetspot.workers.free_space import check_free_space
from sweetspot.workers.machine import usable_cores
from sweetspot.workers.profile import make_folder, remove_earlier
from sweetspot.workers.supervisor import Supervisor
from sweetspot.workers.worker import advice_on_workers

_SHOW_SECONDS = 0.5


@dataclass(frozen=True)
class Run:
    """What ``optimize`` is asked to do beside the configuration.

    Attributes:
        name: of the study.
        workers: how many; None: ``workers_per_gpu`` per GPU, else one per core.
        device: "auto", "cpu", "cuda" or "cuda:0,…".
        trials: the study's total; None: the stored one, or the configuration's.
        timeout: seconds after which the search asks for no further trial; None: none.
        log: a file that is told what the workers log, beside the terminal.
        profile: a folder, in which each worker writes where its time went.
    """

    name: str
    storage: str | None = None
    artifacts: str | None = None
    data: Path | None = None
    workers: int | None = None
    workers_per_gpu: int = 1
    device: str = "auto"
    trials: int | None = None
    timeout: float | None = None
    log: Path | None = None
    profile: Path | None = None


def run_devices(run: Run) -> list[str]:
    """The device of each worker."""
    there = devices(run.device)
    if run.workers is None:
        if there == ["cpu"]:
            return there * usable_cores()
        return there * run.workers_per_gpu
    return [there[i % len(there)] for i in range(run.workers)]


def plan(
    config: StudyConfig, run: Run, data: StudyData | None = None, trials: int | None = None, *, table: bool = True
) -> tuple[Estimate, str]:
    """The expected cost, and the sentence that says it. Creates nothing.

    Args:
        data: the study's data where it is loaded already.
        trials: how many are left; None: the study's total.
        table: whether a table follows the sentence, of what sharing saves.

    Raises:
        UserError: if the configuration, the data or a device is not to be had.
    """
    workers = run_devices(run)
    shape = _shape(config, run, workers, data)
    check_name(run.name)
    build_networks(config, shape)
    trials = config.search.trials if trials is None else trials
    every = points(config)
    if every is not None:
        trials = min(trials, len(every))
    config = with_trials(config, trials)
    cost = estimate(resolved(config, workers[0]), shape, prepare(workers[0], config.run), len(workers))
    race = Race.of(config)
    least = f"{race.minimum} to " if race.minimum < race.maximum else ""
    what = f"{counted(trials, 'trial')} of {least}{counted(race.maximum, 'student')}"
    said = estimate_text(cost, what, describe(workers[0]), len(workers))
    return cost, f"{said}\n\n{side_by_side(cost)}" if table else said


def _load(config: StudyConfig, run: Run, workers: list[str]) -> StudyData:
    """The data as this process needs them: to look at, while the workers' devices have room for all of theirs."""
    return load_study_data(config, run.data or data_folder(), torch.device("cpu"), _by_device(workers))


def _by_device(workers: list[str]) -> Counter[torch.device]:
    return Counter(map(torch.device, workers))


def _shape(config: StudyConfig, run: Run, workers: list[str], data: StudyData | None) -> Shape:
    known = info(config.data.dataset) if data is None else None
    if known is None:
        return Shape.of(data or _load(config, run, workers))
    # Of a built-in data set enough is known without its images: balanced labels stand for the real ones.
    labels = torch.arange(known.train_images) % known.classes
    train, validation = split(labels, config.data.validation, config.seed)
    pixels = known.channels * known.image_size**2
    padded = known.channels * padded_size(known.image_size, config.data.augmentation) ** 2
    check_memory(known.name, len(train), len(validation), pixels, padded, torch.device("cpu"), _by_device(workers))
    check_batch_sizes(config, len(train), known.name)
    return Shape(known.classes, known.channels, known.image_size, len(train), len(validation))


def run_study(config: StudyConfig, run: Run, console: Console, *, quiet: bool) -> StudyResult:
    """Create or continue a study, and run it to its end with its confirmation.

    Raises:
        UserError: if the configuration, the storage, the data or a device is not to be had; nothing is left half-made.
        RunError: if the search fails again and again.
        KeyboardInterrupt: on Ctrl-C, once the workers have given their trials back.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if run.log is not None:
        _open_log(run.log).close()  # before anything is created
    if run.profile is not None:
        make_folder(run.profile)
    workers = run_devices(run)
    data = _load(config, run, workers)
    check_name(run.name)
    config = _with_absolute_path(config)
    build_networks(config, Shape.of(data))
    with Store(run.storage, run.artifacts) as store:
        config, note = _with_stored_values(store, config, run)
        config = resolved(config, workers[0])
        left = config.search.trials - _done(store, run.name)
        if left > 0:
            check_free_space(store, disk_bytes(with_trials(config, left), Shape.of(data)))
        cost = plan(config, run, data, left, table=False)[1] if left > 0 and not quiet else None
        record = create_or_continue(store, run.name, config, data)
        for line in filter(None, (note, cost, nothing_shared(config), advice_on_workers(store, len(workers)))):
            console.print(Text(line), soft_wrap=True)
        if run.profile is not None:
            remove_earlier(run.profile)
        deadline = None if run.timeout is None else time.monotonic() + run.timeout
        with progress(console, quiet=quiet) as view:
            _supervise(store, record.name, workers, run, deadline, view)
        result = read_result(store, record.name, with_curves=True)
    if (result.record.ended or "").startswith(FAILED):
        raise RunError(f"{result.record.ended}; see sweetspot trials {record.name}")
    if result.best is None:
        why = f" ({result.record.ended})" if result.record.ended else ""
        raise RunError(
            f"no trial was completed{why}: see sweetspot trials {record.name}; the same command continues it"
        )
    return result


def _supervise(store: Store, name: str, workers: list[str], run: Run, deadline: float | None, view: Progress) -> None:
    shown = [0.0]
    finished = [_done(store, name)]

    def look() -> None:
        result = read_result(store, name, with_confirmation=False)
        finished[0] = result.counts.finished
        is_open = not result.record.ended and result.counts.finished < result.config.search.trials
        if deadline is not None and time.monotonic() > deadline and is_open:
            store.studies.set_ended(name, f"the {run.timeout:g} s of --timeout were over")
        view.show(result)

    def on_poll() -> None:
        now = time.monotonic()
        if now - shown[0] < _SHOW_SECONDS:
            return
        with suppress(DatabaseDownError):  # its workers say so, and wait
            look()
        # Reading a study of many trials takes its time: it may take a tenth of the supervisor's.
        shown[0] = time.monotonic() + 10 * (time.monotonic() - now)

    with ExitStack() as stack:
        on_log = view.log
        if run.log is not None:
            file = stack.enter_context(_open_log(run.log))

            def on_log(line: str) -> None:
                print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}", file=file, flush=True)
                view.log(line)

        supervisor = Supervisor(
            name, store, workers, str(run.data) if run.data else None, on_log, lambda: finished[0], run.profile
        )
        try:
            supervisor.wait(on_poll)
            look()
        except KeyboardInterrupt:
            view.log("stopping: the workers save their place (once more: at once)")
            raise
        finally:
            supervisor.stop()


def _open_log(path: Path) -> TextIO:
    try:
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--log-file {path}: {error.strerror}: name a file that you may write") from None


def _with_absolute_path(config: StudyConfig) -> StudyConfig:
    """A data set's path made absolute, so that a worker finds it wherever it is started."""
    kind, colon, path = config.data.dataset.partition(":")
    if not colon:
        return config
    dataset = f"{kind}:{Path(os.path.expanduser(path)).absolute()}"
    return config.model_copy(update={"data": config.data.model_copy(update={"dataset": dataset})})


def _done(store: Store, name: str) -> int:
    """The finished trials of a study; 0 where there is none of the name."""
    if store.studies.get(name) is None:
        return 0
    return Counts.of(load(store, name).get_trials(deepcopy=False)).finished


def nothing_shared(config: StudyConfig) -> str | None:
    """What is to be said of a schedule that shares nothing between teachers of different length."""
    ladder = config.search.ladder
    if any(schedule(config.teacher.schedule, ladder[0]).shared_epochs(epochs) for epochs in ladder):
        return None
    return (
        f'teacher.schedule "{config.teacher.schedule.name}" shares nothing between teachers of different epochs: '
        'each is trained on its own ("wsd" shares most of them, "constant" all)'
    )


def _with_stored_values(store: Store, config: StudyConfig, run: Run) -> tuple[StudyConfig, str | None]:
    """The configuration with the stored total, sampler and precision where it says nothing else; and what is to be
    said."""
    there = store.studies.get(run.name)
    if there is None:
        return config, None
    stored = there.config.search.trials
    total, notes = run.trials or stored, []
    if total < stored:
        notes.append(f"--trials {total} is below this study's {stored}: that stays, and so does what is done.")
        total = stored
    search: dict[str, Any] = {"trials": total}
    sampler = there.config.search.sampler
    if "sampler" not in config.search.model_fields_set and sampler != config.search.sampler:
        notes.append(f'this study was begun with search.sampler = "{sampler}", and goes on with it.')
        search["sampler"] = sampler
    update: dict[str, Any] = {"search": config.search.model_copy(update=search)}
    for part in ("teacher", "student"):
        mine, theirs = getattr(config, part), getattr(there.config, part)
        if mine.precision == "auto":  # settled when the study was created, on whatever device that was
            update[part] = mine.model_copy(update={"precision": theirs.precision})
    return config.model_copy(update=update), " ".join(notes) or None


def build_networks(config: StudyConfig, shape: Shape) -> None:
    """Every network that the study names, so that a wrong name is found before anything is created."""
    models = config.search.teacher.model or (config.teacher.model,)
    for name in {*models, config.teacher.model, config.student.model}:
        build(name, classes=shape.classes, channels=shape.channels, image_size=shape.image_size)


def optimize(
    study: StudyConfig | str,
    *,
    name: str | None = None,
    storage: str | None = None,
    artifacts: str | None = None,
    data: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    timeout: float | None = None,
    quiet: bool = False,
    **overrides: Any,
) -> StudyResult:
    """Find the sweet spot of a study, as ``sweetspot optimize`` does; continue it if it exists.

    Args:
        study: a configuration; or the name of a data set ("digits", "imagefolder:PATH") or of a built-in study, or a
            study file's path.
        name: of the study; by default after the study file or the data set.
        storage, artifacts, data, workers, device, timeout: as the options of the command line.
        overrides: values by key, "__" for ".": ``search__trials=10``, ``student__temperature=2.0``.

    Raises:
        UserError: if something asked for is not to be had.
        RunError: if the search fails again and again.

    Example::

        result = sweetspot.optimize("digits", search__trials=8, storage="sqlite:///digits.db")
        print(result.best.point, result.verdict)
    """
    if isinstance(study, str):
        draft = draft_for(None, study) if is_study(study) else draft_for(study, None)
    else:
        draft = Draft("the configuration", study.model_dump(mode="json"))
        if "sampler" not in study.search.model_fields_set:
            del draft.values["search"]["sampler"]
    for key, value in overrides.items():
        draft.set(key.replace("__", "."), value, f"{key} = {value!r}")
    config = draft.config()
    run = Run(
        name=name or default_name(config.data.dataset, study if isinstance(study, str) and is_study(study) else None),
        storage=storage,
        artifacts=artifacts,
        data=Path(data) if data else None,
        workers=workers,
        device=device,
        trials=config.search.trials if draft.overridden("search.trials") else None,
        timeout=timeout,
    )
    return run_study(config, run, Console(stderr=True), quiet=quiet)


def load_result(name: str | None = None, storage: str | None = None, artifacts: str | None = None) -> StudyResult:
    """The result of a study as it stands.

    Raises:
        UserError: if there is no such study.
    """
    with Store(storage, artifacts) as store:
        return read_result(store, name, with_curves=True)
