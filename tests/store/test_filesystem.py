"""SQLite's locks do not hold on network file systems."""

from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from sweetspot.errors import UserError
from sweetspot.store import Store
from sweetspot.store.filesystem import network_file_system

Mount = namedtuple("Mount", "mountpoint fstype")


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is mounted: by the folder, the kind."""
    there = {"/": "ext4", str(tmp_path / "share"): "nfs4", str(tmp_path / "share" / "scratch"): "xfs"}
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [Mount(*mount) for mount in there.items()])
    (tmp_path / "share" / "scratch").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "share")
    return there


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("", None), ("share", "nfs4"), ("share/deep/down", "nfs4"), ("share/scratch", None), ("link", "nfs4")],
)
def test_the_nearest_mount_decides(mounts: dict[str, str], tmp_path: Path, folder: str, kind: str | None) -> None:
    assert network_file_system(tmp_path / folder) == kind


def test_an_sqlite_file_there_is_refused_with_the_reason_and_not_made(mounts: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"SQLite does not work on a network file system .* is nfs4.* use PostgreSQL"):
        Store(f"sqlite:///{tmp_path}/share/study.db")
    assert [path.name for path in (tmp_path / "share").iterdir()] == ["scratch"]


def test_this_machines_own_disks_are_taken(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None
