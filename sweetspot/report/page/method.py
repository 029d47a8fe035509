"""How the answer of a report was found: what was searched, and how, on which data, by whom, when."""

from collections.abc import Sequence
from datetime import UTC, datetime

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
    Replicates,
    Schedule,
    SimilarityEntropyRule,
)
from sweetspot.report.page.contents import Report
from sweetspot.report.page.phrases import Fact, moment
from sweetspot.report.sentences import MEANING, by_state, counted, finished, teachers, without_path
from sweetspot.study.search import is_given_back
from sweetspot.study.space import points as all_points
from sweetspot.study.space import shown
from sweetspot.training.schedules import schedule


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
            f"{teachers(config)}; {_optimizer(config.teacher.optimizer, config.teacher.lr_rule)}; "
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
            f"{few} for each point, each with a seed of its own. {_race(replicates)}A point is ranked by all of its "
            f"students, their mean drawn toward that of all points, and needs {replicates.max} before it can be called "
            "best.",
        ),
        Fact("Data", _data(report)),
        Fact("Trials", f"{finished(result)}: {by_state(result)}. {_visited(report)}"),
        Fact("Workers", _workers(report)),
        Fact("When", _when(report)),
    ]


def _race(replicates: Replicates) -> str:
    if replicates.min == replicates.max:
        return ""
    return (
        f"A point begins with {replicates.min} and earns more only while it may still be the best, so that those with "
        "fewer were left behind. "
    )


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
    said = [without_path(config.dataset)]
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
    starts = [_utc(t.datetime_start) for t in report.result.trials if t.datetime_start is not None]
    ends = [_utc(t.datetime_complete) for t in report.result.trials if t.datetime_complete is not None]
    if not starts:
        return "not begun"
    if not ends:
        return f"since {moment(min(starts))} UTC"
    return f"{moment(min(starts))} to {moment(max(ends))} UTC (the search)"


def _utc(local: datetime) -> datetime:
    """Of Optuna's times, which are local ones without a zone."""
    return local.astimezone(UTC)
