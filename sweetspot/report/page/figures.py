"""The pictures of a page."""

import base64
from dataclasses import dataclass

from markupsafe import Markup

from sweetspot.report.figures.catalogue import FIGURES
from sweetspot.report.figures.matplotlib import picture
from sweetspot.report.figures.spec import NothingToShow
from sweetspot.report.page.contents import Report
from sweetspot.report.pictures import similarity_picture


@dataclass(frozen=True)
class Drawn:
    """A picture, as markup; or what is missing for it, in words."""

    name: str
    title: str
    markup: Markup | None
    missing: str = ""


def drawn(report: Report) -> list[Drawn]:
    """Every figure, and the class similarity of the best teacher where it was measured."""
    found = []
    for name, figure_of in FIGURES.items():
        try:
            figure = figure_of(report.result)
        except NothingToShow as missing:
            found.append(Drawn(name, name, None, f"{str(missing)[:1].upper()}{str(missing)[1:]}."))
            continue
        # The writer of pictures escapes every text in them.
        found.append(Drawn(name, figure.title, Markup(picture(figure, "svg").decode())))
    if report.similarity is not None:
        temperature = report.result.config.teacher.probe_temperature
        png = similarity_picture(report.similarity, report.classes, temperature)
        title = "Which other classes the best teacher thinks of"
        found.append(Drawn("classes", title, _image(png, title)))
    return found


def _image(png: bytes, title: str) -> Markup:
    data = base64.b64encode(png).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(title, data)
