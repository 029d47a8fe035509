"""``teacher add``: a network that was trained elsewhere becomes a teacher of the store, measured."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from sweetspot.config import StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import RunError, UserError, one_line
from sweetspot.report.external import studies_on
from sweetspot.store import TRUNK, ExternalTeacher, Measurement, Probe, Store
from sweetspot.store.url import data_folder
from sweetspot.study.space import ExternalPoint
from sweetspot.study.visit import adopt, recipe_at
from sweetspot.study.workplace import resolved
from sweetspot.teacher.measuring import as_teacher, measure
from sweetspot.teacher.training import network
from sweetspot.training.device import devices, prepare
from sweetspot.training.engine import DivergedError, OutOfMemoryError, memory_errors
from sweetspot.training.weights import from_bytes, to_bytes

_SHOWN = 3
"""Names of tensors that an error lists."""


@dataclass(frozen=True)
class AddedTeacher:
    """An external teacher, and what was measured of it.

    Attributes:
        measured: by probe; its training may have seen the validation images.
        classes: of the data.
        studies: the names of those on the same data: it takes part in their next confirmation.
    """

    teacher: ExternalTeacher
    measured: dict[Probe, Measurement]
    classes: int
    studies: tuple[str, ...]


def add_teacher(
    file: Path,
    config: StudyConfig,
    epochs: int,
    *,
    name: str | None = None,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    device: str = "auto",
) -> AddedTeacher:
    """Register the weights in ``file`` as a teacher: they are measured, and become an arm of confirmations.

    Args:
        file: safetensors, a state dict of ``config.teacher.model``.
        config: whose data it teaches of; split, precision and temperature of the measurement are its, too.
        epochs: that it was trained.
        name: what to call it; None: the file's name.

    Raises:
        UserError: if the file, the model, the data, the storage or the device is not to be had, or do not fit together;
            nothing is recorded then.
    """
    called = name if name is not None else file.name.removesuffix(".safetensors")
    if not called.strip() or len(called) > 200 or not called.isprintable():
        raise UserError(f"--name {called!r}: a teacher's name has 1 to 200 printable characters")
    tensors = _read(file)
    chosen = devices(device)[0]
    config = _for_one(resolved(config, chosen))
    images = load_study_data(config, data or data_folder(), prepare(chosen, config.run))
    point = ExternalPoint("", config.teacher.model, called, epochs)
    recipe = recipe_at(config, images.hash, point)
    model = network(recipe, images, torch.device(chosen))
    _load(model, tensors, file, config, images)
    weights = to_bytes(model.state_dict())
    try:
        with memory_errors():
            teacher = as_teacher(model, recipe, images, torch.device(chosen))
            measured = measure(teacher, recipe, images, epochs, config.teacher.probe_temperature, recomputed=True)
    except DivergedError:
        raise UserError(f"{file}: the responses of this {config.teacher.model} are not finite") from None
    except OutOfMemoryError as error:
        raise RunError(f"{config.teacher.model} does not fit in memory here ({error}): try --device cpu") from None
    with Store(storage, artifacts) as store:
        _check_name(store, called, hashlib.sha256(weights).hexdigest())
        added = ExternalTeacher(store.artifacts.put(weights), images.hash, config.teacher.model, called, epochs)
        store.external_teachers.add(added)
        point = ExternalPoint(added.weights, added.model, added.name, added.epochs)
        recipe = recipe_at(config, images.hash, point)
        adopt(store, recipe, point)
        store.trajectories.add_measurements(recipe.hash, TRUNK, measured)
        studies = studies_on(store, images.hash)
    return AddedTeacher(added, {m.probe: m for m in measured}, len(images.classes), studies)


def remove_teacher(store: Store, name: str) -> ExternalTeacher:
    """Forget the external teacher of this name, or whose weights' hash begins so. Confirmations that had it stay.

    Raises:
        UserError: if there is none, or several.
    """
    there = store.external_teachers.all()
    found = [t for t in there if t.name == name] or [t for t in there if t.weights.startswith(name)]
    if len(found) != 1:
        known = ", ".join(f"{t.name} ({t.weights[:8]})" for t in there) or "none"
        several = "several teachers are" if found else "no teacher is"
        raise UserError(f"{several} called {name!r}: give a name or the beginning of a hash; there are {known}")
    store.external_teachers.remove(found[0])
    return found[0]


def _for_one(config: StudyConfig) -> StudyConfig:
    """The configuration without the search's batch sizes: nothing is searched, so that none can be too large."""
    search = config.search.model_copy(update={"batch_size": (config.student.batch_size,)})
    return config.model_copy(update={"search": search})


def _check_name(store: Store, name: str, weights: str) -> None:
    for other in store.external_teachers.all():
        if other.name == name and other.weights != weights:
            raise UserError(
                f"another teacher is called {name!r} ({other.weights[:8]}): give this one another --name, or remove "
                f"that one with sweetspot teacher remove {other.weights[:8]}"
            )


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    try:
        return from_bytes(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{file} is not a safetensors file ({one_line(str(error))}): write one with "
            "safetensors.torch.save_file(model.state_dict(), FILE)"
        ) from None


def _load(
    model: nn.Module, tensors: dict[str, torch.Tensor], file: Path, config: StudyConfig, images: StudyData
) -> None:
    """Load the tensors, which must be those of the network, no more and no fewer; any floating dtype will do."""
    own = model.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # older files leave them out
    wrong = [
        ("lacks", own.keys() - tensors.keys() - counters),
        ("has", tensors.keys() - own.keys()),
        ("has another shape of", {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}),
    ]
    said = [f"{what} {_some(keys)}" for what, keys in wrong if keys]
    if said:
        raise UserError(
            f"{file} does not hold a {config.teacher.model} for {len(images.classes)} classes and "
            f"{images.channels}x{images.image_size}x{images.image_size} images: it {', '.join(said)}; give the right "
            "--model and --dataset, or rename the tensors as sweetspot.models.build names them"
        )
    if not all(bool(value.isfinite().all()) for value in tensors.values() if value.is_floating_point()):
        raise UserError(f"{file} has weights that are not finite")
    model.load_state_dict({key: tensors.get(key, value) for key, value in own.items()})


def _some(keys: set[str]) -> str:
    shown = ", ".join(sorted(keys)[:_SHOWN])
    return shown + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
