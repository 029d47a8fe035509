"""What a report says, in sentences. Plain text: whoever writes a page or a file escapes it for that."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from statistics import fmean
from typing import Literal

from optuna.trial import TrialState

from sweetspot.config import (
    AdamW,
    Constant,
    Cosine,
    Ladder,
    LRRule,
    Multistep,
    NoPruner,
    Optimizer,
    Range,
    Schedule,
    SimilarityEntropyRule,
)
from sweetspot.report.page.contents import Report
from sweetspot.report.points import PointSummary
from sweetspot.report.text import ARM_NAMES, MEANING, duration
from sweetspot.study.confirmation import ACCURATE, ALONE, BEST
from sweetspot.study.inference import Interval
from sweetspot.study.jobs import FULL
from sweetspot.study.search import is_given_back
from sweetspot.study.space import ExternalPoint, Point, shown
from sweetspot.study.space import points as all_points
from sweetspot.training.schedules import schedule

Standing = Literal["confirmed", "undecided", "decided against", "not confirmed", "no answer"]


LEGEND = (
    "Accuracies are those of the validation split, in per cent. S is similarity entropy, N similarity information and "
    "M delivered similarity of the teacher, on training views, in nats. Steps in brackets are too few for the sweet "
    "spot."
)


@dataclass(frozen=True)
class Answer:
    """The answer of a study in one sentence, and what is to be known with it.

    Attributes:
        lead: how it stands, in a few words; the sentence goes on with ``rest``.
    """

    standing: Standing
    lead: str
    rest: str
    remarks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return f"{self.lead}: {self.rest}"


@dataclass(frozen=True)
class Fact:
    what: str
    text: str


@dataclass(frozen=True)
class ArmRow:
    """An arm of the confirmation. ``gain`` is the best point's over it; "" where there is none to tell."""

    arm: str
    name: str
    point: str
    students: int
    accuracy: str
    gain: str


# -- numbers ----------------------------------------------------------------------------------------------------------


def percent(fraction: float) -> str:
    """To be told from the 95 % interval's own sign: a number and its unit stay on one line."""
    return f"{100 * fraction:.2f}\u00a0%"


def between(low: float, high: float) -> str:
    """An interval of accuracies."""
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"


def gained(interval: Interval) -> str:
    """A difference in percentage points, with its interval."""
    mean, low, high = (f"{round(100 * v, 2) + 0.0:+.2f}" for v in (interval.mean, interval.low, interval.high))
    return typeset(f"{mean} points (95\u00a0% interval {low} to {high})")


def typeset(text: str) -> str:
    """With a true minus before numbers."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def title(report: Report) -> str:
    """Which study it is: its data set without the folders that lead there."""
    config = report.result.config
    kind, colon, path = config.data.dataset.partition(":")
    dataset = f"{kind}{colon}{PurePath(path).name}"
    return f"{report.result.name}: {config.teacher.model} teaches {config.student.model} on {dataset}"


# -- the answer -------------------------------------------------------------------------------------------------------


def answer(report: Report) -> Answer:
    """The answer as it stands: confirmed, undecided, decided against, not confirmed (yet), or none yet."""
    result = report.result
    if result.best is None:
        return Answer("no answer", "No answer yet", f"no trial has finished ({counts(report)}).", _to_go_on(report))
    confirmed = result.confirmation
    lead, _, why = result.verdict.partition(": ")
    lead = _capital(lead)
    if confirmed is None:
        told = () if why.startswith("the best point so far") else (f"{_capital(why)}.",)
        return Answer("not confirmed", lead, _so_far(report), (*told, *_to_know(report)))
    interval = confirmed.intervals[BEST]
    gains = [
        f"{gained(gain)} against {'no teacher' if arm == ALONE else f'the {ARM_NAMES.get(arm, arm)}'}"
        for arm in (ALONE, ACCURATE)
        if confirmed.plan.points[arm] != confirmed.plan.points[BEST] and (gain := confirmed.gains.get(arm)) is not None
    ]
    rest = (
        f"{_students_at_best(report)} reach {percent(interval.mean)} on the test split "
        f"(95\u00a0% interval {between(interval.low, interval.high)}), {', and '.join(gains)}."
    )
    standings: dict[bool | None, Standing] = {True: "confirmed", False: "decided against", None: "undecided"}
    looks = confirmed.plan.looks
    remarks = (
        typeset(result.verdict.partition(". ")[2]),
        *_to_know(report),
        f"The test split has had {counted(looks, 'look')}, this confirmation included.",
    )
    return Answer(standings[confirmed.verdict.confirmed], lead, rest, remarks)


def _students_at_best(report: Report) -> str:
    best, config = report.result.best, report.result.config
    assert best is not None
    teacher = dict(best.point.others).get("teacher.model", config.teacher.model)
    return f"{config.student.model} students of the {teacher} teacher at {best.point}"


def _so_far(report: Report) -> str:
    result, point = report.result, report.best
    assert result.best is not None
    mean = fmean(result.best.accuracies)
    interval = "one student, and so no interval"
    if point is not None and point.low is not None and point.high is not None:
        interval = f"95\u00a0% interval {between(point.low, point.high)}"
    elif len(result.best.accuracies) > 1:
        interval = "without an interval"
    of = counted(len(result.ranked), "point")
    return (
        f"so far {_students_at_best(report)} are the best, at {percent(mean)} on the validation split ({interval}; "
        f"chosen as the best of {of}, so partly luck)."
    )


def _to_know(report: Report) -> tuple[str, ...]:
    result = report.result
    best, ladder, replicates = result.best, result.config.search.ladder, result.config.student.replicates
    assert best is not None
    remarks = []
    if best.point.epochs == ladder[-1] and len(ladder) > 1:
        remarks.append(f"It is at the longest epochs searched ({ladder[-1]}): a longer ladder may find a better one.")
    if not best.is_settled:
        few = counted(len(best.accuracies), "student")
        remarks.append(f"It has {few}, and needs {replicates.max} before it can be called best.")
    return (*remarks, *_to_go_on(report))


def _to_go_on(report: Report) -> tuple[str, ...]:
    result = report.result
    ended, finished, total = result.record.ended, result.counts.finished, result.config.search.trials
    if ended is not None:
        return (f"The search ended early: {ended}." + (" The same command continues it." if ended != FULL else ""),)
    if finished < total:
        return (f"The search is at {finished:,} of {total:,} trials: sweetspot optimize continues it.",)
    return ()


def counts(report: Report) -> str:
    """How far the trials are."""
    found = report.result.counts
    said = [f"{found.complete:,} complete", f"{found.pruned:,} pruned"]
    others = ((found.failed, "failed"), (found.running, "running"), (found.waiting, "waiting"))
    said += [f"{count:,} {what}" for count, what in others if count]
    return f"{found.finished:,} of {counted(report.result.config.search.trials, 'trial')}: {', '.join(said)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- how it was found -------------------------------------------------------------------------------------------------


def how_found(report: Report) -> list[Fact]:
    """What was searched, and how."""
    result = report.result
    config = result.config
    replicates = config.student.replicates
    few = f"{replicates.min} to {replicates.max}" if replicates.min < replicates.max else f"{replicates.max}"
    return [
        Fact("Searched", _space(report)),
        Fact("Epochs", _epochs(report)),
        Fact("Sampler", f"{config.search.sampler}, seed {config.seed}. {_pruner(report)}"),
        Fact(
            "Teacher",
            f"{config.teacher.model}; {_optimizer(config.teacher.optimizer, config.teacher.lr_rule)}; "
            f"{_schedule(config.teacher.schedule)}; {config.teacher.precision}",
        ),
        Fact(
            "Student",
            f"{config.student.model}; {counted(config.student.epochs, 'epoch')} at batch {config.student.batch_size}; "
            f"{_optimizer(config.student.optimizer)}; {_schedule(config.student.schedule)}; temperature "
            f"{config.student.temperature:g}, weight of the teacher {config.student.alpha:g}",
        ),
        Fact(
            "Students",
            f"{few} for each point, each with a seed of its own. A point is ranked by all of its students, their mean "
            f"drawn toward that of all points, and needs {replicates.max} before it can be called best.",
        ),
        Fact("Data", _data(report)),
        Fact("Trials", f"{counts(report)}. {_visited(report)}"),
        Fact("Workers", _workers(report)),
        Fact("When", _when(report)),
    ]


def _space(report: Report) -> str:
    search = report.result.config.search
    rungs = search.ladder
    kind = "geometric rungs " if isinstance(search.epochs, Ladder) else ""
    parts = [f"batch size {_listed(search.batch_size)}", f"epochs {kind}{_listed(rungs)}"]
    if search.teacher.model is not None:
        parts.append(f"teacher {', '.join(search.teacher.model)}")
    ranges = {
        "the students' temperature": search.student.temperature,
        "the teacher's weight": search.student.alpha,
        "the teacher's learning rate": search.teacher.lr,
    }
    parts += [f"{what} {_range(range_)}" for what, range_ in ranges.items() if range_ is not None]
    return "; ".join(parts) + "."


def _listed(values: Sequence[int]) -> str:
    most = 16
    if len(values) > most:
        return f"{_listed(values[: most - 2])}, … {values[-1]} ({len(values)} values)"
    return ", ".join(map(str, values))


def _range(range_: Range) -> str:
    return f"{shown(range_.low)} to {shown(range_.high)}{' (logarithmic)' * range_.log}"


def _epochs(report: Report) -> str:
    result = report.result
    of = schedule(result.config.teacher.schedule, result.config.search.ladder[0])
    longest = result.config.search.ladder[-1]
    shared = of.shared_epochs(longest)
    if shared == longest:
        sharing = "Shorter teachers lie on the way to longer ones, and are trained once."
    elif shared:
        sharing = "Runs of one batch size share their trunk; each length pays for its own end."
    else:
        sharing = "Each length is a run of its own: nothing is shared."
    mean = result.epochs_mean
    return f"{mean}: a teacher of so many epochs is {MEANING[mean]}. {sharing}"


def _pruner(report: Report) -> str:
    pruner = report.result.config.pruner
    if isinstance(pruner, NoPruner):
        return "Nothing was pruned on similarity entropy."
    assert isinstance(pruner, SimilarityEntropyRule)
    rules = []
    if pruner.low is not None:
        rules.append(f"below {pruner.low:g} nats at any rung")
    if pruner.high is not None:
        rules.append(f"above {pruner.high:g} nats at a trial's own epochs")
    if pruner.learn:
        margin = f"within {100 * pruner.margin:g} points of" if pruner.margin else "up to"
        rules.append(
            f"where {pruner.n_startup_trials} or more completed trials leave a chance below "
            f"{100 * pruner.p:g}\u00a0% to come {margin} the best"
        )
    if not rules:
        return "Nothing is pruned on similarity entropy."
    return f"Trials are pruned on the similarity entropy of their teacher, {', and '.join(rules)}."


def _optimizer(optimizer: Optimizer, rule: LRRule | None = None) -> str:
    lr = f"learning rate {optimizer.lr:g}"
    if rule is not None and rule.name != "none":
        lr += f" at batch {rule.batch_size}, {rule.name} in the batch size up to {rule.cap:g} times"
    if isinstance(optimizer, AdamW):
        return f"adamw, {lr}, weight decay {optimizer.weight_decay:g}"
    momentum = f", momentum {optimizer.momentum:g}{' (Nesterov)' * optimizer.nesterov}"
    return f"sgd, {lr}{momentum}, weight decay {optimizer.weight_decay:g}"


def _schedule(values: Schedule) -> str:
    warmup = f", warm-up {values.warmup:g}" if values.warmup else ""
    match values:
        case Constant() | Cosine():
            return f"schedule {values.name}{warmup}"
        case Multistep():
            steps = ", ".join(f"{milestone:g}" for milestone in values.milestones)
            return f"schedule multistep, times {values.gamma:g} at {steps}{warmup}"
        case _:
            return f"schedule wsd, decay over the last {100 * values.decay:g}\u00a0%{warmup}"


def _data(report: Report) -> str:
    config, data = report.result.config.data, report.data
    said = [config.dataset]
    if images := data.get("train_images"):
        said.append(f"{images:,} training images")
    held = f"{config.validation:,} images" if config.validation >= 1 else f"{100 * config.validation:g}\u00a0%"
    said.append(f"{held} held out for validation")
    if classes := data.get("classes"):
        said.append(f"{len(classes):,} classes")
    if shape := data.get("images"):
        colour = {1: "grey", 3: "RGB"}.get(shape["channels"], f"{shape['channels']} channels")
        said.append(f"{shape['size']} x {shape['size']} pixels, {colour}")
    if config.augmentation:
        said.append(f"augmented by {' and '.join(config.augmentation)}")
    return "; ".join(said) + ". The search has seen the validation split, and only the confirmation the test split."


def _visited(report: Report) -> str:
    visited = len(report.result.points)
    space = all_points(report.result.config)
    of = f" of {len(space):,}" if space is not None else ""
    return f"They have visited {visited:,}{of} points."


def _workers(report: Report) -> str:
    trials = [t for t in report.result.trials if not is_given_back(t)]
    workers = {t.user_attrs["worker"] for t in trials if "worker" in t.user_attrs}
    devices = sorted({str(t.user_attrs["device"]) for t in trials if "device" in t.user_attrs})
    if not workers:
        return "none yet"
    now = len(report.result.workers)
    on = f", on {', '.join(devices)}" if devices else ""
    return f"{counted(len(workers), 'worker')}{on}" + (f"; {now} at work when this was written" if now else "")


def _when(report: Report) -> str:
    starts = [t.datetime_start for t in report.result.trials if t.datetime_start is not None]
    ends = [t.datetime_complete for t in report.result.trials if t.datetime_complete is not None]
    if not starts:
        return "not begun"
    if not ends:
        return f"since {moment(min(starts))} UTC"
    return f"{moment(min(starts))} to {moment(max(ends))} UTC (the search)"


def moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


# -- the evidence -----------------------------------------------------------------------------------------------------


def arms(report: Report) -> list[ArmRow]:
    """The rows of the confirmation's table; empty while there is none."""
    confirmed = report.result.confirmation
    if confirmed is None:
        return []
    rows = []
    for arm, point in confirmed.plan.points.items():
        name = f"your teacher {point.name}" if isinstance(point, ExternalPoint) else ARM_NAMES.get(arm, arm)
        students = confirmed.accuracies.get(arm, [])
        if not students:
            rows.append(ArmRow(arm, name, _place(point), 0, "could not be trained", ""))
            continue
        interval = confirmed.intervals[arm]
        accuracy = f"{percent(interval.mean)} [{between(interval.low, interval.high)}]"
        gain = confirmed.gains.get(arm)
        said = gained(gain).replace("95\u00a0% interval ", "") if gain is not None else ""
        if arm != BEST and point == confirmed.plan.points[BEST]:
            said = "the same point"
        rows.append(ArmRow(arm, name, _place(point), len(students), accuracy, said))
    return rows


def _place(point: Point | ExternalPoint | None) -> str:
    if isinstance(point, ExternalPoint):
        return f"{point.model}, {counted(point.epochs, 'epoch')}"
    return "" if point is None else str(point)


def verdict(report: Report) -> str:
    """The verdict in full; "" while there is no point that it could be about."""
    if report.result.best is None:
        return ""
    words = _capital(typeset(report.result.verdict))
    return words if words.endswith(".") else f"{words}."


def confirmation(report: Report) -> list[str]:
    """What the confirmation is; nothing where there is none."""
    result = report.result
    confirmed = result.confirmation
    if confirmed is None:
        return []
    return [
        "The best point was chosen on the validation split, so that its validation accuracy is partly luck. Here are "
        f"{counted(confirmed.plan.seeds, 'fresh student')} for each arm, with the same seeds, initial weights and "
        "orders in every arm, on a test split that the search has never seen. Intervals are of 95\u00a0%, a two-way "
        "bootstrap over seeds and test images; differences below "
        f"{100 * result.config.confirm.margin:g} points do not matter."
    ]


def likeness(report: Report) -> list[str]:
    """Which classes the best teacher finds alike; nothing where that was not measured."""
    if report.similarity is None or report.best is None:
        return []
    from sweetspot.report.pictures import FEW_IMAGES  # it takes long, and no other words need it

    temperature = report.result.config.teacher.probe_temperature
    pairs = [f"{pair.one} and {pair.other} ({percent(pair.response)})" for pair in report.alike(6)]
    said = []
    if pairs:
        said.append(
            f"The classes that the teacher at {report.best.point} finds most alike: {', '.join(pairs)}. In brackets is "
            f"its mean response to images of either class on the other, at temperature {temperature:g}, on training "
            "views."
        )
    few = [
        f"{name} ({images})"
        for name, images in zip(report.classes, report.similarity.images.tolist(), strict=True)
        if images < FEW_IMAGES
    ]
    if few:
        said.append(f"Classes with fewer than {FEW_IMAGES} images in this probe: {', '.join(few)}.")
    return said


# -- what was pruned, and what it cost --------------------------------------------------------------------------------


def pruned(report: Report) -> list[str]:
    """What was pruned or could not be run, and how often pruning would have erred."""
    result = report.result
    finished = [t for t in result.trials if t.state == TrialState.PRUNED]
    infeasible = sum("infeasible" in t.user_attrs for t in finished)
    stopped = len(finished) - infeasible
    said = []
    if stopped:
        config = result.config.student
        spared = stopped * config.replicates.max * config.epochs
        said.append(
            f"{counted(stopped, 'trial')} of {result.counts.finished:,} "
            f"{'was' if stopped == 1 else 'were'} pruned on similarity entropy before "
            f"{'its' if stopped == 1 else 'their'} students were paid for, which spared {spared:,} student epochs."
        )
    elif not isinstance(result.config.pruner, NoPruner):
        said.append("No trial was pruned on similarity entropy.")
    else:
        said.append("This study does not prune on similarity entropy.")
    said.append(false_prunes(report)) if not isinstance(result.config.pruner, NoPruner) else None
    if infeasible:
        said.append(f"{counted(infeasible, 'trial')} could not be run: the loss was not finite, or memory ran out.")
    if failed := result.counts.failed:
        said.append(f"{counted(failed, 'trial')} failed.")
    return said


def set_aside(report: Report) -> list[PointSummary]:
    """The points that were pruned, could not be run, or failed."""
    return [point for point in report.result.points if point.state in ("pruned", "infeasible", "failed")]


def false_prunes(report: Report) -> str:
    """The observed rate of false prunes."""
    wrong, let_run = report.result.would_have_pruned
    if not let_run:
        return (
            "One trial in ten of those that what was learned would prune runs anyway, to see whether pruning errs; "
            "there has been none yet, so that the rate of false prunes is not known."
        )
    margin = report.result.config.confirm.margin
    return (
        f"Of {counted(let_run, 'trial')} that the pruner would have stopped but let run, {wrong} came within "
        f"{100 * margin:g} points of the best: an observed rate of false prunes of {100 * wrong / let_run:.0f}\u00a0%."
    )


def cost(report: Report) -> str:
    """What the study has cost, and what sharing saved."""
    spent = report.result.cost
    asked, trained = spent.teacher_epochs_requested, spent.teacher_epochs_trained
    saved = max(0.0, 1 - trained / asked) if asked else 0.0
    return (
        f"{trained:,} teacher epochs trained where {asked:,} were asked for: sharing saved {100 * saved:.0f}\u00a0%. "
        f"{counted(spent.student_epochs, 'student epoch')}; {duration(spent.seconds)} of worker time, the confirmation "
        "included."
    )


# -- what wrote it ----------------------------------------------------------------------------------------------------


def versions(report: Report) -> list[Fact]:
    """When, where and with what the report was written, and what trained the teachers."""
    return [
        Fact("Written", f"{report.written} UTC on {report.machine}"),
        Fact("With", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        Fact("Teachers", f"trained with {'; '.join(report.builds)}" if report.builds else "no build is recorded"),
        Fact("Data", f"SHA-256 of the training set: {report.result.record.data_hash}"),
    ]
