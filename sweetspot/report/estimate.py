"""What a study will cost, in words and as a table."""

from sweetspot.report.sentences import counted, duration
from sweetspot.report.text import size
from sweetspot.study.estimate import Cost, Estimate

_LEGEND = (
    "plain:  every trial trains its teacher from nothing and all of its students,",
    "        and the confirmation, which is the same in both, its own teachers.",
    "shared: what is identical is trained once, and students are raced.",
)


def estimate_text(cost: Estimate, what: str, device: str, workers: int) -> str:
    """What a study will cost, in one line.

    Args:
        what: is trained by the search.
    """
    warning = (
        " That is days on this device: for an answer in minutes run sweetspot optimize --dataset digits, for one in "
        "hours --dataset fashion_mnist; or use a GPU, smaller networks, fewer trials or a shorter ladder."
        if cost.shared.seconds > 86400
        else ""
    )
    return (
        f"{what} on {device}, {counted(workers, 'worker')}: about {_epochs(cost.shared)}, "
        f"{size(cost.shared.disk_bytes)} of disk, {duration(cost.shared.seconds)} (the plain way, each trial by "
        f"itself: {_epochs(cost.plain)}, {duration(cost.plain.seconds)}).{warning}"
    )


def _epochs(cost: Cost) -> str:
    return f"{cost.teacher_epochs:,} teacher epochs, {cost.student_epochs:,} student epochs"


def side_by_side(cost: Estimate) -> str:
    """The plain way and the shared one as a table of two columns; fits 80 columns."""
    ways = cost.plain, cost.shared
    rows = {
        "": ["plain", "shared"],
        "teacher epochs": [f"{way.teacher_epochs:,}" for way in ways],
        "student epochs": [f"{way.student_epochs:,}" for way in ways],
        "disk, at most": [size(way.disk_bytes) for way in ways],
        "time": [duration(way.seconds) for way in ways],
    }
    width = max(len(cell) for cells in rows.values() for cell in cells)
    lines = [f"{name:<14}  {plain:>{width}}  {shared:>{width}}" for name, (plain, shared) in rows.items()]
    return "\n".join([*lines, *_LEGEND])
