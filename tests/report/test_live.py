import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.report.live import Lines, LiveView, Silent, progress
from sweetspot.report.result import StudyResult, read_result
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import distributions

CONFIG = tiny_config()


@pytest.fixture
def result(tmp_path: Path) -> StudyResult:
    """One trial pruned, one running, a worker in the middle of a teacher."""
    with Store(f"sqlite:///{tmp_path}/study.db") as store:
        create_or_continue(store, "tiny", CONFIG, load_study_data(CONFIG, data_folder(), torch.device("cpu")))
        study = load(store, "tiny")
        pruned = study.ask(distributions(CONFIG))
        pruned.set_user_attr("pruned_because", "similarity entropy 0.100 is below low = 0.2 (epoch 1)")
        study.tell(pruned, state=TrialState.PRUNED)
        study.ask(distributions(CONFIG))
        worker = store.workers.register("cpu")
        detail = {"batch_size": 64, "epochs": 3, "epoch": 2, "similarity_entropy": 1.234}
        store.workers.update(worker, study="tiny", phase="teacher", detail=detail)
        return read_result(store, "tiny")


def test_a_terminal_shows_trials_best_and_what_each_worker_trains(result: StudyResult) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with LiveView(console) as view:
        view.show(result)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1/4 trials, 1 pruned, 1 running" in shown
    assert "no student yet" in shown
    assert "batch 64, 3 epochs: teacher, epoch 2, S 1.234" in shown


def test_elsewhere_each_trial_is_told_once_when_it_finishes(result: StudyResult) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Lines(console) as view:
        view.show(replace(result, trials=result.trials[1:]))
        view.show(result)
        view.show(result)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 1
    assert "pruned: similarity entropy 0.100 is below low = 0.2" in lines[0]
    assert "1 pruned, 1 running" in lines[0]


def test_what_earlier_runs_have_done_is_not_told_again(result: StudyResult) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Lines(console) as view:
        view.show(result)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_the_progress_fits_where_it_is_written() -> None:
    assert isinstance(progress(Console(file=io.StringIO(), force_terminal=True), quiet=False), LiveView)
    assert isinstance(progress(Console(file=io.StringIO()), quiet=False), Lines)
    assert type(progress(Console(file=io.StringIO()), quiet=True)) is Silent
