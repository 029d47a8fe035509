"""Notes in Markdown: what a study, or a trial, has to say in plain words. Names from outside never mark anything up."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev

from platformdirs import user_data_path
from sqlalchemy.engine import URL

from sweetspot.report.markdown import code, escaped, fenced, plain
from sweetspot.report.result import StudyResult
from sweetspot.report.sentences import (
    MEANING,
    by_state,
    cost,
    counted,
    ending,
    finalists,
    finished,
    further,
    looks,
    percent,
    pruning,
    reservations,
    sentence,
    teachers,
)
from sweetspot.store.url import has_password, shown
from sweetspot.study.findings import Findings
from sweetspot.study.space import Point, points

_LONGEST = 2000
"""Characters of a text from outside, an error say."""


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
        f"**What it means.** {' '.join(map(_said, [result.verdict, *finalists(result), *further(result)]))}",
        f"**Where it stands.** {_standing(result)}",
        f"**Pruning.** {escaped(' '.join(pruning(result)))}",
        f"**Cost.** {escaped(cost(result))}.",
        "**Join in** from another terminal or machine with a free device:",
        fenced("\n".join(_joining(result, url, artifacts)), "bash"),
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
    most = config.student.replicates.max
    return (
        f"How long, and at which batch size, to train a teacher ({code(teachers(config))}) on "
        f"{code(config.data.dataset)} so that the student distilled from it ({code(config.student.model)}) is best. "
        f"Batch sizes {sizes}; epochs {epochs}; "
        + (f"also {' and '.join(also)}; " if also else "")
        + (f"{len(space)} points in all. " if space is not None else "further values are continuous. ")
        + f"A teacher of n epochs is {MEANING[result.epochs_mean]}. Each trial brings the teacher to one point, "
        f"measures its similarity entropy, and distills {counted(most, 'student')} unless it is pruned."
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
        f"mean of {counted(count, 'student')} on the validation split. It was chosen as the best of "
        f"{len(result.ranked):,}, so part of it is luck."
    )
    return " ".join([said, *reservations(result)])


def _standing(result: StudyResult) -> str:
    said = f"{finished(result)} have finished ({by_state(result)})."
    if result.record.ended is not None:
        said += f" {_said(ending(result) or '')}"
    workers = sum(not worker.is_silent for worker in result.workers)
    if workers and result.counts.finished < result.config.search.trials and result.record.ended is None:
        said += f" {workers} worker{'s are' if workers != 1 else ' is'} at it."
    if result.stage is not None and not result.stage.is_over:
        said += f" It is at {result.stage}."
    if result.confirmation is not None:
        said += f" The confirmation is done. {looks(result.confirmation.plan.looks, result.confirmation.plan.look)}"
    return said


def _joining(result: StudyResult, url: URL, artifacts: str) -> list[str]:
    lines = []
    command = ["sweetspot", "worker", "--name", plain(result.name)]
    is_file = url.get_backend_name() == "sqlite"
    # Whoever reads it has an environment of their own: what this worker was given by its own is said.
    if is_file and url.database != str(user_data_path("sweetspot") / "sweetspot.db"):
        command += ["--storage", shown(url)]
    elif not is_file:
        address = shown(url.set(drivername=url.get_backend_name()))
        if url.password is not None or has_password(address):
            lines.append(f"# with the database's address in SWEETSPOT_STORAGE, or in a file: {address}")
        else:
            command += ["--storage", address]
    if not is_file or artifacts != str(Path(str(url.database)).parent / "artifacts"):
        command += ["--artifacts", shown(artifacts)]
    if is_file:
        lines.append("# on the machine that has the database's file")
    return [*lines, shlex.join(command)]


def _said(text: str) -> str:
    """A sentence from outside, cut where it is very long."""
    said = sentence(text)
    return escaped(said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…")


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
        rows.insert(0, ("ended", _said(findings.ended)))
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
