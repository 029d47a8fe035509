"""Where data sets are kept that are downloaded, and what is made of images once and kept."""

from pathlib import Path

from platformdirs import user_cache_path


def data_root(root: Path | None) -> Path:
    """``root``, or a folder in the user's cache where none is given."""
    return (root or user_cache_path("sweetspot") / "data").expanduser()
