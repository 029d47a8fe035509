"""The contract suite runs over every database: a store in each, and as many further workers as a test needs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sweetspot.store import Store

OpenStore = Callable[[], Store]


@pytest.fixture
def open_store(storage: str, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same database and artifacts once more, as another worker would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Store(storage, str(tmp_path / "artifacts")))


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
