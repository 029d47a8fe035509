"""Devices: how they are named, set up and described."""

import os
from collections.abc import Iterator

import pytest
import torch

from sweetspot.config import RunConfig
from sweetspot.errors import UserError
from sweetspot.training import device
from sweetspot.training.device import describe, devices, prepare, resolve_precision


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with as many GPUs as the test asks for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize(
    ("gpus", "text", "found"),
    [
        (0, "auto", ["cpu"]),
        (0, "cpu", ["cpu"]),
        (2, "auto", ["cuda:0", "cuda:1"]),
        (2, "cuda", ["cuda:0", "cuda:1"]),
        (2, "cuda:1", ["cuda:1"]),
        (3, "cuda:0, cuda:2", ["cuda:0", "cuda:2"]),
        (2, "cpu", ["cpu"]),
        (2, "cpu,cpu", ["cpu", "cpu"]),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_the_devices_that_a_text_names(text: str, found: list[str]) -> None:
    assert devices(text) == found


@pytest.mark.parametrize(
    ("gpus", "text", "message"),
    [
        (0, "cuda", "torch sees no CUDA device here; use --device auto or --device cpu"),
        (0, "cuda:0", "torch sees no CUDA device here"),
        (1, "cuda:1", "this machine has 1 CUDA device;"),
        (2, "cuda:0,cuda:7", "--device cuda:7: this machine has 2 CUDA devices;"),
        (1, "tpu", "--device 'tpu': give auto, cpu, cuda or cuda:0,cuda:1"),
        (1, "cuda:-1", "--device 'cuda:-1': give"),
        (1, "cuda:x", "--device 'cuda:x': give"),
        (1, "cpu:0", "--device 'cpu:0': give"),
        (1, "", "--device '': give"),
        (1, "cuda:0,", "--device '': give"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_a_device_that_is_not_there_is_refused_with_what_is(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        devices(text)


@pytest.mark.parametrize(("hardware", "found"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, hardware: bool, found: str
) -> None:
    monkeypatch.setattr(device, "_has_bfloat16", lambda chosen: hardware)
    assert resolve_precision("auto", "cpu") == found


def test_a_precision_that_is_given_is_kept() -> None:
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_this_machines_cpu_is_probed_and_described() -> None:
    assert resolve_precision("auto", "cpu") in ("float32", "bfloat16")
    assert describe("cpu").startswith("CPU (")


def test_a_cpu_worker_has_one_intra_op_thread() -> None:
    assert prepare("cpu", RunConfig()) == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def settings_of_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("settings_of_torch")
def test_deterministic_kernels_are_asked_for_where_the_study_does() -> None:
    prepare("cpu", RunConfig(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
