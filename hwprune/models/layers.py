"""What the built-in networks share: the conv-bn-activation block and the initialisation."""

from __future__ import annotations

from torch import nn


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm and activation, named `0`, `1` and `2`.

    (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)
    """
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), activation(inplace=True))


def initialise(network: nn.Module) -> None:
    """He's initialisation for convolutions, N(0, 0.01) for linear layers, the identity for BatchNorm."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`channels` times `width`, to the nearest `multiple` that is no less than 90 % of the product."""
    target = channels * width
    nearest = max(multiple, int(target + multiple / 2) // multiple * multiple)
    return nearest + multiple if nearest < 0.9 * target else nearest
