"""External teachers as text for people and as JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sweetspot.report.sentences import percent
from sweetspot.store import ExternalTeacher, Measurement, Probe, Store

_MEASURES = ("similarity_entropy", "similarity_information", "delivered_similarity")


def studies_on(store: Store, data_hash: str) -> tuple[str, ...]:
    """The names of the studies on these data, whose next confirmation a teacher takes part in."""
    return tuple(record.name for record in store.studies.all() if record.data_hash == data_hash)


def listed(store: Store) -> list[tuple[ExternalTeacher, tuple[str, ...]]]:
    """Every external teacher, with the studies on its data."""
    return [(teacher, studies_on(store, teacher.data_hash)) for teacher in store.external_teachers.all()]


def teacher_dict(teacher: ExternalTeacher, studies: Sequence[str]) -> dict[str, Any]:
    """One entry of what ``sweetspot teacher ls --json`` prints; ``studies``: those on the same data."""
    return {**vars(teacher), "studies": list(studies)}


def added_dict(
    teacher: ExternalTeacher, studies: Sequence[str], measured: Mapping[Probe, Measurement]
) -> dict[str, Any]:
    """What ``sweetspot teacher add --json`` prints; accuracies are fractions, entropies nats."""
    return {
        **teacher_dict(teacher, studies),
        "accuracy": {probe: m.values["accuracy"] for probe, m in measured.items()},
        **{name: measured["train"].values[name] for name in _MEASURES},
    }


def added_text(
    teacher: ExternalTeacher, studies: Sequence[str], measured: Mapping[Probe, Measurement], classes: int
) -> RenderableType:
    """What was added, what it says, and where it takes part."""
    views, validation = measured["train"].values, measured["validation"].values
    lines = [
        f"{teacher.name}: {teacher.model}, {teacher.epochs} epoch{'s' * (teacher.epochs != 1)}, trained elsewhere",
        f"Accuracy: {percent(validation['accuracy'])} on the validation split (which its training may have seen: only "
        f"the confirmation's test split compares), {percent(views['accuracy'])} on training views.",
        f"Similarity entropy {views['similarity_entropy']:.3f} nats, similarity information "
        f"{views['similarity_information']:.3f}, delivered similarity {views['delivered_similarity']:.3f}, at "
        f"temperature {measured['train'].temperature:g}.",
    ]
    if validation["accuracy"] < 2 / classes:
        lines.append(
            "That is hardly better than guessing: were its classes in another order, or its images normalised "
            "otherwise than by the training set's mean and standard deviation?"
        )
    if studies:
        lines.append(
            f"It is an arm of the next confirmation of {', '.join(studies)}: run sweetspot optimize again, which takes "
            "one more look at the test split."
        )
    else:
        lines.append(
            "It will be an arm of the confirmation of every study on this data: start with sweetspot optimize."
        )
    head, *rest = lines
    return Group(Text(head, "bold"), *map(Text, rest))


def teachers_table(teachers: Sequence[tuple[ExternalTeacher, Sequence[str]]]) -> RenderableType:
    """One row per external teacher, with the studies on its data."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("teacher", "model", "epochs", "weights", "studies"):
        table.add_column(column, justify="right" if column == "epochs" else "left")
    for teacher, studies in teachers:
        table.add_row(
            escape(teacher.name),
            escape(teacher.model),
            str(teacher.epochs),
            teacher.weights[:12],
            escape(", ".join(studies)),
        )
    return table
