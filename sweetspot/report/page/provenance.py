"""Where a report comes from, and the command that repeats its study."""

import shlex

from sweetspot.report.output import file_stem
from sweetspot.report.page.contents import Report
from sweetspot.report.page.phrases import Fact
from sweetspot.report.sentences import without_path


def versions(report: Report) -> list[Fact]:
    """When, where and with what the report was written, and what trained the teachers."""
    return [
        Fact("Written", f"{report.written} UTC on {report.machine}"),
        Fact("With", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        Fact("Teachers", f"trained with {'; '.join(report.builds)}" if report.builds else "no build is recorded"),
        Fact("Data", f"SHA-256 of the training set: {report.result.record.data_hash}"),
    ]


def repeating(report: Report) -> str:
    """A shell's line that runs the study file of a report under the study's name."""
    name = report.result.name
    file = f"{file_stem(name)}.toml"
    named = "" if f"{name}.toml" == file else f" --name {shlex.quote(name)}"
    return f"sweetspot optimize --study {shlex.quote(file)}{named}"


def where_the_data_are(report: Report) -> str:
    """What whoever repeats it must add, since a report tells no path; "" for data that are known by their name."""
    kind, colon, path = without_path(report.result.config.data.dataset).partition(":")
    if not colon:
        return ""
    return f"Of the data's path it has the last part alone: run it where {path} is, or add --dataset {kind}:PATH."
