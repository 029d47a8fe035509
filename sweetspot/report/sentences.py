"""What is said of a study in more than one place: names, numbers, sentences.

Plain text: whoever puts it into a page, a note or a terminal escapes it for that.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from sweetspot.config import NoPruner, StudyConfig
from sweetspot.report.result import StudyResult
from sweetspot.study.choices import LRCheck
from sweetspot.study.confirmation import FINALIST, Plan
from sweetspot.study.jobs import FULL
from sweetspot.study.space import Point, config_at

MEANING = {
    "truncated": "a longer run stopped there",
    "annealed": "a run whose schedule ends there",
}
"""What a teacher of so many epochs is."""

_MOST_NAMES = 4
_RATES = {0.5: "at half the learning rate", 1.0: "as searched", 2.0: "at double"}


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
        few, replicates = counted(len(best.accuracies), "student"), result.config.student.replicates
        races = ": racing gives the leaders theirs once the search is over" if replicates.min < replicates.max else ""
        said.append(f"It has {few}, and needs {replicates.max} before it can be called best{races}.")
    return said


# -- the confirmation -------------------------------------------------------------------------------------------------


def students_each(teachers: int, students: int) -> str:
    """The students of each arm of a confirmation."""
    if not teachers:
        return f"{counted(students, 'fresh student')} each"
    return f"{teachers:,} fresh teachers x {counted(students, 'student')} each"


def about(plan: Plan) -> str:
    """What a confirmation is about."""
    if plan.claim == "this point":
        return "It is about the point: every arm has fresh teachers, so that its intervals are over teachers, too."
    return "It is about this teacher: its intervals are over students and images, and say nothing of other teachers."


def looks(count: int, own: int) -> str:
    """How often the test split has been looked at, beside a confirmation.

    Args:
        count: by all studies on the data.
        own: by this study's confirmations.
    """
    mine = "" if own == count else f", {own:,} of them by this study"
    return f"The test split has had {counted(count, 'look')}{mine}, this confirmation included."


def further(result: StudyResult) -> list[str]:
    """What is told beside the verdict: the cheaper teacher, batch size at equal steps, learning rates, pairing."""
    said = []
    if (cheaper := economy(result)) is not None:
        said.append(cheaper)
    if result.equal_steps is not None:
        said.append(sentence(result.equal_steps.words))
    elif result.best is not None and len(result.config.search.batch_size) > 1:
        said.append("Whether batch size matters at equal steps: too few points at equal steps to tell.")
    confirmed = result.confirmation
    if confirmed is not None and confirmed.lr_check is not None:
        said.append(learning_rates(confirmed.lr_check))
    if confirmed is not None and confirmed.correlations:
        said.append(pairing(list(confirmed.correlations.values())))
    return said


def economy(result: StudyResult) -> str | None:
    """The cheapest teacher that is as good as the best point's, and how sure that is; None where nothing is known."""
    cheapest, best, confirmed = result.cheapest, result.best, result.confirmation
    if cheapest is None or best is None:
        return None
    margin = f"{100 * result.config.confirm.margin:g} points"
    if cheapest.point == best.point:
        return f"No cheaper teacher was found whose students are within {margin} of the best point's."
    cost = "" if result.cost_ratio is None else f" at {percent(result.cost_ratio, 0)} of the teacher's training"
    found = confirmed.economy if confirmed is not None and not result.is_stale else None
    if found is None:
        return (
            f"As good so far,{cost}: {cheapest.point} (within {margin} of the best point on the validation split; not "
            "confirmed)."
        )
    standing = {
        True: f"As good,{cost}: {cheapest.point} (confirmed).",
        None: f"Perhaps as good,{cost}: {cheapest.point} (undecided).",
        False: f"Cheaper,{cost}, but not as good: {cheapest.point}.",
    }
    return standing[found.confirmed]


def learning_rates(check: LRCheck) -> str:
    """What half and double the learning rate do to the best batch size and to the runner-up."""
    best, rival = check.batch_sizes
    said, ahead = [], []
    for factor, mine, other in check.accuracies:
        rate = _RATES.get(factor, f"at {factor:g} times it")
        if mine is None or other is None:
            said.append(f"{rate} one is missing")
        else:
            said.append(f"{rate} {percent(mine)} against {percent(other)}")
            ahead.append(mine > other)
    if check.stays_ahead is None:
        stays = "not known at every learning rate"
    elif check.stays_ahead:
        stays = "it stays ahead"
    else:
        stays = "which is ahead depends on the learning rate" if any(ahead) else "it does not stay ahead"
    return f"Batch {best} against batch {rival} on the validation split: {', '.join(said)}: {stays}."


def pairing(correlations: Sequence[float]) -> str:
    """How the accuracies of students with the same seeds go together."""
    low, high = min(correlations), max(correlations)
    between = f"{low:.2f}" if len(correlations) == 1 else f"{low:.2f} to {high:.2f}"
    return (
        f"Students of the best point and of the other arms with the same seeds correlate by {between}: reported, not "
        "relied on."
    )


def finalists(result: StudyResult) -> list[str]:
    """The verdicts of the finalists after the best point; empty where there are none."""
    confirmed = result.confirmation
    if confirmed is None:
        return []
    arms = [arm for arm in confirmed.accuracies if arm.startswith(FINALIST)]
    return [
        f"Finalist {arm.removeprefix(f'{FINALIST}_')} ({confirmed.plan.arms[arm]}): {sentence(verdict.words)}"
        for arm, verdict in zip(arms, confirmed.verdicts[1:], strict=True)
    ]


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
