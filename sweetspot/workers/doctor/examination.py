"""The examination: every check in its order, each for itself."""

from collections.abc import Iterator
from pathlib import Path

from sweetspot.errors import UserError
from sweetspot.workers.doctor.check import Check, looked_at
from sweetspot.workers.doctor.machine import devices, precision, threads
from sweetspot.workers.doctor.versions import packages, python


def examine(
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    data: Path | None = None,
    dataset: str | None = None,
    device: str = "auto",
) -> list[Check]:
    """Look at everything that a run needs; the arguments are a run's. Nothing is made but a blob, for a moment."""
    return [
        *looked_at("python", lambda: [python()]),
        *looked_at("packages", packages),
        *looked_at("device", lambda: devices(device)),
        *looked_at("precision", lambda: precision(device)),
        *looked_at("threads", lambda: [threads()]),
        *looked_at("database", lambda: _addresses(storage, artifacts, data)),
        *looked_at("data", lambda: _data(data, dataset)),
    ]


def _addresses(storage: str | None, artifacts: str | None, data: Path | None) -> Iterator[Check]:
    """The database, the artifacts that belong to it, and the home, where neither they nor the data are elsewhere."""
    from sweetspot.workers.doctor import addresses, folders

    url = there = None
    try:
        url = addresses.url_of(storage)
        check, there = addresses.database(url)
    except UserError as error:
        check = Check("database", "wrong", "it cannot be used as asked", str(error))
    yield check
    where = addresses.artifacts_of(artifacts, url)
    yield from looked_at("artifacts", lambda: [addresses.artifacts(where, there)])
    used = [str(url.database) if url is not None else "", where, str(folders.data_at(data))]
    yield folders.home(any(Path(place).is_relative_to(folders.home_at()) for place in used))


def _data(data: Path | None, dataset: str | None) -> Iterator[Check]:
    from sweetspot.workers.doctor.data import data as checks
    from sweetspot.workers.doctor.folders import data_at

    return checks(data_at(data), dataset)
