"""The candidates for several students at once, on a network of a second."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.students import CASES, Case, Loop, Stacked, Streams, main, measure, ways

CPU = torch.device("cpu")
TINY = Case("mlp-8", 8, 1, 8, 10, "float32")

pytestmark = pytest.mark.ci


def test_each_way_trains_the_same_students() -> None:
    loop, stacked = Loop(TINY, 3, CPU), Stacked(TINY, 3, CPU)
    start = {name: value.clone() for name, value in loop.first().items()}
    for way in (loop, stacked):
        way.run(3)
    alone = Loop(TINY, 1, CPU)
    alone.run(3)
    for name, value in stacked.first().items():
        torch.testing.assert_close(value, loop.first()[name], rtol=1e-4, atol=1e-6)
        assert torch.equal(loop.first()[name], alone.first()[name])
        assert not torch.equal(value, start[name])


def test_students_of_a_stack_differ() -> None:
    stacked = Stacked(TINY, 2, CPU)
    stacked.run(1)
    assert all(
        not torch.equal(values[0], values[1]) for name, values in stacked._parameters.items() if "weight" in name
    )


def test_a_measurement_says_how_long_and_whether_equal() -> None:
    found = measure(TINY, 2, 2, CPU)
    assert found.keys() == ways(CPU).keys() == {"loop", "stacked"}
    for of in found.values():
        low, high = of["ms_spread"]
        assert 0 < low <= of["ms"] <= high
    assert found["loop"]["bit_equal"]
    assert found["loop"]["bit_equal_to_loop"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_streams_train_what_the_loop_trains() -> None:
    device = torch.device("cuda:0")
    loop, streams = (way(TINY, 2, device) for way in (Loop, Streams))
    for way in (loop, streams):
        way.run(3)
    for name, value in streams.first().items():
        torch.testing.assert_close(value, loop.first()[name], rtol=1e-4, atol=1e-6)


def test_the_result_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cases", "mlp", "--students", "1,2", "--rounds", "1", "--device", "cpu", "--json", f"{tmp_path}/a.json"])
    result = json.loads((tmp_path / "a.json").read_text())
    assert {"command", "machine", "versions", "device"} <= result.keys()
    (case,) = result["cases"]
    assert case["network"] == "mlp"
    assert case["students"].keys() == {"1", "2"}
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cases", "resnet57"], f"no case 'resnet57'; there are {', '.join(CASES)}"),
        (["--students", "1,0"], "'0' is not a whole number of at least 1"),
        (["--device", "tpu"], "give auto, cpu, cuda"),
    ],
)
def test_bad_arguments_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ")
    assert words in said
    assert said.count("\n") == 1
