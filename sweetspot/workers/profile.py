"""``--profile``: each worker counts where its time goes, and traces an epoch of each kind."""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweetspot.errors import UserError
from sweetspot.timing import Recorder

_log = logging.getLogger(__name__)

PROFILE = "SWEETSPOT_PROFILE"
"""The environment variable with the file in which a worker's profile is written; set by its supervisor."""

_OURS = re.compile(r"profile-\d+\.json(\.part)?|trace-\d+-(teacher|responses|students)\.json(\.gz(\.part)?|\.part)")


def make_folder(folder: Path) -> None:
    """Make the folder of a profile, where it is not there.

    Raises:
        UserError: if it is a file, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".{os.getpid()}.part").touch()
        (folder / f".{os.getpid()}.part").unlink()
    except FileExistsError:
        raise UserError(f"--profile {folder} is a file: name a folder") from None
    except OSError as error:
        raise UserError(f"--profile {folder}: {error.strerror}: name a folder that you may write in") from None


def remove_earlier(folder: Path) -> None:
    """Remove what an earlier profile has left in its folder."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def environment(folder: Path, number: int) -> dict[str, str]:
    """What makes a worker write its profile in ``folder``, under the number of its process, counted from 1."""
    return {
        PROFILE: str(folder / f"profile-{number}.json"),
        # At all lower levels torch's profiler says on stderr that it begins and ends, and misses a GPU.
        "KINETO_LOG_LEVEL": os.environ.get("KINETO_LOG_LEVEL", "99"),
    }


@contextmanager
def profiled(device: str) -> Iterator[None]:
    """Within the block, this process counts where its time goes, if its supervisor has asked for that.

    The totals are written when the block ends, however it does. A file that says ``"complete": false`` is that of a
    worker that was killed, or works still.

    Args:
        device: the worker's, such as "cuda:0".
    """
    path = os.environ.get(PROFILE)
    if path is None:
        yield
        return
    from sweetspot.workers.tracer import Tracer

    tracer = Tracer(device, Path(path))
    recorder = Recorder(tracer)
    _write(Path(path), recorder, complete=False)
    try:
        with recorder:
            try:
                yield
            finally:
                tracer.close()
    finally:
        _write(Path(path), recorder, complete=True)


def _write(path: Path, recorder: Recorder, *, complete: bool) -> None:
    """Write the totals; a worker does not fail because that cannot be done."""
    totals = {
        "complete": complete,
        "wall_seconds": recorder.wall,
        "seconds": dict(recorder.seconds),
        "beside_seconds": dict(recorder.beside),
        "epochs": dict(recorder.epochs),
    }
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(totals))
        part.replace(path)
    except OSError as error:
        _log.warning("cannot write the profile %s: %s", path.name, error.strerror)
