"""A study that is watched: what is told of it, when it will be over, and how its map looks in text."""

import copy
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from tiny_study import tiny_config

from sweetspot.data.study_data import load_study_data
from sweetspot.report.companion import stage_of
from sweetspot.report.heat_map import heat_map
from sweetspot.report.pace import seconds_left, trials_left
from sweetspot.report.watch import Event, Look, answers_again, look_at, news, outage
from sweetspot.report.watch_view import JsonLines, Lines, Screen, watch_view
from sweetspot.store import Store, WorkerRecord
from sweetspot.store.url import data_folder
from sweetspot.study.arms import SMOOTHED
from sweetspot.study.confirmation import LEADER
from sweetspot.study.search import GIVEN_BACK, REPLACED, TASK, create_or_continue
from sweetspot.study.space import Alone, Point
from sweetspot.study.tasks import Task
from sweetspot.workers.worker import work

CONFIG = tiny_config()
AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With a study that was run to its end."""
    url = f"sqlite:///{tmp_path_factory.mktemp('watch')}/study.db"
    with Store(url) as opened:
        create_or_continue(opened, "tiny", CONFIG, load_study_data(CONFIG, data_folder(), torch.device("cpu")))
        work("tiny", storage=url, device="cpu")
        yield opened


@pytest.fixture
def end(store: Store) -> Look:
    return look_at(store, "tiny", AT, has_work=False)


def earlier(look: Look, trials: int = 0, **changes: Any) -> Look:
    """The study before most of it was done: so many of its trials, and no confirmation."""
    ranked = () if trials == 0 else look.result.ranked
    result = replace(
        look.result, trials=look.result.trials[:trials], ranked=ranked, confirmation=None, plan=None, confirming=()
    )
    return replace(look, **{"result": result, "confirmed": {}, "is_done": False} | changes)


def a_worker(name: str = "a", **values: Any) -> WorkerRecord:
    now = datetime.now(UTC).replace(tzinfo=None)
    given = {"phase": "idle", "detail": {}, "last_seen": now, "drain": False, "ended": False} | values
    return WorkerRecord(id=name, host=f"host-{name}", pid=1, device="cpu", study="tiny", trial=0, started=now, **given)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


# -- what is told -----------------------------------------------------------------------------------------------------


def test_at_first_the_study_is_told_in_one_line(end: Look) -> None:
    (event,) = news(None, earlier(end, workers=(a_worker(),)))
    assert event.kind == "study"
    assert event.text == "tiny: 0/4 trials, 0 pruned, 0 running  |  no student yet  |  1 worker  |  search: ETA unknown"
    assert event.to_dict()["study"] == "tiny"


def test_a_study_that_is_done_is_told_with_its_verdict(end: Look) -> None:
    study, done = news(None, end)
    tasks = len(end.result.confirming)
    assert study.text.endswith(f"confirming: {tasks} of {tasks} tasks  |  0 workers  |  done")
    assert done.kind == "done"
    assert done.text.endswith(end.result.verdict)
    assert done.values["verdict"] == end.result.verdict


def test_trials_the_best_point_the_search_and_the_confirmation_are_told_when_they_come(end: Look) -> None:
    found = news(earlier(end), end)
    after = ["tasks", "confirmation"] + ["arm"] * len(end.confirmed) + ["done"]
    assert kinds(found) == ["trial"] * 4 + ["best", "search"] + after
    first = found[0].to_dict()
    assert (first["time"], first["event"], first["number"]) == ("2026-11-20T12:00:00Z", "trial", 0)
    assert first["value"] == pytest.approx(end.result.trials[0].value)
    assert found[0].text.startswith("4/4  trial 0: batch ")
    assert found[4].text.startswith(f"new best: {end.result.best.point}: ")  # type: ignore[union-attr]
    assert found[5].text == "the search is done: 4/4 trials"
    assert found[6].values == {
        "stage": "confirmation",
        "done": len(end.result.confirming),
        "total": found[6].values["total"],
    }
    assert found[7].text.startswith(f"confirming {end.result.best.point}: 2 fresh students each, in ")  # type: ignore[union-attr]
    assert [event.values["arm"] for event in found[8:-1]] == list(end.confirmed)
    assert "test accuracy" in found[8].text


def test_nothing_is_told_twice(end: Look) -> None:
    assert kinds(news(end, end)) == ["done"]
    assert news(earlier(end, 2), earlier(end, 2)) == []


def test_a_trial_that_fails_is_one_line_whatever_its_error_says(end: Look) -> None:
    trial = replace_trial(end.result.trials[0], TrialState.FAIL, error="two\nlines \x1b[31m[bold]")
    after = replace(earlier(end), result=replace(earlier(end).result, trials=(trial,)))
    (event,) = news(earlier(end), after)
    assert r"fail: two lines \x1b[31m[bold]" in event.text
    assert event.text.isprintable()


def test_a_trial_that_is_given_back_is_not_told(end: Look) -> None:
    trial = replace_trial(end.result.trials[0], TrialState.FAIL, **{GIVEN_BACK: "its worker died"})
    assert news(earlier(end), replace(earlier(end), result=replace(earlier(end).result, trials=(trial,)))) == []


def replace_trial(trial: FrozenTrial, state: TrialState, **attrs: str) -> FrozenTrial:
    made = copy.copy(trial)
    made.state, made.user_attrs = state, dict(attrs)
    return made


def test_workers_join_leave_fall_silent_come_back_and_die(end: Look) -> None:
    old = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=5)
    there, silent, dead = a_worker(), a_worker(last_seen=old), a_worker(ended=True)
    looks = [(), (there,), (silent,), (there,), (dead,), (), (there,), ()]
    told = [
        event.text
        for before, after in pairwise(looks)
        for event in news(earlier(end, workers=before), earlier(end, workers=after))
    ]
    said = ["joined", "silent for 5 min", "heard of again", "died", "joined", "left"]
    assert told == [f"worker host-a-1 on cpu: {what}" for what in said]


def test_a_search_that_ends_early_says_why_and_one_that_goes_on_says_so(end: Look) -> None:
    ended = replace(end.result.record, ended="the 5 s of --timeout were over")
    after = earlier(end, 2)
    after = replace(after, result=replace(after.result, record=ended))
    (event,) = news(earlier(end, 2), after)
    assert event.text == "the search has ended: the 5 s of --timeout were over"
    (event,) = news(after, earlier(end, 2))
    assert event.text == "the search goes on: 2/4 trials"


def task_trial(number: int, state: TrialState, task: Task, **attrs: str) -> FrozenTrial:
    value = 0.5 if state == TrialState.COMPLETE else None
    trial = optuna.trial.create_trial(state=state, value=value, user_attrs={TASK: task.to_json(), **attrs})
    trial.number = number
    return trial


def test_the_tasks_after_a_search_are_counted_stage_by_stage(end: Look) -> None:
    """Of each stage its own; tries of one task are one task, and what was withdrawn is none."""
    leader = [Task(LEADER, Point(64, epochs), "search", 0, 3) for epochs in (1, 2)]
    chosen = [Task(SMOOTHED, Alone(amount), "search", 0, 1) for amount in (0.02, 0.05, 0.1)]
    trials = [
        task_trial(0, TrialState.FAIL, leader[0], **{GIVEN_BACK: "its worker died"}),
        task_trial(1, TrialState.COMPLETE, leader[1]),
        task_trial(2, TrialState.RUNNING, leader[0]),
    ]
    stage = stage_of(CONFIG, None, trials)
    assert stage is not None
    assert (str(stage), stage.is_over) == ("giving the leaders all their students: 1 of 2 tasks", False)
    trials += [
        task_trial(3, TrialState.COMPLETE, chosen[0]),
        task_trial(4, TrialState.FAIL, chosen[1], error="OSError"),
        task_trial(5, TrialState.WAITING, chosen[1]),
        task_trial(6, TrialState.FAIL, chosen[2], **{GIVEN_BACK: REPLACED}),
    ]
    assert str(stage_of(CONFIG, None, trials)) == "choosing on validation: 1 of 2 tasks"
    plan = end.plan
    assert plan is not None
    own = plan.all_tasks(CONFIG.teacher.seed)
    trials += [
        task_trial(7, TrialState.COMPLETE, replace(own[0], count=99)),  # of another plan
        *(task_trial(8 + i, TrialState.COMPLETE, task) for i, task in enumerate(own[:2])),
        task_trial(10, TrialState.WAITING, own[2]),
    ]
    assert str(stage_of(CONFIG, plan, trials)) == "confirming: 2 of 3 tasks"
    assert stage_of(CONFIG, None, []) is None


# -- when it will be over ---------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 20, 12, 0)


def took(seconds: float, ended: float = 0.0, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    """A trial of so many seconds that ended so many seconds ago; a running one has run for so long."""
    trial = optuna.trial.create_trial(state=state, value=0.5 if state == TrialState.COMPLETE else None)
    trial.datetime_start = NOW - timedelta(seconds=seconds + ended)
    trial.datetime_complete = None if state == TrialState.RUNNING else NOW - timedelta(seconds=ended)
    return trial


def test_the_rest_takes_as_long_as_trials_have_taken_shared_by_the_workers() -> None:
    assert seconds_left([took(10), took(30)], 6, 3, NOW) == pytest.approx(6 * 20 / 3)
    assert seconds_left([took(20), took(15, state=TrialState.RUNNING)], 3, 1, NOW) == pytest.approx(45)
    assert seconds_left([took(20), took(99, state=TrialState.RUNNING)], 1, 8, NOW) == pytest.approx(0)
    assert seconds_left([took(20)], 1, 8, NOW) == pytest.approx(20)
    assert seconds_left([took(1000, 100), *[took(10, n) for n in range(20)]], 1, 1, NOW) == pytest.approx(10)


def test_without_a_finished_trial_or_a_worker_there_is_no_telling() -> None:
    assert seconds_left([], 6, 3, NOW) is None
    assert seconds_left([took(15, state=TrialState.RUNNING), took(5, state=TrialState.FAIL)], 6, 3, NOW) is None
    assert seconds_left([took(10)], 6, 0, NOW) is None


def test_a_small_space_ends_the_search_before_its_total(end: Look) -> None:
    search = CONFIG.search.model_copy(update={"trials": 100})
    record = replace(end.result.record, config=CONFIG.model_copy(update={"search": search}))
    assert trials_left(replace(end.result, record=record)) == 6 - 4
    assert trials_left(end.result) == 0


# -- the map ----------------------------------------------------------------------------------------------------------


def test_the_map_has_a_row_for_each_batch_size_and_a_column_for_each_rung(end: Look) -> None:
    head, epochs, *rows, legend = [line.plain for line in heat_map(end.result, 80, 24)]
    assert head == "Student accuracy (%), batch size down, epochs across:"
    assert epochs.split() == ["1", "2", "3"]
    assert [row.split()[0] for row in rows] == ["64", "128"]
    best = end.result.best
    assert best is not None
    assert f"*{100 * sum(best.accuracies) / 2:.2f}" in "".join(rows)
    assert sum(row.count(" .") for row in rows) == 2  # of six points, four were visited
    assert legend == "* best so far, . not visited"


def test_points_without_students_say_what_became_of_them(end: Look) -> None:
    trials = [
        replace_trial(end.result.trials[0], TrialState.PRUNED, pruned_because="S"),
        replace_trial(end.result.trials[1], TrialState.PRUNED, infeasible="memory"),
        replace_trial(end.result.trials[2], TrialState.RUNNING),
        replace_trial(end.result.trials[3], TrialState.FAIL, error="x"),
    ]
    *rows, legend = [line.plain for line in heat_map(replace(end.result, trials=tuple(trials), ranked=()), 80, 24)][2:]
    assert sorted("".join(rows).replace("64", "").replace("128", "").split()) == ["!", ".", ".", "p", "x", "~"]
    assert legend == "~ running, p pruned, x infeasible, ! failed, . not visited"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_large_map_fits_and_keeps_its_best_point(end: Look, width: int) -> None:
    ladder = tuple(range(1, 61))
    search = CONFIG.search.model_copy(update={"epochs": ladder, "batch_size": tuple(2**n for n in range(4, 16))})
    record = replace(end.result.record, config=CONFIG.model_copy(update={"search": search}))
    lines = [line.plain for line in heat_map(replace(end.result, record=record), width, 9)]
    assert max(map(len, lines)) <= width
    assert len(lines) <= 9
    assert "*" in "".join(lines[2:-1])


# -- views ------------------------------------------------------------------------------------------------------------


def screen(*shown: tuple[list[Event], Look | None], colour: bool = True) -> str:
    """What a terminal of 80 columns and 24 rows gets."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system="truecolor")
    console.no_color = not colour
    with Screen(console) as view:
        for events, look in shown:
            view.show(events, look)
    return console.file.getvalue()  # type: ignore[attr-defined]


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (200, 60), (20, 5)])
def test_a_screen_never_needs_more_room_than_there_is(end: Look, width: int, height: int) -> None:
    many = tuple(
        a_worker("w" * n, phase="teacher", detail={"batch_size": 64, "epochs": 3, "epoch": 2}) for n in range(1, 30)
    )
    events = [Event(AT, "trial", "x" * 300) for _ in range(9)]
    for look in (earlier(end, 2, workers=many), earlier(end, workers=())):
        view = Screen(Console(file=io.StringIO(), width=width, height=height))
        view.show(events, look)
        view.show([outage(AT, "y" * 300)], None)
        paper = Console(file=io.StringIO(), width=width)
        paper.print(view.frame(look))
        lines = paper.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(len, lines)) <= width
        assert len(lines) < height


def test_a_screen_shows_progress_map_workers_and_what_is_new(end: Look) -> None:
    workers = (a_worker(phase="teacher", detail={"batch_size": 64, "epochs": 3, "epoch": 2}),)
    before, after = earlier(end, 1, workers=workers), earlier(end, 2, workers=workers)
    shown = "\n".join(plain(screen((news(before, after), after))))
    assert "tiny: convnet teaches mlp on digits" in shown
    assert "2/4 trials, 0 pruned, 0 running, search: ETA " in shown
    assert "Best so far: batch " in shown
    assert "batch size down, epochs across:" in shown
    assert "host-a: cpu (pid 1): batch 64, 3 epochs: teacher, epoch 2" in shown
    assert "12:00:00Z  2/4  trial 1: " in shown


def test_the_last_screen_has_the_verdict(end: Look) -> None:
    shown = " ".join(" ".join(plain(screen((news(None, end), end)))).split())
    assert f"Verdict: {end.result.verdict}" in shown


def test_an_outage_stays_on_the_screen_until_there_is_an_answer(end: Look) -> None:
    look = earlier(end, 2)
    away = [outage(AT, "the database does not answer (cut)")]
    assert "the database does not answer (cut): waiting for it" in screen(([], look), (away, None))
    back = plain(screen(([], look), (away, None), ([answers_again(AT, AT - timedelta(minutes=3))], look)))
    assert "the database answers again after 3 min" in "\n".join(back[-24:])


def test_colour_is_on_the_map_unless_it_is_unwanted(end: Look) -> None:
    assert "48;2;" in screen(([], earlier(end, 4)))
    assert "48;" not in screen(([], earlier(end, 4)), colour=False)


def test_lines_and_json_are_one_line_per_event(end: Look, capsys: pytest.CaptureFixture[str]) -> None:
    found = news(earlier(end), end)
    Lines().show(found, end)
    assert [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["2026-11-20T12:00:00Z"] * len(
        found
    )
    JsonLines().show(found, end)
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == kinds(found)


def test_the_view_fits_where_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console()
    assert type(watch_view(console, as_json=False)) is Lines
    assert type(watch_view(console, as_json=True)) is JsonLines
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert type(watch_view(Console(force_terminal=True), as_json=False)) is Screen
    monkeypatch.setenv("TERM", "dumb")
    assert type(watch_view(Console(force_terminal=True), as_json=False)) is Lines


def test_a_study_that_others_are_at_is_not_done(store: Store) -> None:
    worker = store.workers.register("cpu")
    store.workers.update(worker, study="tiny")
    assert not look_at(store, "tiny", AT, has_work=False).is_done
    store.workers.unregister(worker)
    assert look_at(store, "tiny", AT, has_work=False).is_done
