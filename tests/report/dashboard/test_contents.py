"""What a study carries for the dashboard, and when it is written."""

import json
import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs
from sqlalchemy import make_url
from tiny_study import tiny_config

from benchmarks.large_study import write_large_study
from sweetspot.report.dashboard import contents
from sweetspot.report.dashboard.contents import (
    FIGURE_NAMES,
    LARGEST_FIGURE,
    Contents,
    bring_up_to_date,
    figure_id,
    is_current,
    publish,
)
from sweetspot.report.figures.catalogue import FIGURES
from sweetspot.report.figures.spec import NothingToShow
from sweetspot.report.notes import study_note
from sweetspot.report.result import read_result
from sweetspot.store import Leases, Store
from sweetspot.study.search import companions, load

from .conftest import Serve

NAME = "<img src=x onerror=alert(1)> *n*"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of one study that is done."""
    folder = tmp_path_factory.mktemp("done")
    with Store(f"sqlite:///{folder}/study.db") as store:
        write_large_study(store, NAME, trials=20)
    return folder


@pytest.fixture
def store(done: Path, tmp_path: Path) -> Iterator[Store]:
    """A copy of it."""
    shutil.copytree(done, tmp_path / "store")
    with Store(f"sqlite:///{tmp_path}/store/study.db") as store:
        yield store


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Store]:
    """With a study in which nothing has happened: there is no figure to draw."""
    with Store(f"sqlite:///{tmp_path}/study.db") as store:
        write_large_study(store, NAME, trials=0, config=tiny_config(), confirmed=False)
        yield store


def study_of(store: Store, name: str = NAME) -> optuna.Study:
    return load(store, name)


def attributes(store: Store, name: str = NAME) -> dict[str, Any]:
    return store.database.storage.get_study_system_attrs(study_of(store, name)._study_id)


def figures(store: Store, name: str = NAME) -> dict[str, Any]:
    """As optuna-dashboard reads them."""
    return {key: json.loads(text) for key, text in get_plotly_graph_objects(attributes(store, name)).items()}


def note(store: Store, name: str = NAME) -> str:
    return str(get_note_from_system_attrs(attributes(store, name), None)["body"])


def say(store: Store, body: str) -> None:
    """As a person does, in the dashboard."""
    from optuna_dashboard import save_note

    save_note(study_of(store), body)


def leases(store: Store) -> Leases:
    return Leases(store.database, store.workers.register("cpu"), 60.0)


# -- figures ----------------------------------------------------------------------------------------------------------


def test_a_study_carries_every_figure_and_each_is_small(store: Store) -> None:
    publish(store, NAME)
    assert set(figures(store)) == {figure_id(name) for name in FIGURES}
    assert list(FIGURES) == list(FIGURE_NAMES)
    for figure in figures(store).values():
        assert figure["data"]
        assert len(json.dumps(figure)) < LARGEST_FIGURE
        assert "height" not in figure["layout"]


def test_figures_are_replaced_and_leave_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, NAME)
    before = attributes(store)
    publish(store, NAME)
    assert attributes(store).keys() == before.keys()

    def shows_nothing(result: object) -> Any:
        raise NothingToShow("nothing yet")

    monkeypatch.setitem(FIGURES, "entropy", shows_nothing)
    monkeypatch.setitem(FIGURES, "steps", FIGURES["confirm"])  # it has fewer slices than its own
    publish(store, NAME)
    assert figure_id("entropy") not in figures(store)
    assert not [key for key in attributes(store) if "sweetspot-entropy" in key]
    assert figures(store)[figure_id("steps")] == figures(store)[figure_id("confirm")]


def test_a_figure_that_fails_or_is_too_large_takes_no_other_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store, NAME)
    before = figures(store)

    def fails(result: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setitem(FIGURES, "map", fails)
    monkeypatch.setattr(contents, "LARGEST_FIGURE", 3 * len(json.dumps(before[figure_id("confirm")])))
    with caplog.at_level(logging.WARNING):
        publish(store, NAME)
    after = figures(store)
    assert after[figure_id("map")] == before[figure_id("map")]
    assert after[figure_id("confirm")] == before[figure_id("confirm")]
    assert len(json.dumps(after)) < len(json.dumps(before))
    assert "'map'" in caplog.text


def test_the_dashboard_shows_the_figures_in_their_order_whatever_people_add(store: Store, serve: Serve) -> None:
    publish(store, NAME)
    study = study_of(store)
    for key in ("their-own", "a"):
        store.database.storage.set_study_system_attr(study._study_id, f"dashboard:plot_data:{key}:0", "{}")
    said = serve(store).get(f"/api/studies/{study._study_id}").json
    assert [each["id"] for each in said["plotly_graph_objects"]] == [*map(figure_id, FIGURE_NAMES), "a", "their-own"]


# -- the note ---------------------------------------------------------------------------------------------------------


def test_the_note_says_what_is_searched_what_was_found_and_how_to_join(store: Store) -> None:
    publish(store, NAME, clock=lambda: datetime(2026, 5, 4, 12, 0, tzinfo=UTC).timestamp())
    said = note(store)
    for words in (
        "**What is searched.** How long, and at which batch size",
        "**Best so far.** **batch",
        "95 % interval",
        "**What it means.** ",
        " of 20 trials have finished",
        "**Pruning.** 3 trials of 19 were pruned on similarity entropy",
        "**Cost.** ",
        "sweetspot worker --name '<img src=x onerror=alert(1)> *n*' --storage sqlite:///",
        "Written 2026-05-0",
    ):
        assert words in said
    assert said.startswith("## `<img src=x onerror=alert(1)> *n*`\n")
    assert companions(store, NAME)
    assert not figures(store, f"{NAME}/confirm")


def test_whoever_writes_a_note_while_it_is_kept_current_can_save_it(quiet: Store, serve: Serve) -> None:
    publish(quiet, NAME, clock=lambda: 1e9)
    site, number = serve(quiet), study_of(quiet)._study_id
    seen = site.get(f"/api/studies/{number}").json["note"]
    publish(quiet, NAME, clock=lambda: 2e9)
    theirs = {"version": seen["version"] + 1, "body": f"Hello.\n\n{seen['body']}"}
    assert site.ask("PUT", f"/api/studies/{number}/note", theirs).status == 204
    assert "Written 2001-09-0" in note(quiet)
    publish(quiet, NAME, clock=lambda: 2e9)
    assert note(quiet).startswith("Hello.\n\n## ")
    assert "Written 2033-05-" in note(quiet)
    say(quiet, "Mine.")
    publish(quiet, NAME)
    assert note(quiet) == "Mine."


def test_no_password_gets_into_the_note(store: Store) -> None:
    url = make_url("postgresql+psycopg://ann:hunter2@db.example/x?sslmode=require&sslpassword=hunter3")
    said = study_note(read_result(store, NAME), url, "s3://key:hunter4@bucket/x", datetime.now(UTC))
    assert "hunter" not in said
    assert "# with the database's address in SWEETSPOT_STORAGE, or in a file: postgresql://ann:***@db.example/x" in said
    assert "--artifacts 's3://key:***@bucket/x'" in said


# -- when -------------------------------------------------------------------------------------------------------------


class Clock:
    """When a worker begins; in the first half minute there is nothing to be seen."""

    now = 970.0

    def __call__(self) -> float:
        return self.now


def written(store: Store) -> float:
    return float(attributes(store)["sweetspot:contents"]["at"])


def go_on(store: Store) -> None:
    """Something happens in the study."""
    study_of(store).add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED))


def test_workers_publish_from_time_to_time_whoever_of_them_it_is(quiet: Store) -> None:
    clock = Clock()
    ann, bob = (Contents(quiet, NAME, leases(quiet), clock) for _ in range(2))
    ann.refresh()
    assert "sweetspot:contents" not in attributes(quiet)
    clock.now = 1000.0
    ann.refresh()
    assert written(quiet) == 1000.0
    go_on(quiet)
    for clock.now in (1001.0, 1029.0):
        bob.refresh()
        ann.refresh()
    assert written(quiet) == 1000.0
    clock.now = 5000.0
    bob.refresh()
    assert written(quiet) == 5000.0
    clock.now = 9000.0
    ann.refresh()
    assert written(quiet) == 5000.0  # nothing has changed


def test_what_takes_long_is_done_less_often(quiet: Store) -> None:
    clock = Clock()
    worker = Contents(quiet, NAME, leases(quiet), clock)
    clock.now = 1000.0
    worker.refresh()
    state = attributes(quiet)["sweetspot:contents"] | {"seconds": 10.0}
    quiet.database.storage.set_study_system_attr(study_of(quiet)._study_id, "sweetspot:contents", state)
    go_on(quiet)
    clock.now += 400
    worker.refresh()
    assert written(quiet) == 1000.0
    clock.now += 101
    worker.refresh()
    assert written(quiet) == 1501.0


def test_at_the_end_it_is_written_at_once_and_only_if_something_has_changed(quiet: Store) -> None:
    clock = Clock()
    worker = Contents(quiet, NAME, leases(quiet), clock)
    clock.now = 1000.0
    worker.refresh()
    go_on(quiet)
    clock.now = 1001.0
    worker.finish()
    assert written(quiet) == 1001.0
    clock.now = 1002.0
    worker.finish()
    assert written(quiet) == 1001.0
    quiet.studies.set_ended(NAME, "enough")
    worker.finish()
    assert written(quiet) == 1002.0


def test_one_worker_publishes_at_a_time_and_those_that_end_wait_for_it(quiet: Store) -> None:
    other = leases(quiet).acquire(f"dashboard/{NAME}")
    assert other is not None
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            other.release()

    worker = Contents(quiet, NAME, leases(quiet), Clock(), sleep)
    worker.refresh()
    worker.finish(may_wait=False)
    assert "sweetspot:contents" not in attributes(quiet)
    worker.finish()
    assert len(pauses) == 3
    assert is_current(quiet, NAME)


def test_nothing_that_goes_wrong_is_raised(quiet: Store, caplog: pytest.LogCaptureFixture) -> None:
    worker = Contents(quiet, NAME, leases(quiet), Clock())
    with quiet.database.session.begin() as session:
        session.connection().exec_driver_sql("UPDATE sweetspot_study SET config = '{'")
    with caplog.at_level(logging.WARNING):
        worker.refresh()
        worker.finish()
    assert "the dashboard's figures were not written" in caplog.text
    optuna.delete_study(study_name=NAME, storage=quiet.database.storage)
    caplog.clear()
    worker.finish()
    assert not caplog.records  # of a study that is gone its workers have something to say


def test_what_a_killed_worker_has_left_behind_is_brought_up_to_date(quiet: Store) -> None:
    publish(quiet, NAME, clock=lambda: 5.0)
    bring_up_to_date(quiet)
    assert written(quiet) == 5.0
    go_on(quiet)
    bring_up_to_date(quiet, "another")
    assert not is_current(quiet, NAME)
    bring_up_to_date(quiet)
    assert is_current(quiet, NAME)
