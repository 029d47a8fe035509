"""What lies in the store, as text for people and as JSON for programs."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sweetspot.report.text import size
from sweetspot.store import TRUNK
from sweetspot.study.housekeeping import BranchListing, Collection, Usage, Verification

_MOST_EPOCHS = 12
_MOST_LINES = 20


def branches_table(found: Sequence[BranchListing]) -> RenderableType:
    """One row per branch of a trajectory."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("recipe", "teacher", "batch", "schedule", "branch", "epochs", "size", "used", "studies", ""):
        table.add_column(column, justify="right" if column in ("batch", "size") else "left", no_wrap=column != "epochs")
    for branch in found:
        table.add_row(
            branch.recipe[:12],
            escape(str(branch.values.get("model", "?"))),
            str(branch.values.get("batch_size", "?")),
            str(branch.values.get("schedule", {}).get("name", "?")),
            "trunk" if branch.branch == TRUNK else f"to {branch.branch}",
            _epochs(branch.epochs),
            size(branch.size),
            f"{branch.used:%Y-%m-%d %H:%M}" if branch.used else "",
            escape(", ".join(branch.studies)),
            f"growing to {branch.heading_for}" if branch.heading_for else "",
        )
    total = sum(branch.size for branch in found)
    count = sum(len(branch.epochs) for branch in found)
    return Group(table, Text(), Text(f"{count} snapshot{'s' * (count != 1)}, {size(total)}. Times are UTC."))


def _epochs(epochs: Sequence[int]) -> str:
    shown = [str(epoch) for epoch in epochs]
    if len(shown) > _MOST_EPOCHS:
        shown = [*shown[: _MOST_EPOCHS - 2], "…", shown[-1]]
    return " ".join(shown)


def branches_list(found: Sequence[BranchListing]) -> list[dict[str, Any]]:
    """What ``sweetspot snapshots ls --json`` prints: ``branch`` 0 is the trunk, ``size`` in bytes, ``used`` in UTC."""
    return [
        {
            "recipe": branch.recipe,
            "model": branch.values.get("model"),
            "batch_size": branch.values.get("batch_size"),
            "schedule": branch.values.get("schedule", {}).get("name"),
            "branch": branch.branch,
            "epochs": list(branch.epochs),
            "goes_on_from": list(branch.goes_on_from),
            "checkpoint": dict(zip(("epoch", "step"), branch.checkpoint, strict=True)) if branch.checkpoint else None,
            "size": branch.size,
            "used": f"{branch.used.isoformat(timespec='seconds')}Z" if branch.used else None,
            "heading_for": branch.heading_for,
            "studies": list(branch.studies),
        }
        for branch in found
    ]


def usage_text(usage: Usage, where: str) -> RenderableType:
    """What the artifacts take, by what it is."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    rows = {
        "teachers": usage.teachers,
        "what teachers need to be trained on (optimiser states)": usage.optimizers,
        "students": usage.students,
        "checkpoints of runs that are under way or were interrupted": usage.checkpoints,
        "pictures on dashboards": usage.pictures,
        "left over: no row refers to it": usage.left_over,
        "found damaged and put aside": usage.quarantined,
        f"in all, in {where}": usage.total,
    }
    for what, count in rows.items():
        table.add_row(size(count), escape(what))
    if usage.free is not None:
        table.add_row(size(usage.free), "free on that disk")
    return table


def usage_dict(usage: Usage) -> dict[str, Any]:
    """What ``sweetspot snapshots du --json`` prints; bytes."""
    return {**vars(usage), "total": usage.total}


def verification_text(found: Verification) -> RenderableType:
    """What a verification has found."""
    lines = [f"{found.checked} blob{'s' * (found.checked != 1)} ({size(found.size)}) sound"]
    lines += [f"{damage.what}: {damage.why}; {damage.then}" for damage in found.damaged]
    return Text("\n".join(lines))


def verification_dict(found: Verification) -> dict[str, Any]:
    """What ``sweetspot snapshots verify --json`` prints."""
    return {"checked": found.checked, "size": found.size, "damaged": [vars(damage) for damage in found.damaged]}


def collection_text(found: Collection, *, dry_run: bool) -> RenderableType:
    """What a garbage collection has freed."""
    shown = [f"{item.what} ({size(item.size)})" for item in found.freed[:_MOST_LINES]]
    if len(found.freed) > _MOST_LINES:
        shown.append(f"… and {len(found.freed) - _MOST_LINES} more")
    verb = "would free" if dry_run else "freed"
    shown.append(f"{verb} {size(found.size)}; {size(found.kept)} remain{'s' * (not dry_run)}")
    return Text("\n".join(shown))


def collection_dict(found: Collection, *, dry_run: bool) -> dict[str, Any]:
    """What ``sweetspot snapshots gc --json`` prints; bytes."""
    return {
        "dry_run": dry_run,
        "freed": [vars(item) for item in found.freed],
        "size": found.size,
        "kept": found.kept,
        "needed": found.needed,
    }
