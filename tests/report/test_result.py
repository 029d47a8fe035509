"""A real study, run to its end once by a worker in this process; what is read from it."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from rich.console import Console
from tiny_study import tiny_config

import sweetspot
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import RunError, UserError
from sweetspot.report.result import StudyResult, read_result
from sweetspot.report.text import status_table, summary, trials_table
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.arms import ARMS, BEST
from sweetspot.study.confirmation import current_plan
from sweetspot.study.deletion import delete_study
from sweetspot.study.search import create_or_continue, load
from sweetspot.study.space import Point
from sweetspot.workers.worker import work

CONFIG = tiny_config(search__trials=5, teacher__schedule={"name": "wsd", "decay": 0.4})


@pytest.fixture(scope="module")
def digits() -> StudyData:
    return load_study_data(CONFIG, data_folder(), torch.device("cpu"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, digits: StudyData) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('result')}/study.db"
    with Store(url) as store:
        create_or_continue(store, "tiny", CONFIG, digits)
    work("tiny", storage=url, device="cpu")
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened


@pytest.fixture
def result(store: Store) -> StudyResult:
    return read_result(store, "tiny")


def shown(renderable: Any, width: int = 80) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_best_json_has_everything_that_programs_are_promised(result: StudyResult) -> None:
    answer = result.to_dict()
    assert {
        "study", "dataset", "teacher", "student", "batch_size", "epochs", "steps", "epochs_mean", "accuracy",
        "test_accuracy", "teacher_accuracy", "similarity_entropy", "similarity_information", "delivered_similarity",
        "confirmed", "verdict", "baselines", "gain", "trials", "cost",
    } <= answer.keys()  # fmt: skip
    assert answer["epochs_mean"] == "annealed"
    assert answer["accuracy"].keys() == {"mean", "std", "replicates", "split"}
    assert (answer["accuracy"]["split"], answer["accuracy"]["replicates"]) == ("validation", 2)
    assert (answer["test_accuracy"]["split"], answer["test_accuracy"]["replicates"]) == ("test", 2)
    assert answer["baselines"].keys() == set(ARMS) - {BEST}
    there = {arm for arm, told in answer["baselines"].items() if told is not None}
    assert there == {"student_alone", "most_accurate_teacher", "longest_teacher"}
    assert answer["left_out"] == ["label_smoothing", "temperature", "economy"]
    assert answer["baselines"]["longest_teacher"]["epochs"] == 3
    assert answer["baselines"]["longest_teacher"]["batch_size"] == answer["batch_size"]
    assert {name for name, gain in answer["gain"].items() if gain} == {f"over_{arm}" for arm in there}
    for arm in there:
        gain = answer["gain"][f"over_{arm}"]
        assert gain["low"] <= gain["mean"] <= gain["high"]
    assert answer["trials"] == {"complete": 5, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert answer["confirmed"] in (True, False, None)
    assert "not about the point in general" in answer["verdict"]
    assert answer["claim"] == "this teacher"


def test_gains_are_paired_differences_of_the_accuracies(result: StudyResult) -> None:
    answer = result.to_dict()
    best = answer["test_accuracy"]["mean"]
    for arm, gain in (("student_alone", "over_student_alone"), ("most_accurate_teacher", "over_most_accurate_teacher")):
        assert answer["gain"][gain]["mean"] == pytest.approx(best - answer["baselines"][arm]["mean"])


def test_cost_counts_what_was_trained_and_what_would_have_been(result: StudyResult, store: Store) -> None:
    cost = result.to_dict()["cost"]
    searched = sum(t.params["epochs"] for t in result.trials)
    plan = current_plan(store, "tiny")
    assert plan is not None
    arms = {source for source in plan.arms.values() if isinstance(source, Point)}
    confirmed = sum(point.epochs for point in arms)
    assert cost["teacher_epochs_requested"] == searched + confirmed
    # wsd: each length pays for its own decay of one epoch, and each batch size for one trunk
    visited = {(t.params["batch_size"], t.params["epochs"]) for t in result.trials}
    visited |= {(p.batch_size, p.epochs) for p in arms}
    trunks = {size: max(e for s, e in visited if s == size) - 1 for size, _ in visited}
    assert cost["teacher_epochs_trained"] == len(visited) + sum(trunks.values())
    assert cost["student_epochs"] == 2 * (5 * 2 + len(set(plan.arms.values())) * 2)
    assert cost["seconds"] > 0


def test_every_students_correctness_on_the_test_split_is_kept(result: StudyResult, store: Store) -> None:
    assert result.confirmation is not None
    planned = result.confirmation.plan.arms
    assert {arm: len(values) for arm, values in result.confirmation.accuracies.items()} == dict.fromkeys(planned, 2)
    for arm, interval in result.confirmation.intervals.items():
        assert interval.mean == pytest.approx(sum(result.confirmation.accuracies[arm]) / 2)


def test_the_search_has_not_looked_at_the_test_split(result: StudyResult) -> None:
    assert all(s.test_correct is None for ranked in result.ranked for s in ranked.students)


def test_an_arm_that_is_two_arms_runs_once(result: StudyResult, store: Store) -> None:
    plan = current_plan(store, "tiny")
    assert plan is not None
    assert len(load(store, "tiny/confirm").trials) == len(set(plan.arms.values()))


def test_working_on_a_study_that_is_done_changes_nothing(url: str, store: Store, result: StudyResult) -> None:
    before = len(load(store, "tiny/confirm").trials)
    work("tiny", storage=url, device="cpu")
    again = read_result(store, "tiny")
    assert again.to_dict() == result.to_dict()
    assert len(load(store, "tiny/confirm").trials) == before


def test_a_worker_without_a_name_serves_what_is_left(url: str, store: Store, digits: StudyData) -> None:
    create_or_continue(store, "second", tiny_config(search__trials=1, confirm__seeds=0), digits)
    work(None, storage=url, device="cpu")
    second = read_result(store, "second")
    assert second.counts.finished == 1
    assert second.confirmation is None
    assert second.verdict.startswith("not confirmed: the confirmation was left out")
    delete_study(store, second.record)


def test_the_summary_says_what_a_person_needs(result: StudyResult) -> None:
    text = shown(summary(result))
    for words in ("Best point", "no teacher", "most accurate teacher", "longest teacher", "Verdict: ", "Spent: "):
        assert words in text
    assert "sharing saved" in text
    assert "The test split has had 1 look" in text
    assert "Test accuracy of 2 fresh students each" in text
    assert "sweetspot trials tiny" in text
    assert max(map(len, text.splitlines())) <= 80


def test_tables_show_each_study_and_each_trial(result: StudyResult) -> None:
    assert "5/5" in shown(status_table([result]), 200)
    assert len(shown(trials_table(result), 300).strip().splitlines()) == 6


def test_status_and_trials_are_plain_values(result: StudyResult) -> None:
    status = result.status_dict()
    assert {"study", "dataset", "trials", "best", "workers", "cost"} <= status.keys()
    assert status["workers"] == []
    trial = result.trials_list()[0]
    assert trial["state"] == "complete"
    assert {"batch_size", "epochs", "value", "replicate_accuracies", "seconds", "similarity_entropy"} <= trial.keys()


def test_a_result_is_loaded_by_name(url: str) -> None:
    assert sweetspot.load_result("tiny", url).best is not None


# -- points and curves ----------------------------------------------------------------------------------------------


def test_points_are_the_rankings_with_what_the_trials_say(result: StudyResult) -> None:
    assert {p.point for p in result.points} == {r.point for r in result.ranked}
    (best,) = (p for p in result.points if p.is_best)
    assert result.best is not None
    assert (best.point, best.accuracies) == (result.best.point, tuple(result.best.accuracies))
    assert best.low is not None
    assert best.high is not None
    assert best.low < sum(best.accuracies) / 2 < best.high
    assert best.teacher_accuracy == result.best_measures["teacher_accuracy"]
    assert best.delivered_similarity == result.best_measures["delivered_similarity"]
    assert all(p.state == "complete" and p.is_settled and p.reason is None for p in result.points)
    assert result.classes == tuple("0123456789")
    assert result.train_images == 1097


def test_curves_are_read_where_they_are_asked_for(result: StudyResult, store: Store) -> None:
    assert result.curves == ()
    curves = read_result(store, "tiny", with_curves=True).curves
    assert [curve.batch_size for curve in curves] == sorted({p.point.batch_size for p in result.points})
    there = {(c.batch_size, p.epochs): p for c in curves for p in c.teachers}
    for point in result.points:
        taught = there[point.point.batch_size, point.point.epochs]
        assert taught.similarity_entropy == point.similarity_entropy
        assert taught.teacher_accuracy == point.teacher_accuracy
        assert taught.steps == point.steps
    for curve in curves:  # wsd: the trunk ends where the decay of the longest begins
        longest = max(epochs for size, epochs in there if size == curve.batch_size)
        assert [p.epochs for p in curve.trunk] == list(range(1, longest))


# -- notebooks ------------------------------------------------------------------------------------------------------


def test_every_figure_is_a_method(result: StudyResult) -> None:
    for name in ("map", "entropy", "tradeoff", "steps", "cost", "confirm"):
        assert getattr(result, f"plot_{name}")().data


def test_a_notebook_shows_the_answer_and_the_map(result: StudyResult) -> None:
    record = replace(result.record, name="<script>alert(1)</script>")
    text = replace(result, record=record)._repr_html_()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "Best point: batch " in text
    assert "Verdict: " in text
    assert "data:image/png;base64," in text
    assert text.count("<tr>") == 1 + min(5, len(result.points))


def test_a_data_frame_has_a_row_for_each_point(result: StudyResult) -> None:
    pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert len(frame) == len(result.points)
    assert {"batch_size", "epochs", "accuracy", "accuracy_low", "similarity_entropy", "state"} <= set(frame.columns)
    assert frame.loc[frame.is_best, "accuracy"].tolist() == [p.mean for p in result.points if p.is_best]


def test_without_pandas_the_error_says_how_to_have_it(result: StudyResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"needs pandas, .* in a clone ./uvw sync --extra notebook"):
        result.to_dataframe()


def test_a_study_without_a_finished_trial_has_no_answer_yet(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "empty", CONFIG, digits)
    with pytest.raises(RunError, match="no finished trial"):
        read_result(store, "empty").to_dict()
    assert "No trial has finished" in shown(summary(read_result(store, "empty")))
    assert "0 of 5 trials" in read_result(store, "empty")._repr_html_()
    delete_study(store, read_result(store, "empty").record)


def test_deleting_a_study_keeps_what_another_one_uses(store: Store, digits: StudyData, url: str) -> None:
    create_or_continue(store, "twin", CONFIG.model_copy(update={"pruner": tiny_config().pruner}), digits)
    work("twin", storage=url, device="cpu")
    twin = read_result(store, "twin")
    assert twin.cost.teacher_epochs_trained == 0  # the same recipes: everything was there
    delete_study(store, twin.record)
    assert [r.name for r in store.studies.all()] == ["tiny"]
    assert optuna.get_all_study_names(store.database.storage) == ["tiny", "tiny/confirm"]
    ranked = read_result(store, "tiny").ranked
    for student in ranked[0].students:
        store.artifacts.get(student.weights)


def test_deleting_the_last_study_leaves_no_networks(tmp_path: Path, digits: StudyData) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    with Store(url) as store:
        create_or_continue(store, "tiny", tiny_config(search__trials=1), digits)
        work("tiny", storage=url, device="cpu")
        delete_study(store, read_result(store, "tiny").record)
        assert list(store.artifacts.files()) == []
        assert optuna.get_all_study_names(store.database.storage) == []
