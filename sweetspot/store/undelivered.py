"""What a worker could not deliver before it ended: left beside the blobs, for whoever goes on with the run."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweetspot.store.artifacts import Artifacts
from sweetspot.store.checkpoints import Checkpoint
from sweetspot.store.trajectories import ClassSimilarity, Measurement, Snapshot


@dataclass(frozen=True)
class Undelivered:
    """Snapshots of a run with the measurements made since the one before, and the checkpoint after them, if any.

    Their blobs are in the artifacts; no row of the database refers to them.
    """

    snapshots: Sequence[tuple[Snapshot, Sequence[Measurement]]]
    checkpoint: Checkpoint | None = None
    measurements: Sequence[Measurement] = ()
    """Made since the last of the snapshots; they go with the checkpoint."""


def leave(artifacts: Artifacts, run: str, work: Undelivered) -> None:
    """Write down what the next owner of a run's lease delivers.

    Raises:
        ArtifactsError: if it cannot be written.
    """
    content = json.dumps(asdict(work), default=lambda array: array.tolist()).encode()
    artifacts.put_note(f"{_slug(run)}-{hashlib.sha256(content).hexdigest()}", content)


def left(artifacts: Artifacts, run: str) -> list[tuple[str, Undelivered]]:
    """What was left of a run, with the name of each note. One that is damaged is passed over: it is trained again.

    Raises:
        ArtifactsError: if the artifacts cannot be read.
    """
    found = []
    for name in artifacts.notes(_slug(run)):
        content = artifacts.get_note(name)
        if hashlib.sha256(content).hexdigest() == name.rsplit("-", 1)[-1]:
            with suppress(ValueError, KeyError, TypeError):
                found.append((name, _read(json.loads(content))))
    return found


def left_blobs(artifacts: Artifacts) -> set[str]:
    """The blobs that undelivered work needs."""
    blobs: set[str] = set()
    for name in artifacts.notes(""):
        with suppress(ValueError, KeyError, TypeError):
            work = _read(json.loads(artifacts.get_note(name)))
            blobs |= {blob for snapshot, _ in work.snapshots for blob in (snapshot.weights, snapshot.optimizer) if blob}
            blobs |= {work.checkpoint.state} if work.checkpoint else set()
    return blobs


def _read(values: dict[str, Any]) -> Undelivered:
    return Undelivered(
        [(Snapshot(**snapshot), list(map(_measurement, measured))) for snapshot, measured in values["snapshots"]],
        Checkpoint(**values["checkpoint"]) if values["checkpoint"] else None,
        list(map(_measurement, values["measurements"])),
    )


def _measurement(values: dict[str, Any]) -> Measurement:
    similarity = values.pop("class_similarity", None)
    if similarity is None:
        return Measurement(**values)
    matrix, images = np.array(similarity["matrix"], np.float32), np.array(similarity["images"], np.int64)
    return Measurement(**values, class_similarity=ClassSimilarity(matrix, images))


def _slug(run: str) -> str:
    return run.replace("/", "-")
