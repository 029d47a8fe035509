"""Steps that are recorded as a CUDA graph: when, and that they change nothing."""

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot import config
from sweetspot.models import build
from sweetspot.training import steps
from sweetspot.training.engine import Training
from sweetspot.training.optimizers import optimizer
from sweetspot.training.steps import GraphedStep, Step, step_for

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Batch = tuple[Tensor, Tensor]


@pytest.fixture
def batches() -> list[Batch]:
    torch.manual_seed(0)
    return [(torch.randn(8, 1, 8, 8), torch.randint(10, (8,))) for _ in range(12)]


class Recorded(GraphedStep):
    """Tells when it would have captured, and goes on without."""

    captures = 0
    can_capture = True
    _capture_seconds = 0.3

    def _capture(self, images: Tensor, targets: Sequence[Tensor]) -> bool:
        self.captures += 1
        return self.can_capture

    def _replay(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        return self._take(images, targets)


def recorded(kind: type[Recorded] = Recorded) -> Recorded:
    model = build("mlp", classes=10, channels=1, image_size=8)
    return kind(model, optimizer(model, config.SGD()), F.cross_entropy)


def captured_at(step: Recorded, batches: list[Batch], seconds: float, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The step that was recorded, where each takes so long."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    monkeypatch.setattr(steps.time, "perf_counter", clock)
    for i, (images, labels) in enumerate(batches):
        step(images, (labels,), 0.1)
        if step.captures:
            return i
    return None


@pytest.mark.parametrize(("seconds", "at"), [(0.01, None), (0.05, 6), (0.11, 3), (1.0, 3)])
def test_a_step_is_captured_once_the_steps_before_it_have_taken_as_long_as_a_capture(
    batches: list[Batch], seconds: float, at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps at least come before: the optimiser and cuDNN prepare themselves in them."""
    assert captured_at(recorded(), batches, seconds, monkeypatch) == at


def test_a_network_that_cannot_be_captured_is_not_tried_again(batches: list[Batch]) -> None:
    class Stubborn(Recorded):
        _capture_seconds = 0.0
        can_capture = False

    step = recorded(Stubborn)
    for images, labels in batches:
        assert step(images, (labels,), 0.1).isfinite()
    assert step.captures == 1


@pytest.mark.parametrize("options", [config.SGD(), config.AdamW()], ids=["sgd", "adamw"])
def test_a_learning_rate_that_lies_on_the_device_is_the_same(
    batches: list[Batch], options: config.SGD | config.AdamW
) -> None:
    plain = build("mlp", classes=10, channels=1, image_size=8)
    graphed = copy.deepcopy(plain)
    kinds = (
        Step(plain, optimizer(plain, options), F.cross_entropy),
        Recorded(graphed, optimizer(graphed, options), F.cross_entropy),
    )
    for i, (images, labels) in enumerate(batches):
        losses = [step(images, (labels,), 0.1 / (i + 1)).item() for step in kinds]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_on_a_cpu_steps_are_plain() -> None:
    model = nn.Linear(2, 2)
    assert type(step_for(model, optimizer(model, config.SGD()), F.cross_entropy)) is Step


# -- on a GPU ---------------------------------------------------------------------------------------------------------


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = build("convnet", classes=10, channels=1, image_size=8)
        self.dropout = nn.Dropout2d(0.2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(self.dropout(x))
        return out


class Synchronising(WithDropout):
    """Waits for the device within its pass, which no graph can."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * x.sum().item()


class DrawingOnTheHost(WithDropout):
    """Leaves its dropout out now and then, as the host decides."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x) if torch.rand(()) < 0.5 else self.inner(x)
        return out


@needs_gpu
@pytest.mark.parametrize("options", [config.SGD(), config.AdamW()], ids=["sgd", "adamw"])
@pytest.mark.parametrize("kind", [WithDropout, Synchronising, DrawingOnTheHost])
def test_replayed_steps_are_those_that_are_launched(
    kind: type[nn.Module], options: config.SGD | config.AdamW, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, statistics and dropout after two epochs; also of a network that cannot be captured."""
    monkeypatch.setattr(GraphedStep, "_capture_seconds", 0.0)
    torch.manual_seed(0)
    launched = kind().cuda()
    graphed = copy.deepcopy(launched)
    images, labels = torch.randn(640, 1, 8, 8).cuda(), torch.randint(10, (640,)).cuda()
    losses = []
    for model, step in ((launched, Step), (graphed, GraphedStep)):
        training = Training(
            model, optimizer(model, options), F.cross_entropy, batch_size=32, precision="float32", seed=1
        )
        training._step = step(model, optimizer(model, options), F.cross_entropy)
        losses.append([training.epoch(images, (labels,), [0.01] * 20, epoch) for epoch in range(2)])
        if step is GraphedStep:
            assert training._step._is_captured is (kind is WithDropout)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for a, b in zip(launched.state_dict().values(), graphed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@needs_gpu
def test_several_graphs_in_one_process_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Students take turns, and share the memory of their graphs."""
    monkeypatch.setattr(GraphedStep, "_capture_seconds", 0.0)
    images, labels = torch.randn(640, 1, 8, 8).cuda(), torch.randint(10, (640,)).cuda()

    def students() -> list[Training]:
        found = []
        for seed in range(3):
            torch.manual_seed(seed)
            model = build("convnet", classes=10, channels=1, image_size=8).cuda()
            found.append(
                Training(
                    model, optimizer(model, config.SGD()), F.cross_entropy, batch_size=32, precision="float32",
                    seed=seed,
                )
            )  # fmt: skip
        return found

    def epoch(training: Training, epoch: int) -> float:
        return training.epoch(images, (labels,), [0.01] * 20, epoch)

    together = students()
    in_turns = [[epoch(training, e) for training in together] for e in range(3)]
    assert all(training._step._is_captured for training in together)
    del together
    alone = [[epoch(training, e) for e in range(3)] for training in students()]
    for replicate, losses in enumerate(alone):
        assert [row[replicate] for row in in_turns] == pytest.approx(losses, rel=1e-3)
