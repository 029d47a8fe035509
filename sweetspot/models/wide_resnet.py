"""The wide ResNets of Zagoruyko & Komodakis (2016, arXiv 1605.07146), without dropout."""

from torch import Tensor, nn
from torch.nn import functional as F

from sweetspot.models.layers import conv1x1, conv3x3, global_average, initialise


class PreActivationBlock(nn.Module):
    """``shortcut + conv(relu(bn(conv(relu(bn(x))))))``, (N, inputs, H, W) to (N, outputs, H/stride, W/stride).

    Where the shape stays, the shortcut is ``x``; where it changes, a 1x1 convolution of ``relu(bn(x))``.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        changes = inputs != outputs or stride != 1
        self.projection = conv1x1(inputs, outputs, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.projection is None else self.projection(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + shortcut


class WideResNet(nn.Module):
    """Stem of 16 channels, three stages of pre-activation blocks, BatchNorm, global average, linear layer.

    Args:
        depth: 6 n + 4 for n blocks in a stage.
        factor: how many times the stages are as wide as 16/32/64.
        classes: width of the response.
        channels: of an image.
    """

    def __init__(self, *, depth: int, factor: int, classes: int, channels: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(f"the depth of a wide ResNet is 6 n + 4 for a whole n, not {depth}")
        self.stem = conv3x3(channels, 16)
        self.stages = nn.Sequential()
        inputs = 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            outputs = factor * width
            first = PreActivationBlock(inputs, outputs, stride)
            others = [PreActivationBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(first, *others))
            inputs = outputs
        self.bn = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.bn(self.stages(self.stem(x))))
        logits: Tensor = self.classifier(global_average(features))
        return logits


def wide_resnet(*, classes: int, channels: int, image_size: int, depth: int, factor: int) -> nn.Module:
    """WRN-depth-factor, (N, channels, S, S) to (N, classes), for any S of at least 5."""
    return WideResNet(depth=depth, factor=factor, classes=classes, channels=channels)
