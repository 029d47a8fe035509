"""The benchmark of where a step's time goes."""

import json
from pathlib import Path

import pytest

from benchmarks.step_profile import REST, main, shares


def test_shares_are_of_all_time_and_what_has_no_kind_is_the_rest() -> None:
    found = shares({"aten::mkldnn_convolution": 6.0, "aten::add": 1.0, "aten::add_": 1.0, "aten::lerp": 2.0})
    assert found == {"convolutions": 0.6, "additions": 0.2, REST: 0.2}


def test_a_small_form_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    main(["--teacher", "resnet8", "--student", "resnet8", "--batch-size", "8", "--steps", "2", "--json", str(file)])
    result = json.loads(file.read_text())
    for part in ("student_step", "teacher_response"):
        assert result[part]["milliseconds"] > 0
        assert sum(result[part]["shares"].values()) == pytest.approx(1, abs=0.01)
        assert result[part]["shares"]["convolutions"] > 0.05
    assert result["student_step"]["shares"]["convolutions, backward"] > 0.05
    assert "a step of resnet8" in capsys.readouterr().out


def test_an_unknown_network_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--teacher", "resnet57"])
    assert capsys.readouterr().err.startswith("error: unknown model 'resnet57'")
