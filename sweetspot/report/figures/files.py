"""A figure as the content of a file."""

from sweetspot.report.figures.spec import Figure

SUFFIXES = (".png", ".svg", ".html")


def content(figure: Figure, suffix: str) -> bytes:
    """What stands in a file of this suffix, one of :data:`SUFFIXES`: a picture, a drawing, or a page to look around."""
    match suffix:  # each is imported alone: both take long
        case ".html":
            from sweetspot.report.figures.plotly import page

            return page(figure).encode()
        case ".svg":
            from sweetspot.report.figures.matplotlib import svg_file

            return svg_file(figure)
        case _:
            from sweetspot.report.figures.matplotlib import picture

            return picture(figure, "png")
