"""A report as the content of a file."""

import json

from sweetspot.report.page.contents import Report
from sweetspot.report.page.usage import file_stem

SUFFIXES = (".html", ".md", ".json")


def content(report: Report, suffix: str) -> bytes:
    """What stands in a file of this suffix, one of :data:`SUFFIXES`."""
    match suffix:  # each is imported alone: pictures take a second
        case ".html":
            from sweetspot.report.page.html import page

            text = page(report)
        case ".md":
            from sweetspot.report.page.markdown import markdown

            text = markdown(report)
        case _:
            from sweetspot.report.page.numbers import numbers

            text = json.dumps(numbers(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode()


def default_name(report: Report) -> str:
    """Of the file that is written where none was named, in the folder where the command runs."""
    return f"{file_stem(report.result.name)}-report.html"
