"""The report of a study of two thousand trials; how long it takes is measured by ``python -m benchmarks.report``."""

from pathlib import Path

from benchmarks.report import measure


def test_a_report_of_two_thousand_trials_is_five_megabytes_at_most(tmp_path: Path) -> None:
    found = measure(tmp_path, trials=2000, rounds=1)
    assert len(found["seconds"]) == 1
    assert 100_000 < found["bytes"] < 5_000_000
