"""What a trial carries for the dashboard: its note, its pictures, and what becomes of them."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image
from tiny_study import tiny_config

from sweetspot.report.dashboard.attributes import Attributes, artifact_path, in_transaction, note_keys
from sweetspot.report.dashboard.trials import describe_trial
from sweetspot.store import ClassSimilarity, Measurement, Store, Student
from sweetspot.store.trajectories import MEASURES
from sweetspot.study.deletion import delete_study
from sweetspot.study.findings import Findings
from sweetspot.study.space import Point

from .conftest import Serve

CLASSES = ("<b>cat</b>", "$dog$", "a class with a very long name indeed")


def findings(**changed: Any) -> Findings:
    values = dict.fromkeys(MEASURES, 0.25) | {"similarity_entropy": 0.75}
    given: dict[str, Any] = {
        "point": Point(64, 20),
        "steps": 340,
        "epoch": 20,
        "temperature": 4.0,
        "measurements": {
            "train": Measurement(20, 4.0, "train", True, values),
            "validation": Measurement(20, 4.0, "validation", True, values | {"accuracy": 0.875}),
        },
        "similarity": ClassSimilarity(np.full((3, 3), 1 / 3, np.float32), np.array([9, 90, 90])),
        "students": tuple(
            Student("d", "search", i, "n", 0.5 + i / 10, {"loss": [2.0, 1.0], "accuracy": [0.3, 0.5]}, 1.0, "")
            for i in range(2)
        ),
        "classes": CLASSES,
        "spent": {
            "epochs_trained": 15,
            "epochs_reused": 5,
            "student_epochs": 4,
            "device": "cpu",
            "seconds": {"teacher": 3.21, "measuring": 0.5, "waiting": 0.0, "students": 7.0},
        },
        "ended": None,
    }
    return Findings(**given | changed)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/study.db") as store:
        store.studies.add("n", tiny_config(), "0" * 64)
        optuna.create_study(study_name="n", storage=store.database.storage, direction="maximize")
        yield store


def told(store: Store, found: Findings) -> optuna.Trial:
    """A trial that is under way, described."""
    trial = optuna.load_study(study_name="n", storage=store.database.storage).ask()
    describe_trial(store, trial, found)
    return trial


def shown(store: Store, serve: Serve, trial: optuna.Trial) -> dict[str, Any]:
    """The trial as the dashboard's page gets it."""
    trials = serve(store).get(f"/api/studies/{trial.study._study_id}").json["trials"]
    return next(each for each in trials if each["trial_id"] == trial._trial_id)


def test_a_trials_note_has_its_numbers_and_shows_its_pictures(store: Store, serve: Serve) -> None:
    trial = told(store, findings())
    said = shown(store, serve, trial)
    note = said["note"]["body"]
    for words in (
        "### batch 64, 20 epochs: 55.00 %\n",
        "| teacher steps | 340 |",
        "| teacher accuracy | 87.50 % on the validation split |",
        "| S, similarity entropy | 0.7500 nats at T = 4: ",
        "| N, similarity information | 0.2500 nats",
        "| M, delivered similarity | 0.2500 nats",
        "| students | 55.00 % ± 7.07 %: mean of 2 on the validation split |",
        "| each student | 50.00 %, 60.00 % |",
        "| teacher epochs | 15 trained, 5 reused |",
        "| seconds | teacher 3.2, measuring 0.5, waiting 0.0, students 7.0 (on cpu) |",
    ):
        assert words in note
    assert sorted((each["filename"], each["mimetype"]) for each in said["artifacts"]) == [
        ("class-similarity.png", "image/png"),
        ("students.png", "image/png"),
    ]
    site = serve(store)
    for each in said["artifacts"]:
        path = f"/artifacts/{trial.study._study_id}/{trial._trial_id}/{each['artifact_id']}"
        assert f"]({path})" in note
        answer = site.get(path)
        assert Image.open(io.BytesIO(answer.body)).format == "PNG"
        assert len(answer.body) < 100_000


def test_a_trial_that_ended_early_says_why_and_up_to_where_it_got(store: Store, serve: Serve) -> None:
    why = "similarity entropy 0.2 | <script>alert(1)</script> http://evil.example"
    trial = told(store, findings(students=(), epoch=5, ended=why))
    said = shown(store, serve, trial)
    assert "### batch 64, 20 epochs: no students" in said["note"]["body"]
    assert "| measured at epoch | 5 |" in said["note"]["body"]
    assert "| ended | Similarity entropy 0.2 \\| \\<script\\>alert(1)\\</script\\>" in said["note"]["body"]
    assert "http://" not in said["note"]["body"].replace("\\", "")
    assert [each["filename"] for each in said["artifacts"]] == ["class-similarity.png"]


def test_a_trial_of_which_nothing_was_measured_has_a_note_all_the_same(store: Store, serve: Serve) -> None:
    nothing = findings(students=(), epoch=0, measurements={}, similarity=None, ended="not finite")
    said = shown(store, serve, told(store, nothing))
    assert "| teacher epochs | 15 trained, 5 reused |" in said["note"]["body"]
    assert said["artifacts"] == []


def test_a_very_long_reason_is_cut(store: Store, serve: Serve) -> None:
    said = shown(store, serve, told(store, findings(students=(), ended="x" * 10_000)))
    assert f"| ended | X{'x' * 1998}… |" in said["note"]["body"]


def test_what_somebody_has_written_of_a_trial_stays_above(store: Store, serve: Serve) -> None:
    trial = optuna.load_study(study_name="n", storage=store.database.storage).ask()
    site = serve(store)
    path = f"/api/studies/{trial.study._study_id}/{trial._trial_id}/note"
    assert site.ask("PUT", path, {"version": 1, "body": "Why so slow?"}).status == 204
    describe_trial(store, trial, findings())
    note = shown(store, serve, trial)["note"]
    assert note["body"].startswith("Why so slow?\n\n### ")
    assert site.ask("PUT", path, {"version": note["version"] + 1, "body": "Later."}).status == 204


def test_a_picture_that_cannot_be_drawn_or_kept_is_left_out(
    store: Store, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(store.artifacts_url) / "optuna"
    folder.write_text("no folder")  # root may write anywhere
    with caplog.at_level(logging.WARNING):
        trial = told(store, findings())
    assert "has no picture students.png" in caplog.text
    folder.unlink()
    crooked = findings(similarity=ClassSimilarity(np.zeros((2, 3), np.float32), np.array([1])))
    with caplog.at_level(logging.WARNING):
        described = told(store, crooked)
    assert "has no picture class-similarity.png" in caplog.text
    assert "teacher steps" in shown(store, serve, trial)["note"]["body"]
    assert "students.png" in json.dumps(shown(store, serve, described)["artifacts"])


def test_a_trial_that_was_taken_away_is_not_described(store: Store) -> None:
    study = optuna.load_study(study_name="n", storage=store.database.storage)
    trial = study.ask()
    study.tell(trial.number, state=TrialState.FAIL)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        describe_trial(store, trial, findings())


def test_deleting_a_study_removes_the_pictures_of_its_trials_even_where_some_are_gone(store: Store) -> None:
    for _ in range(2):
        told(store, findings())
    pictures = list(Path(store.artifacts_url, "optuna").iterdir())
    assert len(pictures) == 4
    pictures[0].unlink()
    record = store.studies.get("n")
    assert record is not None
    delete_study(store, record)
    assert list(Path(store.artifacts_url, "optuna").iterdir()) == []


def test_the_dashboard_deletes_a_study_whose_pictures_are_gone(store: Store, serve: Serve) -> None:
    trial = told(store, findings())
    for picture in Path(store.artifacts_url, "optuna").iterdir():
        picture.unlink()
    site = serve(store)
    assert site.ask("DELETE", f"/api/studies/{trial.study._study_id}").status == 204
    assert site.listed() == []


def test_many_trials_have_each_its_own_note(store: Store, serve: Serve) -> None:
    study = optuna.load_study(study_name="n", storage=store.database.storage)
    trials = [study.ask() for _ in range(30)]
    for trial in trials:
        _, body = note_keys(trial._trial_id)
        version, _ = note_keys(trial._trial_id)

        def write(a: Attributes, body: str = body, version: str = version, number: int = trial.number) -> None:
            a.set(version, 1)
            a.set_text(body, f"this is {number}")

        in_transaction(store, study._study_id, write)
    site = serve(store)
    path = f"/api/studies/{study._study_id}"
    for after in (0, 25):  # many are read at once, few one by one
        notes = [each["note"]["body"] for each in site.get(f"{path}?after={after}").json["trials"]]
        assert notes == [f"this is {number}" for number in range(after, 30)]


# -- on any database --------------------------------------------------------------------------------------------------


def test_texts_of_any_length_are_read_back_as_optuna_dashboard_reads_them(storage: str, tmp_path: Path) -> None:
    with Store(storage, str(tmp_path / "artifacts")) as store:
        study = optuna.create_study(study_name="n", storage=store.database.storage)
        _, key = note_keys(None)
        for text in ("one", "雪" * 25_000, "\\\"'\n" * 9_000, "x", ""):
            in_transaction(store, study._study_id, lambda a, text=text: a.set_text(key, text))  # type: ignore[misc]
            assert in_transaction(store, study._study_id, lambda a: a.text(key)) == text
            in_transaction(store, study._study_id, lambda a: a.set(note_keys(None)[0], 3))
            assert optuna_dashboard_note(study) == text


def optuna_dashboard_note(study: optuna.Study) -> str:
    from optuna_dashboard import get_note

    return get_note(study)


def test_half_of_a_change_is_never_seen(storage: str, tmp_path: Path) -> None:
    with Store(storage, str(tmp_path / "artifacts")) as store:
        study = optuna.create_study(study_name="n", storage=store.database.storage)

        def change(attributes: Attributes) -> None:
            attributes.set("a", 1)
            attributes.set_text("b:", "x" * 30_000)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            in_transaction(store, study._study_id, change)
        assert store.database.storage.get_study_system_attrs(study._study_id) == {}


def test_pictures_are_where_optuna_dashboard_serves_them(store: Store) -> None:
    from optuna_dashboard.artifact import get_artifact_path

    trial = optuna.create_study(storage=store.database.storage).ask()
    assert artifact_path(trial, "abc") == get_artifact_path(trial, "abc")
