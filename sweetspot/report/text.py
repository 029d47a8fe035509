"""Results as text for people: the summary, and the tables of status and trials."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sweetspot.report.arms import ArmSummary, arm_summaries
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import (
    MEANING,
    by_state,
    cost,
    counted,
    ending,
    false_prunes,
    finalists,
    finished,
    further,
    headline,
    looks,
    percent,
    reservations,
    students_each,
)
from sweetspot.store import WorkerRecord
from sweetspot.study.arms import BEST, ECONOMY
from sweetspot.study.inference import Interval
from sweetspot.study.search import is_given_back
from sweetspot.study.space import ExternalPoint, Point, params_of


def size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def summary(result: StudyResult) -> RenderableType:
    """What a study has found, so that a person can act on it."""
    parts: list[RenderableType] = [Text(headline(result), "bold"), Text()]
    best = result.best
    if best is None:
        parts.append(Text(f"No trial has finished. {finished(result)} ({by_state(result)})."))
        return Group(*parts, *_ending(result))
    confirmed = result.confirmation
    title = "Best point so far" if confirmed is None else "Best point"
    parts.append(
        Text(
            f"{title}: {best.point} (epochs are {result.epochs_mean}: {MEANING[result.epochs_mean]}; "
            f"{best.steps:,} teacher steps)"
        )
    )
    spread = f" ± {percent(stdev(best.accuracies))}" if len(best.accuracies) > 1 else ""
    parts.append(
        Text(
            f"Validation accuracy of its {counted(len(best.accuracies), 'student')}: "
            f"{percent(fmean(best.accuracies))}{spread} (chosen as the best, so partly luck)"
        )
    )
    parts += map(Text, reservations(result))
    if confirmed is not None:
        parts += [Text(), _arms(result)]
    first, *others = result.verdict_sentences
    parts += [Text(), Text.assemble(("Verdict: ", "bold"), first)]
    beside = [*others, *finalists(result), *further(result)]
    if confirmed is not None:
        beside.append(looks(confirmed.plan.looks, confirmed.plan.look))
    parts += map(_Item, beside)
    parts += [Text(), Text(f"Spent: {finished(result)} ({by_state(result)}). {cost(result)}.")]
    if result.would_have_pruned[1]:
        parts.append(Text(false_prunes(result)))
    return Group(*parts, *_ending(result), Text(), _further(result))


@dataclass(frozen=True)
class _Item:
    """A sentence of a list: with a dash, further lines beneath its first word."""

    sentence: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, line in enumerate(Text(self.sentence).wrap(console, options.max_width - 2)):
            line.rstrip()
            yield Text.assemble("  " if number else "- ", line)


def _ending(result: StudyResult) -> list[Text]:
    said = ending(result)
    return [] if said is None else [Text(said)]


def _arms(result: StudyResult) -> Table:
    """One row per arm; fits 80 columns. Accuracies in per cent, gains in percentage points."""
    confirmed = result.confirmation
    assert confirmed is not None
    plan = confirmed.plan
    table = Table(
        title=f"Test accuracy of {students_each(plan.teachers, plan.seeds)}, % [95 % interval]",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("students of")
    table.add_column("batch x epochs", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("gain of best point", justify="right")
    arms = arm_summaries(result.config, confirmed)
    names = {each.arm: each.name for each in arms}
    for each in arms:
        if each.arm == ECONOMY and each.same_as == BEST:
            continue  # there is no cheaper one
        where = ""
        if isinstance(each.source, Point):
            where = f"{each.source.batch_size} x {each.source.epochs}"
        elif isinstance(each.source, ExternalPoint):
            where = counted(each.source.epochs, "epoch")
        accuracy = _interval(each.interval) if each.interval is not None else "could not be trained"
        table.add_row(escape(each.name), where, accuracy, escape(gain_text(each, names)))
    return table


def gain_text(arm: ArmSummary, names: Mapping[str, str]) -> str:
    """The best point's gain over an arm; of one that is another one, which.

    Args:
        names: what people call the arms.
    """
    if arm.interval is None:
        return ""
    if arm.same_as is not None:
        return "same point" if arm.same_as == BEST else f"as {names[arm.same_as]}"
    return _interval(arm.gain, "+") if arm.gain is not None else ""


def _interval(interval: Interval, sign: str = "") -> str:
    low, high = (f"{100 * bound:{sign}.1f}" for bound in (interval.low, interval.high))
    return f"{100 * interval.mean:{sign}.2f} [{low}, {high}]"


def _further(result: StudyResult) -> RenderableType:
    commands = {
        f"sweetspot trials {result.name}": "every trial",
        f"sweetspot best {result.name} --json": "this answer for programs",
        f"sweetspot worker --name {result.name}": "join from another terminal or machine",
    }
    width = max(map(len, commands))
    return Text(
        "\n".join(["To look further:", *(f"  {command:<{width}}   {what}" for command, what in commands.items())])
    )


def status_table(results: Iterable[StudyResult]) -> RenderableType:
    """One row per study. Tasks are what comes after a search: its leaders' students, choices, the confirmation."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = (
        "study",
        "data",
        "done",
        "pruned",
        "running",
        "tasks",
        "best so far",
        "student",
        "teacher epochs",
        "workers",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("study", "data", "best so far") else "right")
    for result in results:
        best, counts, stage = result.best, result.counts, result.stage
        table.add_row(
            escape(result.name),
            escape(result.config.data.dataset),
            f"{counts.finished}/{result.config.search.trials}",
            str(counts.pruned),
            str(counts.running),
            f"{stage.done}/{stage.total}" if stage is not None else "",
            str(best.point) if best else "",
            percent(fmean(best.accuracies)) if best else "",
            f"{result.cost.teacher_epochs_trained}/{result.cost.teacher_epochs_requested}",
            str(len(result.workers)),
        )
    return table


def trials_table(result: StudyResult) -> RenderableType:
    """One row per trial, those given back left out. S is similarity entropy in nats; steps in brackets are too few."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = (
        "trial",
        "state",
        "batch",
        "epochs",
        "steps",
        "student %",
        "±",
        "teacher %",
        "S",
        "trained",
        "reused",
        "",
    )
    for column in columns:
        text = column in ("state", "")
        table.add_column(column, justify="left" if text else "right", no_wrap=column != "")
    for trial in result.trials:
        if is_given_back(trial):
            continue
        attrs = trial.user_attrs
        accuracies: Sequence[float] = attrs.get("replicate_accuracies", [])
        params = params_of(trial)
        others = [f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
                  for name, value in sorted(params.items()) if name not in ("batch_size", "epochs")]  # fmt: skip
        why = attrs.get("pruned_because") or attrs.get("infeasible") or attrs.get("error")
        table.add_row(
            str(trial.number),
            trial.state.name.lower(),
            str(params.get("batch_size", "")),
            str(params.get("epochs", "")),
            _steps(result, attrs.get("steps")),
            f"{100 * fmean(accuracies):.2f}" if accuracies else "",
            f"{100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else "",
            f"{100 * attrs['teacher_accuracy']:.2f}" if "teacher_accuracy" in attrs else "",
            f"{attrs['similarity_entropy']:.3f}" if "similarity_entropy" in attrs else "",
            str(attrs.get("epochs_trained", "")),
            str(attrs.get("epochs_reused", "")),
            escape("; ".join([*others, *([str(why)] if why else [])])),
        )
    return table


def _steps(result: StudyResult, steps: int | None) -> str:
    """A point's teacher steps, marked where they are too few for the sweet spot."""
    if steps is None:
        return ""
    return f"{steps}" if steps >= result.config.search.min_steps else f"({steps})"


def worker_line(worker: WorkerRecord) -> str:
    """What a worker does, in one line."""
    detail: dict[str, Any] = worker.detail
    where = f"{worker.device} (pid {worker.pid})"
    if worker.phase not in ("teacher", "student", "waiting") or "epoch" not in detail:
        return f"{where}: {worker.phase}"
    point = (
        f"batch {detail['batch_size']}, {detail['epochs']} epochs"
        if "batch_size" in detail
        else detail.get("teacher", "student alone")
    )
    doing = {"teacher": "teacher", "student": "students", "waiting": "waiting for another worker's teacher"}[
        worker.phase
    ]
    entropy = f", S {detail['similarity_entropy']:.3f}" if "similarity_entropy" in detail else ""
    return f"{where}: {point}: {doing}, epoch {detail['epoch']}{entropy}"
