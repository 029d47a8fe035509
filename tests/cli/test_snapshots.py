"""``sweetspot snapshots``: what is kept, whether it is sound, what is freed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_config

from sweetspot.cli.snapshots import parse_size
from sweetspot.errors import UserError
from sweetspot.store import Leases, Store
from sweetspot.store.trajectories import run_of
from sweetspot.study.space import Point
from sweetspot.study.visit import Visit
from sweetspot.study.workplace import open_workplace

Command = Callable[..., Any]


@pytest.fixture
def teachers() -> Path:
    """The artifacts at home, with two teachers at batch size 64 that no study has touched."""
    config = tiny_config()
    workplace = open_workplace(config, study="")
    Visit(config, Point(64, 2), workplace).train_teacher()
    workplace.leases.stop_renewing()
    workplace.store.close()
    return Path(workplace.store.artifacts_url)


def blobs(artifacts: Path) -> list[Path]:
    return sorted(path for path in (artifacts / "blobs").rglob("*") if path.is_file())


def damage_weights() -> None:
    with Store() as store:
        snapshot = store.trajectories.least_recently_used()[0]
        path = Path(store.artifacts_url, "blobs", snapshot.weights[:2], snapshot.weights)
        path.write_bytes(path.read_bytes()[:-1])


def test_an_empty_store_says_how_snapshots_are_made(command: Command) -> None:
    assert command("snapshots", "ls").out == "no snapshot yet: sweetspot optimize and sweetspot entropy make them\n"
    assert json.loads(command("snapshots", "ls", "--json").out) == []
    assert json.loads(command("snapshots", "du", "--json").out)["total"] == 0
    assert json.loads(command("snapshots", "verify", "--json").out) == {"checked": 0, "size": 0, "damaged": []}
    assert json.loads(command("snapshots", "gc", "--json").out)["freed"] == []


def test_without_a_subcommand_it_says_which_there_are(command: Command) -> None:
    said = command("snapshots")
    assert (said.status, said.err) == (0, "")
    assert [name for name in ("ls", "du", "verify", "gc") if f"\n  {name} " in said.out] == ["ls", "du", "verify", "gc"]


@pytest.mark.usefixtures("teachers")
def test_ls_lists_branches_with_their_epochs(command: Command) -> None:
    (branch,) = json.loads(command("snapshots", "ls", "--json").out)
    assert (branch["model"], branch["batch_size"], branch["schedule"]) == ("convnet", 64, "constant")
    assert (branch["branch"], branch["epochs"], branch["goes_on_from"], branch["studies"]) == (0, [1, 2], [1, 2], [])
    assert branch["checkpoint"] is branch["heading_for"] is None
    lines = command("snapshots", "ls").out.splitlines()
    assert lines[1].split()[:7] == [branch["recipe"][:12], "convnet", "64", "constant", "trunk", "1", "2"]
    assert lines[-1].startswith("2 snapshots, ")


def test_du_adds_up_to_what_lies_there(command: Command, teachers: Path) -> None:
    found = json.loads(command("snapshots", "du", "--json").out)
    assert found["total"] == sum(path.stat().st_size for path in blobs(teachers))
    assert found["total"] == found["teachers"] + found["optimizers"] > 0
    assert found["free"] > 0
    said = command("snapshots", "du").out
    assert all(words in said for words in ("teachers", "students", "free on that disk", str(teachers)))


@pytest.mark.usefixtures("teachers")
def test_verify_ends_with_1_when_something_was_damaged_and_only_then(command: Command) -> None:
    sound = command("snapshots", "verify")
    assert (sound.status, sound.err) == (0, "")
    assert sound.out.startswith("4 blobs (")
    damage_weights()
    found = command("snapshots", "verify", "--json")
    assert found.status == 1
    assert found.err == "error: 1 blob was damaged; nothing of it is used any more\n"
    (damaged,) = json.loads(found.out)["damaged"]
    assert damaged["what"].startswith("the teacher at epoch 1 of ")
    assert damaged["why"].endswith("is damaged")
    assert "trained again" in damaged["then"]
    assert command("snapshots", "verify").status == 0


def test_a_dry_run_frees_nothing_and_says_what_it_would(command: Command, teachers: Path) -> None:
    before = blobs(teachers)
    dry = json.loads(command("snapshots", "gc", "--max-size", "0", "--dry-run", "--json").out)
    assert blobs(teachers) == before
    assert dry["dry_run"]
    assert len(dry["freed"]) == 2
    wet = json.loads(command("snapshots", "gc", "--max-size", "0", "--json").out)
    assert wet == dry | {"dry_run": False}
    assert blobs(teachers) == []
    assert wet["kept"] == 0


def test_what_a_dying_writer_left_is_freed(command: Command, teachers: Path) -> None:
    before = blobs(teachers)
    left = before[0].with_name(f"{before[0].name}.0123abcd.partial")
    left.write_bytes(b"wei")
    os.utime(left, (0, 0))
    said = command("snapshots", "gc")
    assert (said.status, said.err) == (0, "")
    assert "freed 3 B; " in said.out
    assert blobs(teachers) == before


def test_a_limit_that_cannot_be_kept_says_why(command: Command, teachers: Path) -> None:
    with Store() as store:
        recipe = next(iter(store.trajectories.recipes()))
        alive = store.workers.register("cpu")
        assert Leases(store.database, alive, 60).acquire(run_of(recipe, 0), heading_for=9) is not None
        said = command("snapshots", "gc", "--max-size", "1KB")
        assert said.status == 1
        assert said.err.startswith("error: ")
        assert "2 of them because a worker is training on from it" in said.err
        assert len(blobs(teachers)) == 4


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50 * 10**9), ("800 MB", 8 * 10**8), ("1.5tb", 15 * 10**11), ("0", 0), ("7", 7), ("2kb", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "50XB", "-1GB", "1e3", "5 0", "nan"])
def test_what_is_no_size(text: str, refused: Callable[..., str]) -> None:
    with pytest.raises(UserError):
        parse_size(text)
    assert "such as 50GB" in refused("snapshots", "gc", f"--max-size={text}")
