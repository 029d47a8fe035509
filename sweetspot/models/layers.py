"""What the convolutional networks have in common: their convolutions, their BatchNorm, their initialisation."""

from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Keeps the image size, or halves it (rounding up) at stride 2. No bias: a BatchNorm follows."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """The projection of a shortcut whose shape changes."""
    return nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)


def global_average(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C). A mean and not an adaptive pool: its gradient is deterministic on every device."""
    return x.mean(dim=(2, 3))


def initialise(model: nn.Module) -> None:
    """He et al. (2015, arXiv 1502.01852): convolutions normal with variance 2 / fan_out, BatchNorm one and zero.

    The last linear layer keeps torch's own initialisation.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
