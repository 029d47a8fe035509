"""What is said of a study in more than one place: names, numbers, sentences.

Plain text: whoever puts it into a page, a note or a terminal escapes it for that.
"""

from collections.abc import Iterator
from pathlib import PurePath

from sweetspot.config import NoPruner, StudyConfig
from sweetspot.report.result import StudyResult
from sweetspot.study.confirmation import ACCURATE, ALONE, BEST, LONGEST, YOURS
from sweetspot.study.jobs import FULL
from sweetspot.study.space import AnyPoint, ExternalPoint, Point, config_at

ARM_NAMES = {
    BEST: "the best point",
    ALONE: "no teacher",
    ACCURATE: "most accurate teacher",
    LONGEST: "longest teacher",
    YOURS: "your teacher",
}
"""What people call the arms of a confirmation; those of teachers of theirs bear the teachers' names, too."""

MEANING = {
    "truncated": "a longer run stopped there",
    "annealed": "a run whose schedule ends there",
}
"""What a teacher of so many epochs is."""

_MOST_NAMES = 4


# -- numbers ----------------------------------------------------------------------------------------------------------


def percent(fraction: float, digits: int = 2) -> str:
    return f"{100 * fraction:.{digits}f} %"


def duration(seconds: float) -> str:
    """Seconds in the units that people think in."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


# -- names ------------------------------------------------------------------------------------------------------------


def without_path(dataset: str) -> str:
    """A data set's name; of one that is given by its path, the last component."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{PurePath(path).name}" if colon else kind


def teachers(config: StudyConfig) -> str:
    """The teacher's network, or those among which a study searches it."""
    searched = config.search.teacher.model
    if searched is None:
        return config.teacher.model
    return " or ".join(searched) if len(searched) <= _MOST_NAMES else f"one of {len(searched)} networks"


def teacher_name(result: StudyResult, point: Point) -> str:
    """The network of a point's teacher."""
    return config_at(result.config, point).teacher.model


def headline(result: StudyResult) -> str:
    """Which study it is. Of the data's path only the last component is told."""
    config = result.config
    dataset = without_path(config.data.dataset)
    return f"{result.name}: {teachers(config)} teaches {config.student.model} on {dataset}"


def arm_name(arm: str, point: AnyPoint | None) -> str:
    """What people call an arm of a confirmation."""
    return arm_called(arm, point.name if isinstance(point, ExternalPoint) else None)


def arm_called(arm: str, teacher: str | None) -> str:
    """The same from the name of the teacher that was trained elsewhere; None: it is the arm of none."""
    return ARM_NAMES.get(arm, arm) if teacher is None else f"{ARM_NAMES[YOURS]} {teacher}"


def place(point: AnyPoint | None) -> str:
    """Where an arm's teacher comes from; "" where there is none."""
    if isinstance(point, ExternalPoint):
        return f"{point.model}, {counted(point.epochs, 'epoch')}"
    return "" if point is None else str(point)


# -- how far it is ----------------------------------------------------------------------------------------------------


def finished(result: StudyResult) -> str:
    """How many trials have finished, of how many."""
    return f"{result.counts.finished:,} of {result.config.search.trials:,} trials"


def by_state(result: StudyResult) -> str:
    """What has become of the trials."""
    counts = result.counts
    others = ((counts.failed, "failed"), (counts.running, "running"), (counts.waiting, "waiting"))
    said = [f"{counts.complete:,} complete", f"{counts.pruned:,} pruned"]
    return ", ".join([*said, *(f"{count:,} {what}" for count, what in others if count)])


def ending(result: StudyResult) -> str | None:
    """Why the search has ended early, or how far it is; None where it has all its trials."""
    ended, counts, total = result.record.ended, result.counts, result.config.search.trials
    if ended is not None:
        return f"The search ended early: {ended}." + (" The same command continues it." if ended != FULL else "")
    if counts.finished < total:
        return f"The search is at {counts.finished:,} of {total:,} trials: sweetspot optimize continues it."
    return None


def reservations(result: StudyResult) -> list[str]:
    """What is to be known with the best point, if there is one."""
    best, ladder = result.best, result.config.search.ladder
    if best is None:
        return []
    said = []
    if best.point.epochs == ladder[-1] and len(ladder) > 1:
        said.append(f"It is at the longest epochs searched ({ladder[-1]}): a longer ladder may find a better one.")
    if not best.is_settled:
        few, needed = counted(len(best.accuracies), "student"), result.config.student.replicates.max
        said.append(f"It has {few}, and needs {needed} before it can be called best.")
    return said


def looks(count: int) -> str:
    """How often the test split has been looked at, beside a confirmation."""
    return f"The test split has had {counted(count, 'look')}, this confirmation included."


# -- what was pruned, and what it cost --------------------------------------------------------------------------------


def pruning(result: StudyResult) -> Iterator[str]:
    """What was pruned, could not be run or failed, and how often pruning would have erred."""
    prunes = not isinstance(result.config.pruner, NoPruner)
    if count := result.pruned:
        config = result.config.student
        were, their = ("was", "its") if count == 1 else ("were", "their")
        yield (
            f"{counted(count, 'trial')} of {result.counts.finished:,} {were} pruned on similarity entropy before "
            f"{their} students were paid for, which spared {count * config.replicates.max * config.epochs:,} student "
            "epochs."
        )
    elif prunes:
        yield "No trial was pruned on similarity entropy."
    else:
        yield "This study does not prune on similarity entropy."
    if prunes:
        yield false_prunes(result)
    if count := result.infeasible:
        yield f"{counted(count, 'trial')} could not be run: the loss was not finite, or memory ran out."
    if count := result.counts.failed:
        yield f"{counted(count, 'trial')} failed."


def false_prunes(result: StudyResult) -> str:
    """The observed rate of false prunes."""
    wrong, let_run = result.would_have_pruned
    if not let_run:
        return (
            "One trial in ten of those that what was learned would prune runs anyway, to see whether pruning errs; "
            "there has been none yet, so that the rate of false prunes is not known."
        )
    return (
        f"Of {counted(let_run, 'trial')} that the pruner would have stopped but let run, {wrong:,} came within "
        f"{100 * result.config.confirm.margin:g} points of the best: an observed rate of false prunes of "
        f"{percent(wrong / let_run, 0)}."
    )


def cost(result: StudyResult) -> str:
    """What was spent, and what sharing saved; the sentence may go on."""
    spent = result.cost
    asked, trained = spent.teacher_epochs_requested, spent.teacher_epochs_trained
    saved = f": sharing saved {percent(max(0.0, 1 - trained / asked), 0)}" if asked else ""
    return (
        f"{trained:,} teacher epochs trained where {asked:,} were asked for{saved}; {spent.student_epochs:,} student "
        f"epochs; {duration(spent.seconds)} of worker time"
    )
