"""What a dashboard shows of a store, and what changes it makes."""

import logging
from pathlib import Path

import optuna
import psycopg
import pytest
from bottle import HTTPError
from optuna.study import StudyDirection
from optuna.trial import TrialState

from sweetspot.report.dashboard.server import study_page
from sweetspot.report.dashboard.storage import ServedStudies
from sweetspot.store import Store

from .conftest import Serve, Site, fill


def ids(store: Store) -> dict[str, int]:
    return {study.study_name: study._study_id for study in store.database.storage.get_all_studies()}


def test_companions_are_not_listed_nor_found(site: Site, store: Store) -> None:
    assert site.listed() == ["digits", "other/study"], "the latter is nobody's companion"
    there = ids(store)
    assert site.get(f"/api/studies/{there['digits']}").json["trials"][0]["state"] == "Complete"
    assert site.get(f"/api/studies/{there['digits/confirm']}").status == 404
    assert site.get(f"/csv/{there['digits/confirm']}").status == 404


def test_one_study_alone(serve: Serve, store: Store) -> None:
    site = serve(store, study="digits")
    mine, other = ids(store)["digits"], ids(store)["other/study"]
    assert study_page(store, "digits") == f"/dashboard/studies/{mine}"
    assert site.listed() == ["digits"]
    for path in ("/csv/{}", "/api/studies/{}", "/api/studies/{}/param_importances", "/api/studies/{}/plot/edf"):
        assert site.get(path.format(other)).status == 404, path
        assert site.get(path.format(mine)).status in (200, 400), path
    assert site.ask("DELETE", f"/api/studies/{other}").status == 404
    trial = optuna.load_study(study_name="other/study", storage=store.database.storage).ask()
    assert site.ask("POST", f"/api/trials/{trial._trial_id}/tell", {"state": "Fail"}).status == 404
    assert store.database.storage.get_trial(trial._trial_id).state == TrialState.RUNNING
    assert site.ask("POST", "/api/studies", {"study_name": "new", "directions": ["maximize"]}).status == 403
    assert set(ids(store)) == {"digits", "digits/confirm", "other/study"}


def test_a_study_that_starts_later_is_shown(site: Site, store: Store) -> None:
    optuna.create_study(study_name="later", storage=store.database.storage)
    assert "later" in site.listed()


@pytest.mark.parametrize("plot", ["contour", "slice", "parallel_coordinate", "rank", "edf", "timeline"])
def test_every_plot_can_be_drawn(site: Site, store: Store, plot: str) -> None:
    study = optuna.load_study(study_name="digits", storage=store.database.storage)
    study.optimize(lambda trial: trial.suggest_int("epochs", 1, 80) / (1 + trial.suggest_int("batch", 1, 3)), 4)
    assert site.get(f"/api/studies/{study._study_id}/plot/{plot}").json["data"]


def test_deleting_a_study_is_sweetspot_delete(site: Site, store: Store) -> None:
    there = ids(store)
    assert site.ask("DELETE", f"/api/studies/{there['digits']}").status == 204
    assert site.get(f"/api/studies/{there['digits']}").status == 404
    assert store.studies.all() == []
    assert set(ids(store)) == {"other/study"}, "its confirmation is gone too"
    assert site.ask("DELETE", f"/api/studies/{there['other/study']}").status == 204
    assert ids(store) == {}


def test_read_only_holds_even_where_a_route_that_reads_would_write(store: Store) -> None:
    studies = ServedStudies(store, read_only=True)  # type: ignore[abstract]
    there = ids(store)["digits"]
    assert len(studies.get_all_trials(there)) == 1
    for change in (
        lambda: studies.delete_study(there),
        lambda: studies.create_new_study([StudyDirection.MAXIMIZE], "new"),
        lambda: studies.create_new_trial(there),
        lambda: studies.set_study_user_attr(there, "a", 1),
        lambda: studies.set_trial_state_values(1, TrialState.FAIL),
    ):
        with pytest.raises(HTTPError) as raised:
            change()
        assert raised.value.status_code == 403


@pytest.mark.parametrize("number", [-1, 0, 99, 2**31, 10**30])
def test_a_number_that_nothing_has_is_not_found(site: Site, number: int) -> None:
    for path in ("/api/studies/{}", "/csv/{}", "/api/studies/{}/plot/edf", "/artifacts/{}/a", "/artifacts/1/{}/a"):
        assert site.get(path.format(number)).status == 404, path
    assert site.ask("DELETE", f"/api/studies/{number}").status == 404
    assert site.ask("POST", f"/api/trials/{number}/tell", {"state": "Fail"}).status == 404


def test_a_study_cannot_be_renamed(site: Site, store: Store) -> None:
    for ending in ("rename", "rename/", "ren%FFame"):
        said = site.ask("POST", f"/api/studies/{ids(store)['digits']}/{ending}", {"study_name": "new"})
        assert (said.status, "cannot be renamed" in said.body.decode()) == (403, True)
    assert set(ids(store)) == {"digits", "digits/confirm", "other/study"}


def test_a_note_is_kept(site: Site, store: Store) -> None:
    path = f"/api/studies/{ids(store)['digits']}"
    assert site.ask("PUT", f"{path}/note", {"version": 1, "body": "look at trial 3"}).status == 204
    assert site.get(path).json["note"] == {"version": 1, "body": "look at trial 3"}


def test_an_artifact_that_was_lost_is_not_found(site: Site, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    study = optuna.load_study(study_name="digits", storage=store.database.storage)
    artifact = optuna.artifacts.upload_artifact(
        artifact_store=store.artifacts, file_path=str(tmp_path / "a.txt"), study_or_trial=study
    )
    store.artifacts.remove(artifact)
    said = site.get(f"/artifacts/{study._study_id}/{artifact}")
    assert (said.status, said.body) == (404, b"there is no such artifact\n")


def test_a_database_that_goes_away_and_comes_back(
    serve: Serve, postgresql: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(postgresql, str(tmp_path / "artifacts")) as store:
        fill(store)
        site = serve(store)
        assert site.listed() == ["digits", "other/study"]
        name = store.url.database
        elsewhere = postgresql.replace(f"/{name}?", "/postgres?")
        with psycopg.connect(elsewhere, autocommit=True) as connection, caplog.at_level(logging.WARNING):
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            said = site.get("/api/studies")
            assert said.status == 503
            assert said.json == {"reason": "the database does not answer: try again later"}
            said = site.get("/csv/1")
            assert (said.status, said.body) == (503, b"the database does not answer: try again later\n")
            assert site.get("/dashboard").status == 200
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            assert site.listed() == ["digits", "other/study"]
            assert site.ask("DELETE", f"/api/studies/{ids(store)['digits']}").status == 204
    said_by_us = [record for record in caplog.records if record.name.startswith("sweetspot.report")]
    assert [record.getMessage().split(" (")[0] for record in said_by_us] == [
        "the database does not answer", "the database answers again",
    ]  # fmt: skip
    assert not [record for record in caplog.records if record.exc_info]
