"""Weights as bytes: what goes in comes out, and nothing else is loaded."""

import pickle

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from sweetspot.training.weights import from_bytes, load_weights, to_bytes


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def test_a_network_comes_back_bit_for_bit_with_its_buffers() -> None:
    model, other = network(), network()
    model(torch.randn(5, 2, 3, 3))  # moves the running statistics
    load_weights(other, to_bytes(model.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert other[1].num_batches_tracked == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5)])
def test_a_tensor_of_any_dtype_and_shape_comes_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    back = from_bytes(to_bytes({"a tensor/of mine": tensor}))["a tensor/of mine"]
    assert back.dtype == dtype
    assert back.shape == shape
    assert torch.equal(back, tensor)


def test_no_tensors_are_bytes_too() -> None:
    assert from_bytes(to_bytes({})) == {}


def test_equal_tensors_give_equal_bytes_whatever_their_layout_and_order() -> None:
    image = torch.randn(2, 3, 4, 5)
    plain = to_bytes({"a": image, "b": torch.ones(2)})
    assert plain == to_bytes({"b": torch.ones(2), "a": image.to(memory_format=torch.channels_last)})


def test_the_layout_of_the_network_that_loads_is_kept() -> None:
    model = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    load_weights(model, to_bytes(network().state_dict()))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(network(classes=4), to_bytes(network().state_dict()))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(network(), to_bytes(network()[:2].state_dict()))


@pytest.mark.parametrize("content", [b"", b"no safetensors", pickle.dumps({"weight": torch.ones(2)})])
def test_bytes_that_are_no_safetensors_are_refused_and_never_executed(content: bytes) -> None:
    with pytest.raises(SafetensorError):
        from_bytes(content)
