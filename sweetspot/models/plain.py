"""ResNets without shortcuts: Jha et al. (2020, arXiv 2006.16589) distill them to learn what a shortcut is worth."""

from torch import Tensor, nn
from torch.nn import functional as F

from sweetspot.models.cifar_resnet import ThreeStages
from sweetspot.models.layers import conv3x3


class PlainBlock(nn.Module):
    """``relu(bn(conv(relu(bn(conv(x))))))``, (N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)))


def plain(*, classes: int, channels: int, image_size: int, depth: int) -> nn.Module:
    """The plain network of ``depth`` layers, (N, channels, S, S) to (N, classes), for any S of at least 5.

    He et al. (2015, arXiv 1512.03385, section 4.2) trained these beside their ResNets: the error grows with
    the depth from 20 layers on, and with 110 layers it stays above 60 % on CIFAR-10.
    """
    return ThreeStages(PlainBlock, depth=depth, stem=16, widths=(16, 32, 64), classes=classes, channels=channels)
