"""All time of a trial is attributed, once, and the shares are of what they say."""

import json
from pathlib import Path

import pytest

from benchmarks.overhead import PARTS, Rates, Reading, main, noise, overheads, run, study, summary
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.study.search import load
from sweetspot.training.device import prepare

TINY = ("teacher.model=mlp", "student.model=mlp", "student.epochs=2", "search.epochs=[1,2,3]")

pytestmark = pytest.mark.ci


def tiny(folder: Path, trials: int) -> StudyConfig:
    return study(noise(folder / "noise.npz", 400, 8), TINY, search__trials=trials)


def test_overhead_is_what_no_network_had() -> None:
    before = Reading(10.0, 1.0, {"teacher": 4.0, "database": 1.0}, {"teacher": 3}, in_epochs=0.5)
    spans = {"teacher": 9.0, "views": 2.0, "measuring": 1.0, "database": 1.5, "dashboard": 0.25, "waiting": 0.125}
    trial = Reading(20.0, 1.5, spans, {"teacher": 13, "students": 4}, in_epochs=1.0).since(before)
    assert (trial.wall, trial.networks, trial.measurements, trial.beside_networks) == (10.0, 7.0, 1.0, 2.0)
    assert trial.overhead == {"database": 0.5, "artifacts": 0.0, "dashboard": 0.25, "threads": 0.5, "other": 1.25}
    assert (trial.epochs, trial.in_epochs) == ({"teacher": 10, "students": 4}, 0.5)


def test_the_first_trial_stands_by_itself_and_the_share_is_of_thirty_seconds() -> None:
    def trial(database: float, epochs: int) -> Reading:
        return Reading(2.0, 0.0, {"teacher": 2.0 - database, "database": database}, {"teacher": epochs}, 0.1)

    found = summary([trial(1.5, 4), trial(0.25, 4), trial(0.35, 0)])
    assert found["trials"] == 3
    assert found["first_trial"]["overhead_seconds"]["total"] == 1.5
    later = found["later_trials"]
    assert later["overhead_seconds"] == {**dict.fromkeys(PARTS, 0.0), "database": 0.3, "total": 0.3}
    assert later["share_of_a_trial"] == 0.01
    assert (later["teacher_epochs"], later["of_it_seconds_per_teacher_epoch"]) == (2.0, 0.05)


def test_shares_of_an_epoch_are_those_of_the_full_size() -> None:
    """The BatchNorm pass sees 100 batches, or all images once where they are fewer."""
    measuring, batchnorm = Rates(64, training=3e-3, measuring=1e-3, batchnorm=1.5e-3).shares
    assert measuring == pytest.approx(10_000 / (3 * 44_992))
    assert batchnorm == pytest.approx(6_400 / (2 * 44_992))
    assert Rates(512, training=3e-3, measuring=1e-3, batchnorm=1.5e-3).shares[1] == pytest.approx(1 / 2)


def test_a_real_worker_is_accounted_for(tmp_path: Path) -> None:
    config = tiny(tmp_path, 3)
    data = load_study_data(config, tmp_path, prepare("cpu", config.run))
    with Store(f"sqlite:///{tmp_path}/study.db", str(tmp_path / "artifacts")) as store:
        found = run(store, config, data)
        trials = load(store, "overhead").get_trials(deepcopy=False)
    assert [trial.epochs.get("teacher", 0) for trial in found] == [t.user_attrs["epochs_trained"] for t in trials]
    assert [trial.epochs.get("students", 0) for trial in found] == [t.user_attrs["student_epochs"] for t in trials]
    for trial in found:
        seconds = trial.overhead
        assert all(seconds[part] >= 0 for part in PARTS)
        assert min(seconds["database"], seconds["artifacts"], seconds["dashboard"], trial.networks) > 0
        spent = sum(seconds.values()) - seconds["threads"] + trial.networks + trial.measurements
        assert spent == pytest.approx(trial.wall)
        assert 0 <= trial.in_epochs <= trial.beside_networks


def test_postgresql_is_measured_likewise(tmp_path: Path) -> None:
    config = tiny(tmp_path, 2)
    ((kind, found),) = overheads(config, ["postgresql"], tmp_path)
    assert kind == "postgresql"
    assert found["later_trials"]["overhead_seconds"]["database"] > 0


def test_the_command_says_and_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [part for value in TINY for part in ("--set", value)]
    file = tmp_path / "overhead.json"
    main(
        [
            "--databases",
            "sqlite",
            "--trials",
            "2",
            "--teacher",
            "mlp",
            "--images",
            "1024",
            "--json",
            str(file),
            *settings,
        ]
    )
    said = capsys.readouterr().out
    assert "the goal of 2 % of a trial of 30 s" in said
    assert "BatchNorm" in said
    found = json.loads(file.read_text())
    assert (found["benchmark"], found["goal"], found["trial_seconds"]) == ("overhead", 0.02, 30.0)
    assert set(found["overhead"]) == {"sqlite"}
    assert set(found["overhead"]["sqlite"]["later_trials"]["overhead_seconds"]) == {*PARTS, "total"}
    assert [case["batch_size"] for case in found["measuring"]["cases"]] == [64, 512]
    assert all(case["measuring_share_of_an_epoch"] > 0 for case in found["measuring"]["cases"])


def test_a_database_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--databases", "sqlite,oracle"])
    assert capsys.readouterr().err == "error: --databases oracle: give sqlite, postgresql, or both\n"
