"""Before a run: is there room for what it may store?"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_study import tiny_config

from sweetspot.cli import main
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import UserError
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.claim import Outcome, run_next
from sweetspot.study.estimate import Shape, disk_bytes, teacher_bytes, with_trials
from sweetspot.study.jobs import Search
from sweetspot.study.search import create_or_continue
from sweetspot.study.workplace import open_workplace
from sweetspot.workers.free_space import check_free_space


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leaves so many bytes on every disk."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**12, 10**12 - free, free))


def test_a_run_starts_with_as_much_room_as_it_may_need_and_not_with_less(
    tmp_path: Path, disk: Callable[[int], None]
) -> None:
    with Store(f"sqlite:///{tmp_path}/study.db") as store:
        disk(10_000_000)
        check_free_space(store, 10_000_000)
        with pytest.raises(UserError, match=r"may grow by 20 MB, and the disk has 10 MB left.*sweetspot snapshots gc"):
            check_free_space(store, 20_000_000)
    with Store(f"sqlite:///{tmp_path}/study.db", "memory://free-space") as store:
        check_free_space(store, 10**18)


@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_what_a_study_may_need_is_near_what_it_takes(tmp_path: Path, schedule: str) -> None:
    config = tiny_config(
        search__trials=6, student__epochs=1, confirm__seeds=0,
        teacher__schedule={"name": schedule}, teacher__optimizer={"name": "adamw"}, teacher__lr_rule={"name": "none"},
    )  # fmt: skip
    workplace = open_workplace(config, study="tiny", storage=f"sqlite:///{tmp_path}/study.db")
    workplace.leases.stop_renewing()
    record = create_or_continue(workplace.store, "tiny", config, workplace.data)
    job = Search(record, workplace)
    while run_next(job, workplace) == Outcome.RAN:
        pass
    taken = sum(file.size for file in workplace.store.artifacts.files())
    expected = disk_bytes(config, Shape.of(workplace.data))
    assert taken == pytest.approx(expected, rel=0.6)
    assert teacher_bytes(config, Shape.of(workplace.data)) < expected
    assert disk_bytes(with_trials(config, 1), Shape.of(workplace.data)) < expected
    workplace.store.close()


def test_no_command_starts_without_room_and_nothing_is_created(
    disk: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    disk(1000)
    for arguments in (["optimize", "--dataset", "digits", "--workers", "1"], ["entropy", "--dataset", "digits"]):
        assert main([*arguments, "--quiet"]) == 2
        said = capsys.readouterr()
        assert "left: free some (sweetspot snapshots gc)" in said.err
        assert said.err.count("\n") == 1
    with Store() as store:
        assert store.studies.all() == []
        assert store.trajectories.recipes() == {}
        config: Any = tiny_config()
        create_or_continue(store, "digits", config, load_study_data(config, data_folder(), torch.device("cpu")))
    assert main(["worker"]) == 2
    assert "the disk has 1 KB left" in capsys.readouterr().err
