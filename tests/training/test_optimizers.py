"""Optimisers: torch's own, step by step, with a state that survives storage."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot import config
from sweetspot.models import build
from sweetspot.training.optimizers import load_state_tensors, optimizer, state_tensors
from sweetspot.training.weights import from_bytes, to_bytes

Digits = tuple[Tensor, Tensor]
OPTIONS = {
    "sgd": config.SGD(),
    "sgd without nesterov": config.SGD(nesterov=False, weight_decay=0),
    "sgd without momentum": config.SGD(nesterov=False, momentum=0),
    "adamw": config.AdamW(),
    "adamw, other betas": config.AdamW(lr=0.01, betas=(0.5, 0.9), weight_decay=0.1),
}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def network() -> nn.Module:
    torch.manual_seed(0)
    model = build("convnet-narrow", classes=10, channels=1, image_size=8)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def step(model: nn.Module, optim: torch.optim.Optimizer, digits: Digits, number: int) -> None:
    """The optimiser's step on the batch of this number, with a learning rate of its own."""
    batch = slice(number * 50, (number + 1) * 50)
    for group in optim.param_groups:
        group["lr"] = 0.01 * (number + 1)
    optim.zero_grad()
    F.cross_entropy(model(digits[0][batch]), digits[1][batch]).backward()
    optim.step()


def weights(model: nn.Module) -> bytes:
    return to_bytes(model.state_dict())


@options
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
def test_every_step_is_that_of_torchs_optimiser(
    digits: Digits, options: config.SGD | config.AdamW, fused: bool
) -> None:
    mine = network()
    torchs = copy.deepcopy(mine)
    kind = torch.optim.SGD if isinstance(options, config.SGD) else torch.optim.AdamW
    reference = kind(torchs.parameters(), **options.model_dump(exclude={"name"}), fused=fused)
    optim = optimizer(mine, options)
    for number in range(6):
        step(mine, optim, digits, number)
        step(torchs, reference, digits, number)
        if fused:
            assert weights(mine) == weights(torchs)
        else:
            for a, b in zip(mine.parameters(), torchs.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@options
def test_a_state_that_was_stored_continues_bit_for_bit(digits: Digits, options: config.SGD | config.AdamW) -> None:
    model = network()
    optim = optimizer(model, options)
    for number in range(3):
        step(model, optim, digits, number)

    resumed = network()
    resumed.load_state_dict(model.state_dict())
    resumed_optim = optimizer(resumed, options)
    load_state_tensors(resumed_optim, resumed, from_bytes(to_bytes(state_tensors(optim, model))))

    for number in range(3, 6):
        step(model, optim, digits, number)
        step(resumed, resumed_optim, digits, number)
        assert weights(resumed) == weights(model)
    assert to_bytes(state_tensors(resumed_optim, resumed)) == to_bytes(state_tensors(optim, model))


def test_a_state_has_a_name_for_every_tensor(digits: Digits) -> None:
    model = network()
    optim = optimizer(model, config.AdamW())
    step(model, optim, digits, 0)
    step(model, optim, digits, 1)
    state = state_tensors(optim, model)
    assert state.keys() == {
        f"{name}/{entry}" for name, _ in model.named_parameters() for entry in ("step", "exp_avg", "exp_avg_sq")
    }
    assert state["bn1.weight/step"].item() == 2
    assert all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in state.values())


def test_an_optimiser_that_has_not_stepped_and_one_without_momentum_have_no_state(digits: Digits) -> None:
    model = network()
    assert state_tensors(optimizer(model, config.SGD()), model) == {}
    plain = optimizer(model, config.SGD(nesterov=False, momentum=0))
    step(model, plain, digits, 0)
    assert state_tensors(plain, model) == {}


def test_a_state_is_loaded_in_the_layout_of_its_parameter(digits: Digits) -> None:
    model = network()
    optim = optimizer(model, config.SGD())
    step(model, optim, digits, 0)
    resumed = network()
    other = optimizer(resumed, config.SGD())
    load_state_tensors(other, resumed, state_tensors(optim, model))
    buffer = other.state[resumed.conv2.weight]["momentum_buffer"]
    assert buffer.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(buffer, optim.state[model.conv2.weight]["momentum_buffer"])


def test_to_make_an_optimiser_and_to_train_with_it_imports_no_compiler() -> None:
    """torch's own optimisers import one at their first call: 3.5 s of a process that compiles nothing."""
    code = """if True:
        import sys
        import torch
        from sweetspot import config
        from sweetspot.training.engine import Training
        from sweetspot.training.optimizers import optimizer
        for options in (config.SGD(), config.AdamW()):
            model = torch.nn.Linear(2, 2)
            training = Training(
                model, optimizer(model, options), lambda logits, labels: logits.sum(),
                batch_size=2, precision="float32", seed=0,
            )
            training.epoch(torch.ones(4, 2), (torch.zeros(4),), [0.1, 0.1], 0)
        print("torch._dynamo.convert_frame" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
