"""Real digits, and stores to keep trajectories in."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from sweetspot.config import DataConfig, SearchConfig, StudentConfig, StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.store import Store
from sweetspot.store.url import data_folder

DATA = DataConfig(dataset="digits", validation=200, augmentation=("crop",))


@pytest.fixture(scope="session")
def digits() -> StudyData:
    torch.set_num_threads(1)
    config = StudyConfig(data=DATA, search=SearchConfig(batch_size=(64,)), student=StudentConfig(batch_size=64))
    return load_study_data(config, data_folder(), torch.device("cpu"))


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens a new, empty store."""
    with ExitStack() as stack:

        def new() -> Store:
            folder = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return stack.enter_context(Store(f"sqlite:///{folder}/study.db", str(folder / "artifacts")))

        yield new


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    return new_store()
