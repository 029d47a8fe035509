"""Where the time of a run's workers went: the totals of ``optimize --profile``, and their table."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweetspot.report.sentences import counted, duration

_TEACHER, _STUDENTS, _BOTH = ("teacher",), ("students",), ("teacher", "students")
_PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "loading": ((), "loading the data"),
    "views": (_BOTH, "views of the images"),
    "teacher": (_TEACHER, "training the teacher"),
    "measuring": (_TEACHER, "measuring the teacher"),
    "batchnorm": (_TEACHER, "its BatchNorm statistics"),
    "responses": (_STUDENTS, "the teacher's responses"),
    "students": (_STUDENTS, "training students"),
    "database": (_BOTH, "database"),
    "artifacts": (_BOTH, "artifacts"),
    "dashboard": ((), "figures for dashboards"),
    "waiting": ((), "waiting for other workers"),
    "tracing": ((), "writing the traces"),
    "other": ((), "other"),
}
"""By name of a span: of whose epochs it is a part, and what it is called in the table."""
_TELLING = 0.05
"""Seconds; less is not worth a line."""


@dataclass(frozen=True)
class Profile:
    """What the workers of a run have counted, summed over them.

    Attributes:
        workers: how many processes there were.
        killed: how many of them did not live to write what they had counted.
        wall: seconds that the others have lived, without their imports.
        seconds: by name of a span; "other" is the rest of ``wall``.
        beside: seconds by name of a span, of threads that worked at the same time.
        epochs: of "teacher" and "students", that were trained.
    """

    workers: int
    killed: int
    wall: float
    seconds: Mapping[str, float]
    beside: Mapping[str, float]
    epochs: Mapping[str, int]

    @classmethod
    def of(cls, totals: Iterable[Mapping[str, Any]]) -> "Profile":
        """From what each worker has written."""
        everything = list(totals)
        complete = [each for each in everything if each["complete"]]
        wall = sum(each["wall_seconds"] for each in complete)
        names = [name for name in _PARTS if name != "other"]
        seconds = {name: sum(each["seconds"].get(name, 0.0) for each in complete) for name in names}
        seconds["other"] = max(0.0, wall - sum(seconds.values()))
        beside = {name: sum(each["beside_seconds"].get(name, 0.0) for each in complete) for name in names}
        epochs = {name: sum(each["epochs"].get(name, 0) for each in complete) for name in _BOTH}
        return cls(
            len(everything), len(everything) - len(complete), wall, seconds,
            {name: s for name, s in beside.items() if s}, epochs,
        )  # fmt: skip

    def per_epoch(self, name: str) -> float | None:
        """Seconds for each epoch that it is a part of; None where there is none."""
        epochs = sum(self.epochs[kind] for kind in _PARTS[name][0])
        return self.seconds[name] / epochs if epochs else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "workers": self.workers,
            "killed": self.killed,
            "wall_seconds": self.wall,
            "seconds": dict(self.seconds),
            "seconds_per_epoch": {name: self.per_epoch(name) for name in _PARTS if _PARTS[name][0]},
            "beside_seconds": dict(self.beside),
            "epochs": dict(self.epochs),
        }


def read_profile(folder: Path) -> Profile:
    """What the workers have written in a folder."""
    return Profile.of(json.loads(path.read_text()) for path in sorted(folder.glob("profile-*.json")))


def profile_text(folder: Path) -> RenderableType:
    """The table of what the workers have written in a folder, with what has to be said of it; nothing without any."""
    profile = read_profile(folder)
    lines: list[RenderableType] = [Text()] if profile.workers else []
    if profile.workers > profile.killed:
        lines += [Text(_head(profile)), _table(profile)]
    if sum(profile.beside.values()) >= _TELLING:
        beside = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in profile.beside.items())
        lines.append(Text(f"In threads beside that (heartbeats, leases): {beside}."))
    if profile.killed:
        of = f"{profile.killed} of {counted(profile.workers, 'worker')}"
        lines.append(Text(f"{of} died before they could write where their time went: it is not counted."))
    traces = [path.name for path in folder.glob("trace-*.json.gz")]
    if traces:
        lines.append(Text(f"{counted(len(traces), 'trace')} for chrome://tracing or ui.perfetto.dev in {folder}"))
    return Group(*lines)


def _head(profile: Profile) -> str:
    teacher, students = (counted(profile.epochs[kind], f"{kind.removesuffix('s')} epoch") for kind in _BOTH)
    workers = counted(profile.workers - profile.killed, "worker")
    return f"Where {duration(profile.wall)} of {workers} went: {teacher}, {students}"


def _table(profile: Profile) -> Table:
    """One row per part; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("seconds", "share", "ms per epoch", "of a"):
        table.add_column(heading, justify="left" if heading == "of a" else "right")
    for name, (kinds, title) in _PARTS.items():
        seconds, each = profile.seconds[name], profile.per_epoch(name)
        share = seconds / profile.wall if profile.wall else 0.0
        of = "" if each is None else " or ".join(kind.removesuffix("s") for kind in kinds)
        table.add_row(title, f"{seconds:.1f}", f"{share:.1%}", "" if each is None else f"{1000 * each:,.1f}", of)
    return table
