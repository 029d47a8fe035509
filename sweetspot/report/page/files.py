"""A report as the content of a file."""

from sweetspot.report.output import file_stem, json_file
from sweetspot.report.page.contents import Report

SUFFIXES = (".html", ".md", ".json")


def content(report: Report, suffix: str) -> bytes:
    """What stands in a file of this suffix, one of :data:`SUFFIXES`."""
    match suffix:  # each is imported alone: pictures take a second
        case ".html":
            from sweetspot.report.page.html import page

            return page(report).encode()
        case ".md":
            from sweetspot.report.page.markdown import markdown

            return markdown(report).encode()
        case _:
            from sweetspot.report.page.numbers import numbers

            return json_file(numbers(report))


def default_name(report: Report) -> str:
    """Of the file that is written where none was named, in the folder where the command runs."""
    return f"{file_stem(report.result.name)}-report.html"
