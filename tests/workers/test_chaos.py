"""Chaos: whatever happens to workers, database and blobs, a study ends as if nothing had."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos import go
from benchmarks.chaos_faults import Kind, Server, plan
from benchmarks.watched_worker import Workers


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's: the path of the server's socket may be 107 bytes long."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def test_a_plan_repeats_with_its_seed_and_has_every_kind_of_fault() -> None:
    assert plan(3, 7) == plan(3, 7) != plan(3, 8)
    assert {fault.kind for fault in plan(1, 0)} == set(Kind)
    assert sum(fault.kind is Kind.KILL for fault in plan(100, 0)) == 100


@pytest.mark.ci
def test_a_study_ends_as_if_undisturbed_whatever_happens_to_workers_blobs_and_server(
    workers: Workers, folder: Path
) -> None:
    with Server(folder / "pg") as server:
        outcome = go(plan(1, seed=0), folder, workers, server)
    assert outcome.findings == []
    assert outcome.done == outcome.planned


@pytest.mark.slow
def test_so_does_one_on_sqlite(workers: Workers, folder: Path) -> None:
    outcome = go(plan(1, seed=0, has_server=False), folder, workers, None)
    assert outcome.findings == []
    assert outcome.done == outcome.planned


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_so_does_one_whose_workers_are_killed_thirty_times(workers: Workers, folder: Path) -> None:
    with Server(folder / "pg") as server:
        outcome = go(plan(30, seed=1), folder, workers, server)
    assert outcome.findings == []
    assert outcome.done == outcome.planned
