import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweetspot.errors import UserError
from sweetspot.store import DamagedBlobError, Leases, Snapshot, Store
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


# -- whose artifacts these are ----------------------------------------------------------------------------------------


def _with_a_teacher(tmp_path: Path) -> tuple[str, str]:
    """The addresses of a store that keeps a teacher."""
    storage, artifacts = f"sqlite:///{tmp_path}/study.db", str(tmp_path / "artifacts")
    with Store(storage, artifacts) as store:
        store.trajectories.add_recipe("a" * 64, "{}")
        lease = Leases(store.database, "me", 60).acquire("run")
        assert lease is not None
        store.trajectories.add(Snapshot("a" * 64, 0, 1, store.artifacts.put(b"weights")), [], lease)
    return storage, artifacts


@pytest.mark.parametrize("instead", ["nothing", "an empty folder"])
def test_artifacts_that_are_not_there_are_refused_and_nothing_is_forgotten(tmp_path: Path, instead: str) -> None:
    """A share that is not mounted, or a mistaken --artifacts: the teachers are not lost."""
    storage, artifacts = _with_a_teacher(tmp_path)
    Path(artifacts).rename(tmp_path / "elsewhere")
    if instead == "an empty folder":
        Path(artifacts).mkdir()
    with pytest.raises(UserError, match=r"are not those of .*give the right --artifacts, or mount their disk"):
        Store(storage, artifacts)
    with Store(storage, str(tmp_path / "elsewhere")) as store:
        (snapshot,) = store.trajectories.of_recipe("a" * 64)
        assert store.artifacts.get(snapshot.weights) == b"weights"


def test_artifacts_that_are_lost_for_good_can_be_begun_anew(tmp_path: Path) -> None:
    storage, artifacts = _with_a_teacher(tmp_path)
    mark = Path(artifacts, "sweetspot-store").read_text()
    shutil.rmtree(artifacts)
    Path(artifacts).mkdir()
    with pytest.raises(UserError, match=f"with the line {mark.strip()} there"):
        Store(storage, artifacts)
    Path(artifacts, "sweetspot-store").write_text(mark)
    with Store(storage, artifacts) as store:
        (snapshot,) = store.trajectories.of_recipe("a" * 64)
        with pytest.raises(DamagedBlobError, match="missing"):
            store.artifacts.get(snapshot.weights)


def test_two_databases_do_not_share_artifacts(tmp_path: Path) -> None:
    """Each would take the other's blobs for nobody's."""
    _, artifacts = _with_a_teacher(tmp_path)
    with pytest.raises(UserError, match="belong to another database: give --artifacts a place of their own"):
        Store(f"sqlite:///{tmp_path}/other.db", artifacts)
