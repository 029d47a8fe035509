"""Notes in Markdown: what a study, or a trial, has to say in plain words. Names from outside never mark anything up."""

import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import fmean, stdev

from sqlalchemy.engine import URL

from sweetspot.report.result import StudyResult
from sweetspot.report.text import MEANING, duration, percent
from sweetspot.store.url import artifacts_url, has_password, home, shown
from sweetspot.study.findings import Findings
from sweetspot.study.jobs import FULL
from sweetspot.study.space import Point, points

_LONGEST = 2000
"""Characters of a text from outside, an error say."""


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, on one line; fit for a table. Addresses in it become no links."""
    # GitHub's Markdown makes links of addresses, escaped or not, unless something unseen stands within.
    unlinked = re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", "\u2060", _plain(text), flags=re.IGNORECASE)
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", unlinked)


def code(text: object) -> str:
    """Text as a span of code, in which nothing is interpreted: no markup, no address, no HTML."""
    plain = _plain(text) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    pad = " " if "`" in (plain[0], plain[-1]) else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _plain(text: object) -> str:
    """One line without control characters, cut where it is very long."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in str(text))
    plain = " ".join(plain.split())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def _code_block(lines: Sequence[str]) -> str:
    fence = "`" * max(3, max((len(run) + 1 for line in lines for run in re.findall("`+", line)), default=0))
    return "\n".join([f"{fence}bash", *lines, fence])


# -- a study ----------------------------------------------------------------------------------------------------------


def study_note(result: StudyResult, url: URL, artifacts: str, now: datetime) -> str:
    """What a study searches, what it has found, what that means, what it has cost, and how to join.

    Args:
        url, artifacts: where it lies, for whoever joins; passwords are left out.
        now: when this is written, with its zone.
    """
    parts = [
        f"## {code(result.name)}",
        f"**What is searched.** {_searched(result)}",
        f"**Best so far.** {_best(result)}",
        f"**What it means.** {escaped(_sentence(result.verdict))}",
        f"**Where it stands.** {_standing(result)}",
        f"**Pruning.** {_pruning(result)}",
        f"**Cost.** {_cost(result)}",
        "**Join in** from another terminal or machine with a free device:",
        _code_block(_joining(result, url, artifacts)),
        f"Written {now:%Y-%m-%d %H:%M %Z}, and again while the study goes on. What you write above or below this text "
        "stays; if you change the text itself, it is yours, and is not written again.",
    ]
    return "\n\n".join(parts)


def _searched(result: StudyResult) -> str:
    config = result.config
    search, ladder = config.search, config.search.ladder
    sizes = ", ".join(str(size) for size in search.batch_size)
    epochs = f"{ladder[0]} to {ladder[-1]} ({len(ladder)} values)" if len(ladder) > 1 else str(ladder[0])
    others = {
        "the student's temperature": search.student.temperature,
        "the student's alpha": search.student.alpha,
        "the teacher's learning rate": search.teacher.lr,
        "the teacher's network": search.teacher.model,
    }
    also = [name for name, range_ in others.items() if range_ is not None]
    space = points(config)
    teacher = "one of several networks" if search.teacher.model is not None else code(config.teacher.model)
    most = config.student.replicates.max
    return (
        f"How long, and at which batch size, to train a teacher ({teacher}) on {code(config.data.dataset)} so that the "
        f"student distilled from it ({code(config.student.model)}) is best. Batch sizes {sizes}; epochs {epochs}; "
        + (f"also {' and '.join(also)}; " if also else "")
        + (f"{len(space)} points in all. " if space is not None else "further values are continuous. ")
        + f"A teacher of n epochs is {MEANING[result.epochs_mean]}. Each trial brings the teacher to one point, "
        f"measures its similarity entropy, and distills {most} student{'s' * (most != 1)} unless it is pruned."
    )


def _best(result: StudyResult) -> str:
    best = result.best
    if best is None:
        return "No trial has finished with students yet."
    summary = next((each for each in result.points if each.is_best), None)
    count = len(best.accuracies)
    interval = ""
    if summary is not None and summary.low is not None and summary.high is not None:
        interval = (
            f", 95 % interval {percent(summary.low)} to {percent(summary.high)} (over further students of this "
            "teacher; other teachers of the point differ more)"
        )
    elif count > 1:
        interval = f" ± {percent(stdev(best.accuracies))}"
    said = (
        f"**{escaped(best.point)}** ({best.steps:,} teacher steps): {percent(fmean(best.accuracies))}{interval}, the "
        f"mean of {count} student{'s' * (count != 1)} on the validation split. It was chosen as the best of "
        f"{len(result.ranked):,}, so part of it is luck."
    )
    if not best.is_settled:
        said += f" It needs {result.config.student.replicates.max} students before it can be called best."
    ladder = result.config.search.ladder
    if best.point.epochs == ladder[-1] and len(ladder) > 1:
        said += f" It is at the longest epochs searched ({ladder[-1]}): a longer ladder may find a better one."
    return said


def _standing(result: StudyResult) -> str:
    counts = result.counts
    parts = [f"{counts.complete} complete", f"{counts.pruned} pruned"]
    parts += [f"{n} {what}" for n, what in ((counts.failed, "failed"), (counts.running, "running")) if n]
    said = f"{counts.finished:,} of {result.config.search.trials:,} trials have finished ({', '.join(parts)})."
    if result.record.ended == FULL:
        said += " Every point of the space has been measured."
    elif result.record.ended is not None:
        said += f" The search ended early: {escaped(_sentence(result.record.ended))}"
    workers = len(result.workers)
    if workers:
        said += f" {workers} worker{'s are' if workers != 1 else ' is'} at it."
    if result.confirmation is not None:
        looks = result.confirmation.plan.looks
        said += f" The confirmation is done; the test split has had {looks} look{'s' * (looks != 1)}."
    return said


def _pruning(result: StudyResult) -> str:
    if result.config.pruner.name == "none":
        return "There is no pruner in this study: every trial pays for its students."
    pruned = sum("pruned_because" in trial.user_attrs and trial.value is None for trial in result.trials)
    said = f"Similarity entropy has stopped {pruned} trial{'s' * (pruned != 1)} before their students were paid for. "
    wrong, let_run = result.would_have_pruned
    if not let_run:
        return (
            said + "Whether it errs is not known yet: one in ten that it would stop runs anyway, and none has so far."
        )
    margin = 100 * result.config.confirm.margin
    return said + (
        f"To see whether it errs, {let_run} that it would have stopped {'was' if let_run == 1 else 'were'} let run: "
        f"{wrong} came within {margin:g} points of the best."
    )


def _cost(result: StudyResult) -> str:
    cost = result.cost
    said = f"{duration(cost.seconds)} of worker time; {cost.student_epochs:,} student epochs; "
    said += f"{cost.teacher_epochs_trained:,} teacher epochs"
    if cost.teacher_epochs_requested > cost.teacher_epochs_trained:
        saved = 1 - cost.teacher_epochs_trained / cost.teacher_epochs_requested
        said += f" where {cost.teacher_epochs_requested:,} were asked for: sharing saved {percent(saved, 0)}"
    return said + "."


def _joining(result: StudyResult, url: URL, artifacts: str) -> list[str]:
    lines = []
    command = ["sweetspot", "worker", "--name", _plain(result.name)]
    is_file = url.get_backend_name() == "sqlite"
    if is_file and url.database != str(home() / "sweetspot.db"):
        command += ["--storage", shown(url)]
    elif not is_file:
        address = shown(url.set(drivername=url.get_backend_name()))
        if url.password is not None or has_password(address):
            lines.append(f"# with the database's address in SWEETSPOT_STORAGE, or in a file: {address}")
        else:
            command += ["--storage", address]
    if artifacts != artifacts_url(None, url):
        command += ["--artifacts", shown(artifacts)]
    if is_file:
        lines.append("# on the machine that has the database's file")
    return [*lines, shlex.join(command)]


def _sentence(text: str) -> str:
    return (text[:1].upper() + text[1:]).rstrip(".") + "." if text else ""


# -- a trial ----------------------------------------------------------------------------------------------------------


def trial_note(findings: Findings, pictures: Mapping[str, str]) -> str:
    """What a trial has found, in numbers.

    Args:
        pictures: addresses by caption.
    """
    rows = [
        ("teacher steps", f"{findings.steps:,}"),
        *_teacher(findings),
        *_students(findings),
        *_spent(findings),
    ]
    if findings.ended is not None:
        rows.insert(0, ("ended", escaped(_sentence(findings.ended))))
    table = "\n".join(["| | |", "|:--|:--|", *(f"| {name} | {value} |" for name, value in rows)])
    shown_ = [f"**{escaped(caption)}**\n\n![{escaped(caption)}]({path})" for caption, path in pictures.items()]
    return "\n\n".join([f"### {escaped(_title(findings))}", table, *shown_])


def _title(findings: Findings) -> str:
    accuracies = [student.accuracy for student in findings.students]
    if findings.ended is not None or not accuracies:
        return f"{findings.point}: no students"
    return f"{findings.point}: {percent(fmean(accuracies))}"


def _teacher(findings: Findings) -> list[tuple[str, str]]:
    rows = []
    if findings.measurements and isinstance(findings.point, Point) and findings.epoch != findings.point.epochs:
        rows.append(("measured at epoch", str(findings.epoch)))
    views, validation = findings.measurements.get("train"), findings.measurements.get("validation")
    if validation is not None:
        rows.append(("teacher accuracy", f"{percent(validation.values['accuracy'])} on the validation split"))
    if views is not None:
        meanings = {
            "S, similarity entropy": "what the other classes carry of the response's entropy",
            "N, similarity information": "how far the other classes are from equally likely",
            "M, delivered similarity": "the same, with the weight that the students' loss gives it",
        }
        for name, meaning in meanings.items():
            value = views.values[name.partition(", ")[2].replace(" ", "_")]
            rows.append((name, f"{value:.4f} nats at T = {findings.temperature:g}: {meaning}"))
    return rows


def _students(findings: Findings) -> list[tuple[str, str]]:
    accuracies = [student.accuracy for student in findings.students]
    if not accuracies:
        return []
    spread = f" ± {percent(stdev(accuracies))}" if len(accuracies) > 1 else ""
    each = ", ".join(percent(accuracy) for accuracy in accuracies[:20]) + ", …" * (len(accuracies) > 20)
    return [
        ("students", f"{percent(fmean(accuracies))}{spread}: mean of {len(accuracies)} on the validation split"),
        ("each student", each),
    ]


def _spent(findings: Findings) -> list[tuple[str, str]]:
    spent = findings.spent
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in spent.get("seconds", {}).items())
    return [
        ("teacher epochs", f"{spent.get('epochs_trained', 0)} trained, {spent.get('epochs_reused', 0)} reused"),
        ("student epochs", str(spent.get("student_epochs", 0))),
        ("seconds", f"{seconds} (on {escaped(spent.get('device', '?'))})"),
    ]
