"""The colours of figures, on light pages and on dark ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweetspot.report.figures.spec import Colour, Role

MAP = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c",
    "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
"""Viridis at eleven places: from dark to light whoever looks at it, and in print."""

_STEPS = 20


def on_map(place: float) -> str:
    """The colour of a value whose place between the ends of its scale is from 0 to 1, as "#rrggbb"."""
    at = min(max(place, 0.0), 1.0) * (len(MAP) - 1)
    left = min(int(at), len(MAP) - 2)
    low, high = _rgb(MAP[left]), _rgb(MAP[left + 1])
    return "#" + "".join(f"{round(a + (b - a) * (at - left)):02x}" for a, b in zip(low, high, strict=True))


def text_on(colour: str) -> str:
    """White or black, whichever is better to read on ``colour``."""
    red, green, blue = ((c / 255) ** 2.2 for c in _rgb(colour))
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.2 else "#000000"


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


@dataclass(frozen=True)
class Scheme:
    """What roles and places on the ordered map look like.

    Attributes:
        low, high: the part of the map that stands out from the page; lines and marks in ordered colours keep to it.
    """

    page: str
    ink: str
    muted: str
    faint: str
    grid: str
    accent: str
    low: float
    high: float

    def colour(self, colour: Colour) -> str:
        """As "#rrggbb"."""
        if isinstance(colour, str):
            return str(getattr(self, colour))
        return on_map(self.low + (self.high - self.low) * round(_STEPS * colour) / _STEPS)


LIGHT = Scheme("#ffffff", "#222222", "#5a5a5a", "#b4b4b4", "#e6e6e6", "#c2410c", 0.0, 0.86)
DARK = Scheme("#16181d", "#e8e8e8", "#a6a6a6", "#5c5c5c", "#33363d", "#fb923c", 0.28, 1.0)


def variables(scheme: Scheme) -> dict[str, str]:
    """The CSS variables that drawings for pages refer to, with what they are in ``scheme``: for a page's style."""
    roles = {f"--{role}": scheme.colour(role) for role in ROLES} | {"--grid": scheme.grid}
    return roles | {f"--map-{step}": scheme.colour(step / _STEPS) for step in range(_STEPS + 1)}


ROLES: Sequence[Role] = ("page", "ink", "muted", "faint", "accent")


@dataclass(frozen=True)
class Placeholders(Scheme):
    """Colours that occur nowhere else: each stands for a CSS variable until the drawing is done."""

    def colour(self, colour: Colour) -> str:
        return str(getattr(self, colour)) if isinstance(colour, str) else f"#01fd{round(_STEPS * colour):02x}"

    def in_css(self, text: str) -> str:
        """``text`` with a variable for each placeholder; a page that does not have them gets the light colours."""
        light = variables(LIGHT)
        for name, placeholder in variables(self).items():
            text = text.replace(placeholder, f"var({name}, {light[name]})")
        return text


PLACEHOLDERS = Placeholders("#01fe01", "#01fe02", "#01fe03", "#01fe04", "#01fe05", "#01fe06", 0.0, 1.0)
