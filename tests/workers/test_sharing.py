"""Several worker processes at one batch size: one teacher, trained once, whoever asks for whatever part of it."""

import json
from pathlib import Path

import pytest
import torch
from sqlalchemy import select
from tiny_study import tiny_config

from benchmarks.watched_worker import Workers
from sweetspot.cli import main
from sweetspot.data.study_data import load_study_data
from sweetspot.store import TRUNK, Leases, Store
from sweetspot.store.checkpoints import used_blobs
from sweetspot.store.schema import LeaseRow, WorkerRow
from sweetspot.store.url import data_folder
from sweetspot.study.claim import claim_lease
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import Point

WORKERS = 4
LADDER = list(range(1, 13))


@pytest.mark.ci
def test_four_workers_at_one_batch_size_train_no_teacher_epoch_twice(
    workers: Workers, storage: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(
        search__batch_size=[64], search__epochs=LADDER, search__trials=len(LADDER), student__epochs=1,
        student__replicates={"min": 1, "max": 1}, confirm__seeds=0,
    )  # fmt: skip
    data = load_study_data(config, data_folder(), torch.device("cpu"))
    create_or_continue(store, "tiny", config, data)
    # All begin at one moment, however long each takes to start: until then this process has the claim to itself.
    starter = Leases(store.database, store.workers.register("cpu"), 60.0)
    claim = starter.acquire(claim_lease("tiny"))
    assert claim is not None
    starter.keep_renewing(1.0)
    started = [workers.start("tiny", storage, tmp_path) for _ in range(WORKERS)]
    for worker in started:
        worker.until(lambda: [w.phase for w in store.workers.of_study("tiny")] == ["idle"] * WORKERS)
    claim.release()
    starter.stop_renewing()
    store.workers.unregister(starter.owner)
    for worker in started:
        worker.ends_well()
    assert [worker.said for worker in started] == [""] * WORKERS, "a worker has logged something"

    taught = [step.place for worker in started for step in worker.steps if step.is_of_teacher]
    assert len(taught) == len(set(taught)) == max(LADDER) * (data.train_images // 64)
    trials = load(store, "tiny").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * len(LADDER)
    assert {Point.of(trial.params) for trial in trials} == {Point(64, epochs) for epochs in LADDER}
    assert len({trial.user_attrs["worker"] for trial in trials}) > 1
    assert sum(trial.user_attrs["epochs_trained"] for trial in trials) == max(LADDER)

    assert main(["status", "tiny", "--storage", storage, "--artifacts", store.artifacts_url, "--json"]) == 0
    (status,) = json.loads(capsys.readouterr().out)
    assert status["trials"]["complete"] == len(LADDER)
    assert status["cost"]["teacher_epochs_trained"] == max(LADDER)
    assert status["cost"]["teacher_epochs_requested"] == sum(LADDER)
    assert status["cost"]["student_epochs"] == len(LADDER)
    assert status["workers"] == []

    (recipe,) = store.trajectories.recipes()
    assert [(s.branch, s.epoch) for s in store.trajectories.of_recipe(recipe)] == [(TRUNK, e) for e in LADDER]
    assert store.trajectories.checkpoints() == []
    with store.database.session() as session:
        assert [lease.name for lease in session.scalars(select(LeaseRow)) if lease.owner] == []
        assert session.scalars(select(WorkerRow)).all() == []
        referred_to = used_blobs(session)
    assert {file.name for file in store.artifacts.files() if file.kind != "picture"} == referred_to
