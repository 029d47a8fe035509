"""A store and a workplace for the tiny study."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_study import tiny_config

from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.store import Leases, Store
from sweetspot.store.url import data_folder
from sweetspot.study.workplace import Workplace


@pytest.fixture(scope="session")
def digits() -> StudyData:
    return load_study_data(tiny_config(), data_folder(), torch.device("cpu"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


@pytest.fixture
def workplace(store: Store, digits: StudyData) -> Workplace:
    worker = store.workers.register("cpu")
    leases = Leases(store.database, worker, 60.0, store.workers.has_ended)
    return Workplace("tiny", store, leases, digits, torch.device("cpu"))
