"""docs/images.md: what it lists is what there is. Its program and its commands: tests/docs/test_commands.py."""

from pathlib import Path

from sweetspot.data import names
from sweetspot.data.image_files import SUFFIXES
from sweetspot.data.imagefolder import IMAGE_SIZE

PAGE = Path(__file__).parents[2] / "docs" / "images.md"


def test_the_page_names_every_data_set_and_every_ending() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in names() if name != "fruit")
    assert all(f"`{ending}`" in page for ending in SUFFIXES)
    assert f"pixels, {IMAGE_SIZE} where nothing is said" in page
