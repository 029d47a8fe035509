"""``entropy``: a survey of a configuration's teachers, in this process."""

from pathlib import Path

import optuna
from rich.console import Console
from rich.text import Text

from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.report.survey_live import survey_progress
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.estimate import Shape, teacher_bytes
from sweetspot.study.space import AnyPoint
from sweetspot.study.survey import Survey, survey
from sweetspot.study.workplace import Workplace, registered, resolved
from sweetspot.training.device import devices, prepare
from sweetspot.workers.free_space import check_free_space
from sweetspot.workers.optimize import build_networks, nothing_shared
from sweetspot.workers.pulse import Pulse


def run_survey(
    config: StudyConfig,
    console: Console,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Survey:
    """Survey a configuration's teachers, telling ``console`` how it goes unless ``quiet``.

    Raises:
        UserError: if the configuration, the storage, the data or a device is not to be had; nothing is left half-made.
        RunError: if every teacher diverged.
        KeyboardInterrupt: on Ctrl-C; what is trained stays in the store.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen, *others = devices(device)
    if others and "," in device:
        raise UserError(f"--device {device}: give one; the same command on the other device shares the work")
    prepared = prepare(chosen, config.run)
    images = load_study_data(config, data or data_folder(), prepared)
    build_networks(config, Shape.of(images))
    config = resolved(config, chosen)
    note = nothing_shared(config)
    if note is not None and not quiet:
        console.print(Text(note), soft_wrap=True)
    with (
        Store(storage, artifacts, config.run) as store,
        registered(store, chosen, config.run) as leases,
        Pulse(store, leases.owner, config.run.heartbeat_seconds / 3) as pulse,
        survey_progress(config, console, quiet=quiet) as view,
    ):
        check_free_space(store, teacher_bytes(config, Shape.of(images)))

        def progress(phase: str, point: AnyPoint | None, epoch: int, similarity_entropy: float | None) -> None:
            pulse.progress(phase, point, epoch, similarity_entropy)
            view.progress(phase, point, epoch, similarity_entropy)

        found = survey(config, Workplace("", store, leases, images, prepared, progress), view.teacher)
    if not any(curve.teachers for curve in found.curves):
        curve = found.curves[0]
        why = next(iter(curve.diverged.values()))
        raise RunError(
            f"every teacher diverged; the first, at batch size {curve.batch_size}: {why}; lower teacher.optimizer.lr"
        )
    return found
