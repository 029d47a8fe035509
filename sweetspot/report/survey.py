"""The curves of a survey as a file: a page, a picture, or numbers."""

from pathlib import Path

from sweetspot.report import output
from sweetspot.report.figures.files import content
from sweetspot.report.figures.parts import Sizes, group_of, rung_axis
from sweetspot.report.figures.spec import Axis, Figure, Key, Layer, Legend, Line, Panel, Points
from sweetspot.report.sentences import MEANING, without_path
from sweetspot.store import Probe
from sweetspot.study.survey import Survey

SUFFIXES = (".html", ".png", ".json")
_FRACTION = "fraction"
_PANELS = {
    "accuracy": ("Teacher's accuracy", _FRACTION),
    "non_target_mass": ("Softness: non-target mass, 1 − p(y)", _FRACTION),
    "similarity_entropy": ("Similarity entropy, S", "nats"),
    "class_information": ("Class information, C", "nats"),
    "image_information": ("Image information, I", "nats"),
    "delivered_similarity": ("Delivered similarity, M", "nats"),
}
_PROBES: dict[Probe, str] = {"train": "training views", "validation": "validation"}


def check_output(path: Path) -> None:
    """Refuse a file that :func:`write` could not write.

    Raises:
        UserError: if its suffix is another, or its folder is not there or cannot be written.
    """
    output.check_output(path, SUFFIXES)


def write(survey: Survey, path: Path) -> None:
    """Write the curves as the suffix says, one of :data:`SUFFIXES`; the file is there whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    suffix = path.suffix.lower()
    found = output.json_file(survey.to_dict()) if suffix == ".json" else content(figure(survey), suffix)
    output.write_output(path, found, "the same command elsewhere trains nothing")


def figure(survey: Survey) -> Figure:
    """A panel for each measure, in it a line for each batch size and probe."""
    sizes = Sizes(curve.batch_size for curve in survey.curves)
    probes = (
        Key("training views", "circle", "muted", line="solid"),
        Key("validation", "circle", "muted", is_open=True, line="dashed"),
    )
    return Figure(
        "survey",
        _title(survey),
        tuple(_subtitle(survey)),
        tuple(
            Panel(title, rung_axis("epochs", survey.config.search.ladder), _axis(survey, name, unit),
                  tuple(_layers(survey, sizes, name, unit)))
            for name, (title, unit) in _PANELS.items()
        ),
        (Legend("measured on", probes), sizes.legend(sizes.all, line=True)),
        columns=3,
        height=780,
        width=1500,
    )  # fmt: skip


def _layers(survey: Survey, sizes: Sizes, name: str, unit: str) -> list[Layer]:
    """Faintly the trunks, and over them the teachers: a mark each, joined; open where they are validation's."""
    trunks: list[Layer] = []
    teachers: list[Layer] = []
    for curve in survey.curves:
        colour, group = sizes.colours[curve.batch_size], group_of(curve.batch_size)
        for probe, words in _PROBES.items():
            is_dashed = probe == "validation"
            trunk, there = curve.of("trunk", probe), curve.of("teacher", probe)
            x, y = tuple(p.epochs for p in trunk), tuple(p.values[name] for p in trunk)
            trunks.append(Line(x, y, colour, 1.0, is_dashed, is_faint=True, group=group))
            x, y = tuple(p.epochs for p in there), tuple(p.values[name] for p in there)
            hover = tuple(
                f"batch {p.batch_size:,}, {p.epochs} epochs ({p.steps:,} steps)\n"
                f"{p.values[name]:.4f}{'' if unit == _FRACTION else f' {unit}'} on {words}"
                for p in there
            )
            teachers.append(Line(x, y, colour, 1.8, is_dashed, group=group))
            symbol = sizes.symbols[curve.batch_size]
            teachers.append(Points(x, y, symbol, colour, size=7, is_open=is_dashed, hover=hover, group=group))
    return [*trunks, *teachers]


def _axis(survey: Survey, name: str, unit: str) -> Axis:
    """The teachers' range, with room. The trunk between them may lie far outside."""
    values = [point.values[name] for curve in survey.curves for point in curve.teachers]
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.02 * high, 0.001)
    return Axis(unit, "linear", low - room, high + room)


def _title(survey: Survey) -> str:
    config = survey.config
    return f"{without_path(config.data.dataset)}: the responses of {config.teacher.model} along its training"


def _subtitle(survey: Survey) -> list[str]:
    """The lines under the title: what was measured, what is drawn, and what is missing."""
    name = survey.config.teacher.schedule.name
    if survey.epochs_mean == "truncated":
        drawn = "faint lines: every epoch of the run, with BatchNorm as it was in training; some leave the panel"
    elif any(curve.trunk for curve in survey.curves):
        drawn = "faint lines: the trunk from which their decays branch off, with BatchNorm as it was in training"
    else:
        drawn = "each is a run of its own"
    diverged = [f"{curve.batch_size:,}" for curve in survey.curves if curve.diverged]
    return [
        f"Responses at temperature {survey.temperature:g}. Schedule “{name}”: epochs are {survey.epochs_mean} "
        f"({MEANING[survey.epochs_mean]}).",
        f"Marks: teachers at the rungs, which a trial would distill from; {drawn}.",
        *([f"Teachers that diverged are missing at batch size {', '.join(diverged)}."] if diverged else []),
    ]
