"""ResNet-20/56/110 for 32x32 images (He et al., "Deep Residual Learning", 2016, section 4.2).

The paper's CIFAR networks use shortcuts of option A (strided identity padded with zero channels). These use
option B, a 1x1 convolution, at the two places where the stage changes: zero padding ties a channel of one
stage to a channel of the next at an offset, which no channel can be removed from safely. The price is 1.0 %
more parameters in ResNet-20 (0.3 % in ResNet-56) and 0.26 M more MACs.
"""

from __future__ import annotations

from torch import Tensor, nn

from hwprune.models.layers import conv_bn, initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = conv_bn(inputs, outputs, kernel=1, stride=stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class CifarResNet(nn.Module):
    """A stem and three stages of `depth` blocks with `base_width`, 2x and 4x channels.

    Args:
        depth: Blocks per stage; the network has 6 * depth + 2 layers.
        num_classes: Outputs of the classifier.
        base_width: Channels of the stem and the first stage; 16 in the paper.
    """

    def __init__(self, depth: int, num_classes: int, base_width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, base_width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base_width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(base_width, base_width, depth, stride=1)
        self.layer2 = _stage(base_width, 2 * base_width, depth, stride=2)
        self.layer3 = _stage(2 * base_width, 4 * base_width, depth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * base_width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) -> logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 16, 32, 32)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 64, 8, 8)
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, depth: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(depth - 1)))


def resnet20(num_classes: int = 10, base_width: int = 16) -> CifarResNet:
    """ResNet-20: 0.27 M parameters, 40.8 M MACs at 32x32."""
    return CifarResNet(3, num_classes, base_width)


def resnet56(num_classes: int = 10, base_width: int = 16) -> CifarResNet:
    """ResNet-56: 0.86 M parameters, 125.8 M MACs at 32x32."""
    return CifarResNet(9, num_classes, base_width)


def resnet110(num_classes: int = 10, base_width: int = 16) -> CifarResNet:
    """ResNet-110: 1.73 M parameters, 253.2 M MACs at 32x32."""
    return CifarResNet(18, num_classes, base_width)
