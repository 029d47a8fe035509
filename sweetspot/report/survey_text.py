"""A survey as text for people."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweetspot.errors import one_line
from sweetspot.report.sentences import MEANING
from sweetspot.study.space import shown
from sweetspot.study.survey import Survey, SurveyPoint

_COLUMNS = ("batch", "epochs", "steps", "accuracy %", "1 - p_y", "S", "C", "I", "M", "S val.")


def survey_text(survey: Survey, written: Path | None = None) -> RenderableType:
    """The teachers at the rungs; where the curves were ``written`` to a file, that instead of the table."""
    parts: list[RenderableType] = [*_diverged(survey), *_not_surveyed(survey)]
    if written is not None:
        return Group(*parts, Text(_spent(survey)), Text(one_line(f"wrote {written}")))
    teacher = survey.config.teacher
    head: list[RenderableType] = [
        Text(
            f"{survey.config.data.dataset}: the responses of {teacher.model} at temperature {survey.temperature:g}",
            "bold",
        ),
        Text(
            f'Epochs are {survey.epochs_mean}: {MEANING[survey.epochs_mean]} (schedule "{teacher.schedule.name}"). '
            "Accuracy on validation, the rest on training views; S, C, I, M in nats."
        ),
        Text(),
        _table(survey),
        Text(),
    ]
    return Group(
        *head,
        *parts,
        Text(f"{_spent(survey)} The same command with -o FILE.html, .png or .json shows every epoch."),
    )


def _table(survey: Survey) -> Table:
    """One row per teacher; fits 100 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for curve in survey.curves:
        for views, validation in zip(curve.of("teacher", "train"), curve.of("teacher", "validation"), strict=True):
            table.add_row(*_row(views, validation))
    return table


def _row(views: SurveyPoint, validation: SurveyPoint) -> Sequence[str]:
    measures = ("non_target_mass", "similarity_entropy", "class_information", "image_information")
    return (
        str(views.batch_size),
        str(views.epochs),
        f"{views.steps:,}",
        f"{100 * validation.values['accuracy']:.2f}",
        *(f"{views.values[name]:.3f}" for name in (*measures, "delivered_similarity")),
        f"{validation.values['similarity_entropy']:.3f}",
    )


def _diverged(survey: Survey) -> list[Text]:
    """A line for each batch size of which teachers are missing."""
    lines = []
    for curve in survey.curves:
        if curve.diverged:
            rungs = ", ".join(map(str, curve.diverged))
            why = curve.diverged[min(curve.diverged)]
            lines.append(Text(f"Batch {curve.batch_size}: no teacher of {rungs} epochs: {why}."))
    return lines


def _not_surveyed(survey: Survey) -> list[Text]:
    """What the study searches of the teacher beside batch size and epochs, which a survey does not vary."""
    teacher, searched = survey.config.teacher, survey.config.search.teacher
    fixed: list[tuple[str, float | str]] = []
    if searched.model is not None:
        fixed.append(("model", teacher.model))
    if searched.lr is not None:
        fixed.append(("lr", teacher.optimizer.lr))
    return [
        Text(f"The study searches teacher.{name} too: this survey is of {shown(value)} alone.") for name, value in fixed
    ]


def _spent(survey: Survey) -> str:
    trained, requested = survey.epochs_trained, survey.epochs_requested
    return (
        f"{trained:,} teacher epoch{'s' * (trained != 1)} trained where {requested:,} were asked for: the rest was "
        "shared or there already. No student was trained."
    )
