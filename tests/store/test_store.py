import subprocess
import sys
from pathlib import Path

import pytest

from sweetspot.errors import UserError
from sweetspot.store import Store
from sweetspot.store.url import home


def test_importing_the_store_imports_no_torch() -> None:
    program = "import sys, sweetspot.store; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_with_no_options_everything_lies_at_home() -> None:
    with Store() as store:
        name = store.artifacts.put(b"weights")
    assert (home() / "sweetspot.db").is_file()
    assert (home() / "artifacts" / "blobs" / name[:2] / name).read_bytes() == b"weights"


def test_two_stores_at_one_address_are_one(tmp_path: Path, storage: str) -> None:
    with Store(storage, str(tmp_path / "blobs")) as first, Store(storage, str(tmp_path / "blobs")) as second:
        assert second.artifacts.get(first.artifacts.put(b"weights")) == b"weights"


def test_unusable_artifacts_are_refused_and_the_database_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="for artifacts"):
        Store(str(tmp_path / "study.db"), str(tmp_path / "file"))
    assert not (tmp_path / "study.db-wal").exists()  # SQLite removes it when the last connection closes
