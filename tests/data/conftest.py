"""Small data sets in the real formats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Arrays = dict[str, Any]


@pytest.fixture
def arrays() -> Arrays:
    """What a good ``.npz`` file holds: 12 + 6 colour images of 8x8 in three classes."""
    rng = np.random.default_rng(0)
    return {
        "train_x": rng.integers(0, 256, (12, 8, 8, 3), np.uint8),
        "train_y": np.arange(12) % 3,
        "test_x": rng.integers(0, 256, (6, 8, 8, 3), np.uint8),
        "test_y": np.arange(6) % 3,
        "classes": np.array(["ant", "bee", "cow"]),
    }


@pytest.fixture
def write_npz(tmp_path: Path) -> Callable[..., Path]:
    def write(arrays: Arrays, name: str = "set.npz") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
        return path

    return write


WriteImages = Callable[..., Path]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Writes image files, no two of them alike: ``write("photos/train", {"ant": 5, …})``; the folder."""
    rng = np.random.default_rng(0)

    def write(name: str, classes: dict[str, int], *, ending: str = "png", grey: bool = False, size: int = 12) -> Path:
        folder = tmp_path / name
        for label, count in classes.items():
            (folder / label).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size, size) if grey else (size, size, 3), np.uint8)
                Image.fromarray(pixels).save(folder / label / f"{i}.{ending}")
        return folder

    return write
