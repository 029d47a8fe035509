"""The command that repeats a study."""

import re
import shlex

from sweetspot.report.page.contents import Report


def repeating(report: Report) -> str:
    """A shell's line that runs the study file of a report under the study's name."""
    name = report.result.name
    file = f"{file_stem(name)}.toml"
    named = "" if f"{name}.toml" == file else f" --name {shlex.quote(name)}"
    return f"sweetspot optimize --study {shlex.quote(file)}{named}"


def file_stem(name: str) -> str:
    """A study's name as that of a file: letters, digits, ".", "_" and "-"."""
    return re.sub(r"[^\w.]+", "-", name).strip(".-") or "study"
