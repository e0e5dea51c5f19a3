"""MobileNetV2 (Sandler et al., "Inverted Residuals and Linear Bottlenecks", 2018, table 2).

The parameters are named as in torchvision, so torchvision's weights load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from hwprune.models.layers import conv_bn, initialise, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

# Expansion, output channels, repeats, stride of the first repeat: table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST_32x32_STRIDE = 3  # for 32x32 images the stem and the stages before this one keep the resolution
_CHANNEL_MULTIPLE = 8  # widths other than 1 round to this, as in the authors' own code


class InvertedResidual(nn.Module):
    """Expand (1x1), filter (3x3 depthwise), project (1x1, linear); with a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, *, expand: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expand:
            layers.append(conv_bn(inputs, hidden, kernel=1, activation=nn.ReLU6))
        layers.append(conv_bn(hidden, hidden, stride=stride, groups=hidden, activation=nn.ReLU6))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        return x + self.conv(x) if self.shortcut else self.conv(x)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """The stem, 17 inverted residual blocks, a last 1x1 convolution and a linear classifier.

    Args:
        num_classes: Outputs of the classifier.
        channels: Of the stem, of each of the seven stages, and of the last convolution.
        small_images: Whether images are 32x32: the stem and the second stage then have stride 1.
        dropout: Before the classifier.
        expand_first: Whether the first block, of expansion 1, has an expanding convolution too.
    """

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int],
        small_images: bool = False,
        dropout: float = 0.2,
        expand_first: bool = False,
    ) -> None:
        super().__init__()
        inputs, *stages, last = channels
        layers: list[nn.Module] = [conv_bn(3, inputs, stride=1 if small_images else 2, activation=nn.ReLU6)]
        for number, (expansion, _, repeats, stride) in enumerate(_STAGES, start=1):
            first = 1 if small_images and number < _FIRST_32x32_STRIDE else stride
            outputs, expand = stages[number - 1], expansion != 1 or expand_first
            for repeat in range(repeats):
                layers.append(
                    InvertedResidual(inputs, outputs, 1 if repeat else first, expansion, expand=expand)
                )
                inputs = outputs
        layers.append(conv_bn(inputs, last, kernel=1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.avgpool(self.features(x))  # (N, 1280, 1, 1)
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def _channels(width: float) -> list[int]:
    """The paper's channels times its width multiplier; the last convolution never has fewer than 1280."""
    counts = (32, *(channels for _, channels, _, _ in _STAGES))
    last = scaled(1280, max(1.0, width), _CHANNEL_MULTIPLE)
    return [*(scaled(count, width, _CHANNEL_MULTIPLE) for count in counts), last]


def mobilenet_v2(num_classes: int = 1000, width: float = 1.0) -> MobileNetV2:
    """MobileNetV2 for 224x224 images: 3.5 M parameters, 301 M MACs at width 1."""
    return MobileNetV2(num_classes, _channels(width))


def mobilenet_v2_cifar(num_classes: int = 10, width: float = 1.0) -> MobileNetV2:
    """MobileNetV2 for 32x32 images: 2.2 M parameters with 10 classes, 88 M MACs; the last map is 4x4."""
    return MobileNetV2(num_classes, _channels(width), small_images=True, dropout=0.0)
