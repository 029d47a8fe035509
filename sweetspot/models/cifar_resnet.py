"""The ResNets for small images of He et al. (2015, arXiv 1512.03385), section 4.2."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sweetspot.models.layers import conv1x1, conv3x3, global_average, initialise


class ResidualBlock(nn.Module):
    """``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))``, (N, inputs, H, W) to (N, outputs, H/stride, W/stride).

    The shortcut is the identity where the shape stays, and a 1x1 convolution with BatchNorm where it changes (the
    paper's option B, which the distillation literature uses on CIFAR too).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ThreeStages(nn.Module):
    """Stem, three stages of blocks (the second and third halve the image), global average, linear layer.

    Args:
        block: ``(inputs, outputs, stride) -> nn.Module``, two convolutions each.
        depth: layers with weights on the longest path: 6 n + 2 for n blocks in a stage.
        stem: channels of the first convolution.
        widths: channels of the three stages.
        classes: width of the response.
        channels: of an image.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        *,
        depth: int,
        stem: int,
        widths: Sequence[int],
        classes: int,
        channels: int,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            raise ValueError(f"the depth of such a network is 6 n + 2 for a whole n, not {depth}")
        self.stem = nn.Sequential(conv3x3(channels, stem), nn.BatchNorm2d(stem), nn.ReLU())
        self.stages = nn.Sequential()
        inputs = stem
        for outputs, stride in zip(widths, (1, 2, 2), strict=True):
            first, others = block(inputs, outputs, stride), [block(outputs, outputs, 1) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(first, *others))
            inputs = outputs
        self.classifier = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(global_average(self.stages(self.stem(x))))
        return logits


def cifar_resnet(
    *,
    classes: int,
    channels: int,
    image_size: int,
    depth: int,
    stem: int = 16,
    widths: Sequence[int] = (16, 32, 64),
) -> nn.Module:
    """ResNet of ``depth`` layers, (N, channels, S, S) to (N, classes), for any S of at least 5.

    The ``x4`` networks of the distillation literature have a stem of 32 channels and widths of 64/128/256.
    """
    return ThreeStages(ResidualBlock, depth=depth, stem=stem, widths=widths, classes=classes, channels=channels)
