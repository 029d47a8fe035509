"""Networks for small images such as the digits, quick enough for one CPU thread.

Measured on scikit-learn's digits (8x8; 1,200 training images, batch 32, 20 epochs of SGD with a cosine; mean test
accuracy of 5 students, alone and distilled from ``convnet`` at T = 4, alpha = 0.9; 597 test images):
``convnet`` 0.996 alone (2 seeds, 2.5 ms a step); ``convnet-narrow`` 0.960, 0.974 distilled; ``mlp`` 0.976, 0.985
distilled; ``mlp-8`` 0.961, 0.952 distilled: distillation can hurt a network that is too small for it.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from sweetspot.models.layers import conv3x3, global_average, initialise


class ConvNet(nn.Module):
    """Three convolutions with BatchNorm, an average pool after the second, global average, linear layer.

    Args:
        widths: channels of the three convolutions.
        classes: width of the response.
        channels: of an image.
    """

    def __init__(self, *, widths: tuple[int, int, int], classes: int, channels: int) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = conv3x3(channels, first)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = conv3x3(first, second)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = conv3x3(second, third)
        self.bn3 = nn.BatchNorm2d(third)
        self.classifier = nn.Linear(third, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(x, 2)  # not the maximum: its gradient is not deterministic on a GPU
        x = F.relu(self.bn3(self.conv3(x)))
        logits: Tensor = self.classifier(global_average(x))
        return logits


def convnet(*, classes: int, channels: int, image_size: int, widths: tuple[int, int, int]) -> nn.Module:
    """Three convolutions, (N, channels, S, S) to (N, classes), for any S of at least 4; meant for 8 to 32."""
    return ConvNet(widths=widths, classes=classes, channels=channels)


def mlp(*, classes: int, channels: int, image_size: int, hidden: int) -> nn.Module:
    """One hidden layer with ReLU and without BatchNorm, (N, channels, S, S) to (N, classes), for this S alone."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * image_size**2, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
