"""The epoch engine, held against plain PyTorch."""

import copy
import itertools
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot import config
from sweetspot.config import Precision
from sweetspot.data.seeding import seed_of
from sweetspot.models import build
from sweetspot.training.engine import (
    BATCHNORM_BATCHES,
    DivergedError,
    Training,
    epoch_order,
    evaluation_batch,
    recompute_batchnorm,
    respond,
)
from sweetspot.training.optimizers import optimizer
from sweetspot.training.weights import to_bytes

Digits = tuple[Tensor, Tensor]
CPU = torch.device("cpu")


def network(name: str = "convnet-narrow") -> nn.Module:
    torch.manual_seed(0)
    return build(name, classes=10, channels=1, image_size=8)


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network("mlp")
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(self.dropout(x))
        return out


def train(
    model: nn.Module,
    digits: Digits,
    *,
    epochs: int = 1,
    batch_size: int = 100,
    lr: float = 0.1,
    seed: int = 0,
    first: int = 0,
    precision: Precision = "float32",
) -> list[float]:
    """The losses of some epochs of plain SGD."""
    images, labels = digits
    sgd = optimizer(model, config.SGD(momentum=0, nesterov=False))
    training = Training(model, sgd, cross_entropy, batch_size=batch_size, precision=precision, seed=seed)
    lrs = [lr] * (len(images) // batch_size)
    return [training.epoch(images, (labels,), lrs, first + epoch) for epoch in range(epochs)]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels)


def in_order(images: Tensor) -> Tensor:
    return torch.arange(len(images))


def weights(model: nn.Module) -> bytes:
    return to_bytes(model.state_dict())


# -- an epoch ---------------------------------------------------------------------------------------------------------


def plain_pytorch(model: nn.Module, optim: torch.optim.Optimizer, digits: Digits, lrs: Sequence[float]) -> list[float]:
    """Two epochs as a tutorial would write them, in the order that the engine's seed gives."""
    images, labels = digits
    means = []
    for epoch in range(2):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed_of(7, "order", epoch)))
        torch.manual_seed(seed_of(7, "dropout", epoch))
        model.train()
        total = 0.0
        for step, lr in enumerate(lrs):
            batch = order[step * 64 : (step + 1) * 64]
            for group in optim.param_groups:
                group["lr"] = lr
            optim.zero_grad()
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optim.step()
            total += loss.item()
        means.append(total / len(lrs))
    return means


@pytest.mark.parametrize("name", ["convnet-narrow", "mlp", "with dropout"])
@pytest.mark.parametrize("options", [config.SGD(), config.AdamW()], ids=["sgd", "adamw"])
def test_an_epoch_equals_plain_pytorch_step_for_step(
    digits: Digits, name: str, options: config.SGD | config.AdamW
) -> None:
    images, labels = digits
    mine = WithDropout() if name == "with dropout" else network(name)
    plain = copy.deepcopy(mine)
    lrs = [options.lr * (1 - step / 40) for step in range(len(images) // 64)]
    optim = optimizer(mine, options)
    training = Training(mine, optim, cross_entropy, batch_size=64, precision="float32", seed=7)
    losses = [training.epoch(images, (labels,), lrs, epoch) for epoch in range(2)]
    values = options.model_dump(exclude={"name"})
    kind = torch.optim.SGD if isinstance(options, config.SGD) else torch.optim.AdamW
    assert losses == pytest.approx(plain_pytorch(plain, kind(plain.parameters(), **values, fused=True), digits, lrs))
    assert weights(mine) == weights(plain)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_learns(digits: Digits, precision: Precision) -> None:
    model = network("mlp")
    losses = train(model, digits, epochs=4, batch_size=32, precision=precision)
    assert losses == sorted(losses, reverse=True)
    assert (respond(model, digits[0], precision).argmax(1) == digits[1]).float().mean() > 0.9
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_bfloat16_is_another_arithmetic_with_nearly_the_same_loss(digits: Digits) -> None:
    (wide,), (narrow,) = train(network(), digits), train(network(), digits, precision="bfloat16")
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.02)


def test_the_last_partial_batch_is_dropped(digits: Digits) -> None:
    images, labels = digits
    assert len(images) == 1397
    seen: list[Tensor] = []

    def loss(logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        seen.append(index)
        return F.cross_entropy(logits, labels)

    model = network("mlp")
    training = Training(model, optimizer(model, config.SGD()), loss, batch_size=256, precision="float32", seed=0)
    training.epoch(images, (labels, torch.arange(len(images))), [0.1] * 5, 0)
    assert [len(batch) for batch in seen] == [256] * 5
    assert len(torch.cat(seen).unique()) == 5 * 256


def test_a_batch_and_its_indices_are_of_the_same_images(digits: Digits) -> None:
    images, _ = digits

    class Identity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * self.scale

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        assert torch.equal(logits, images[index].flatten(1))
        return logits.sum() * 0

    model = Identity()
    sgd = optimizer(model, config.SGD(weight_decay=0))
    training = Training(model, sgd, loss, batch_size=100, precision="float32", seed=0)
    training.epoch(images, (torch.arange(len(images)),), [0.1] * 13, 0)


def test_every_epoch_has_its_own_order_of_all_images() -> None:
    orders = [epoch_order(50, 10, seed, epoch, CPU) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    assert torch.equal(orders[0], epoch_order(50, 10, 0, 0, CPU))


def test_all_that_is_random_follows_from_the_seed_and_the_epoch_alone(digits: Digits) -> None:
    """Order and dropout; neither what was drawn before nor what state torch is in matters."""

    def after(global_seed: int, *, seed: int = 3, epoch: int = 5) -> bytes:
        model = WithDropout()
        torch.manual_seed(global_seed)
        train(model, digits, seed=seed, first=epoch)
        return weights(model)

    assert after(0) == after(1)
    assert after(0) != after(0, seed=4)
    assert after(0) != after(0, epoch=6)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training(digits: Digits, poison: float) -> None:
    images = digits[0].clone()
    images[17] = poison
    with pytest.raises(DivergedError, match="loss not finite in epoch 3 at learning rate") as caught:
        train(network("mlp"), (images, digits[1]), first=2, batch_size=127)
    assert (caught.value.epoch, caught.value.lr) == (3, 0.1)


def test_an_absurd_learning_rate_diverges(digits: Digits) -> None:
    with pytest.raises(DivergedError, match="at learning rate 1e\\+30"):
        train(network("mlp"), digits, lr=1e30)


# -- responses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["convnet-narrow", "mlp"])
def test_a_response_is_the_logits_in_evaluation_mode(digits: Digits, name: str, precision: Precision) -> None:
    model = network(name)
    train(model, digits)
    before = weights(model)
    response = respond(model, digits[0], precision)
    assert response.shape == (1397, 10)
    assert response.dtype == torch.float32
    assert not response.requires_grad
    assert not model.training
    assert weights(model) == before
    with torch.no_grad():
        expected = model.eval()(digits[0])
    torch.testing.assert_close(response, expected, rtol=0, atol=1e-4 if precision == "float32" else 0.1)


def test_a_response_does_not_depend_on_the_other_images(digits: Digits) -> None:
    model = network()
    train(model, digits)
    assert len(digits[0]) > evaluation_batch(digits[0])
    whole = respond(model, digits[0], "float32")
    for part in (slice(0, 1), slice(3, 20), slice(990, 1397)):
        torch.testing.assert_close(respond(model, digits[0][part], "float32"), whole[part], rtol=1e-4, atol=1e-5)


# -- BatchNorm --------------------------------------------------------------------------------------------------------


def test_recomputed_statistics_are_the_average_of_the_batches_statistics(digits: Digits) -> None:
    model = network()
    train(model, digits)
    inputs: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            inputs[name] = []
            module.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0]))
    recompute_batchnorm(model, digits[0], in_order(digits[0]), 200, "float32")
    assert inputs.keys() == {"bn1", "bn2", "bn3"}
    for name, batches in inputs.items():
        layer = model.get_submodule(name)
        assert [len(batch) for batch in batches] == [200] * 6
        mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        variance = torch.stack([batch.var((0, 2, 3), unbiased=True) for batch in batches]).mean(0)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, variance)


def test_recomputed_statistics_forget_what_was_there(digits: Digits) -> None:
    model, other = network(), network()
    for layer in other.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(5)
            layer.running_var.fill_(100)
    for each in (model, other):
        recompute_batchnorm(each, digits[0], in_order(digits[0]), 100, "float32")
    assert weights(model) == weights(other)


def test_recomputing_changes_statistics_and_nothing_else(digits: Digits) -> None:
    model = network()
    train(model, digits)
    model.bn1.momentum = 0.3
    before = copy.deepcopy(model.state_dict())
    recompute_batchnorm(model, digits[0], in_order(digits[0]), 100, "float32")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name.split(".")[-1] for name in changed} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert [layer.momentum for layer in (model.bn1, model.bn2, model.bn3)] == [0.3, 0.1, 0.1]
    assert not any(module.training for module in model.modules())


def test_at_most_a_hundred_batches_are_used(digits: Digits) -> None:
    few, all_of_them = network(), network()
    recompute_batchnorm(
        few, digits[0][: BATCHNORM_BATCHES * 4], in_order(digits[0][: BATCHNORM_BATCHES * 4]), 4, "float32"
    )
    recompute_batchnorm(all_of_them, digits[0], in_order(digits[0]), 4, "float32")
    assert all_of_them.bn1.num_batches_tracked == BATCHNORM_BATCHES == 100
    assert weights(few) == weights(all_of_them)


def test_fewer_images_than_a_batch_are_one_batch(digits: Digits) -> None:
    model = network()
    recompute_batchnorm(model, digits[0][:20], in_order(digits[0][:20]), 64, "float32")
    assert model.bn1.num_batches_tracked == 1


def test_a_model_without_batchnorm_is_left_alone(digits: Digits) -> None:
    model = network("mlp")
    before = weights(model)
    recompute_batchnorm(model, digits[0], in_order(digits[0]), 100, "float32")
    assert weights(model) == before
    assert not model.training
