"""What a study will cost, for people."""

from sweetspot.report.estimate import estimate_text, side_by_side
from sweetspot.study.estimate import Cost, Estimate

PLAIN = Cost(teacher_epochs=12_340, student_epochs=28_800, disk_bytes=1_230_000_000, seconds=90_000.0)
SHARED = Cost(teacher_epochs=3_456, student_epochs=19_200, disk_bytes=4_560_000_000, seconds=30_000.0)
COST = Estimate(PLAIN, SHARED, per_teacher_epoch=1.0, per_student_epoch=0.5)


def test_the_sentence_is_one_line_with_the_figures_of_both_ways() -> None:
    said = estimate_text(COST, "40 trials of 1 to 3 students", "CPU", 2)
    assert said == (
        "40 trials of 1 to 3 students on CPU, 2 workers: about 3,456 teacher epochs, 19,200 student epochs, "
        "4.56 GB of disk, 8.3 h (the plain way, each trial by itself: 12,340 teacher epochs, 28,800 student epochs, "
        "25.0 h)."
    )


def test_only_a_study_that_takes_days_as_it_is_done_here_is_warned_of() -> None:
    assert "days" not in estimate_text(COST, "40 trials", "CPU", 1)
    assert "That is days on this device" in estimate_text(Estimate(PLAIN, PLAIN, 1.0, 0.5), "40 trials", "CPU", 1)


def test_the_table_has_both_ways_side_by_side_within_80_columns() -> None:
    lines = side_by_side(COST).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[:5]] == [
        ["plain", "shared"],
        ["teacher", "epochs", "12,340", "3,456"],
        ["student", "epochs", "28,800", "19,200"],
        ["disk,", "at", "most", "1.23", "GB", "4.56", "GB"],
        ["time", "25.0", "h", "8.3", "h"],
    ]
    assert len({len(line) for line in lines[:5]}) == 1


def test_programs_get_the_same_figures() -> None:
    values = COST.to_dict()
    assert values["plain"]["teacher_epochs"] == values["teacher_epochs_unshared"] == 12_340
    assert values["shared"]["seconds"] == values["seconds"] == 30_000.0
