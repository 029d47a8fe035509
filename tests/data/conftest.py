"""Small data sets in the real formats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
