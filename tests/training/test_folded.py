"""Networks folded for quick responses answer as they did."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweetspot.models import build
from sweetspot.training.inference import folded


def trained(network: nn.Module, images: Tensor) -> nn.Module:
    """With statistics and affine weights of its own in every BatchNorm, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(images)
    return network.eval()


def batchnorms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(16, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet20", 0),
        ("resnet8x4", 0),
        ("wrn-16-2", 6),  # those that an addition comes before
        ("plain8", 0),
        ("convnet", 0),
        ("mlp", 0),
        ("torchvision:resnet18", 0),
        ("torchvision:mobilenet_v3_small", 0),
        ("timm:resnet10t", 0),
    ],
)
def test_a_folded_network_answers_alike_with_fewer_batchnorms(name: str, left: int, images: Tensor) -> None:
    network = trained(build(name, classes=10, channels=3, image_size=32), images)
    quick = folded(network, images, "float32")
    assert quick is not network
    assert batchnorms(quick) == left
    with torch.no_grad():
        torch.testing.assert_close(quick(images), network(images), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(quick(images[:3]), network(images[:3]), rtol=1e-3, atol=1e-3)


def test_the_network_itself_stays_as_it_is(images: Tensor) -> None:
    network = trained(build("resnet8", classes=10, channels=3, image_size=32), images)
    before = copy.deepcopy(network.state_dict())
    folded(network, images, "float32")
    assert batchnorms(network) == 9
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Branching(nn.Module):
    """Its path depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)
        self.bn = nn.BatchNorm2d(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).mean((2, 3))
        return x if float(x.sum()) > 0 else -x


class Deceived(Branching):
    """Another network than it is while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).mean((2, 3))
        return x if isinstance(x, Tensor) else x + 1


class Shared(nn.Module):
    """One convolution, seen by two BatchNorms; folded into it, the first would change the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.conv(F.relu(self.first(self.conv(x)))))
        return out.mean((2, 3))


class SeenTwice(Shared):
    """A convolution whose output goes past its BatchNorm, too."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (x + self.first(x)).mean((2, 3))


@pytest.mark.parametrize("kind", [Branching, Deceived])
def test_a_network_that_cannot_be_traced_truly_is_left_alone(kind: type[nn.Module], images: Tensor) -> None:
    network = trained(kind(), images)
    assert folded(network, images, "float32") is network


@pytest.mark.parametrize("kind", [Shared, SeenTwice])
def test_a_convolution_that_others_need_is_not_folded(kind: type[nn.Module], images: Tensor) -> None:
    network = trained(kind(), images)
    quick = folded(network, images, "float32")
    assert batchnorms(quick) > 0
    with torch.no_grad():
        torch.testing.assert_close(quick(images), network(images), rtol=1e-3, atol=1e-3)
