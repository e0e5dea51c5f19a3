"""MobileNetV1 (Howard et al., "MobileNets", 2017, table 1): depthwise separable convolutions with ReLU."""

from __future__ import annotations

from torch import Tensor, nn

from hwprune.models.layers import conv_bn, initialise, scaled

# Output channels and stride of each depthwise separable block, table 1. The table prints stride 2 for the
# last block, but its output is 7x7 like its input, so the stride is 1.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


class SeparableBlock(nn.Module):
    """A 3x3 depthwise convolution and a 1x1 convolution, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = conv_bn(inputs, inputs, stride=stride, groups=inputs)
        self.pointwise = conv_bn(inputs, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class MobileNetV1(nn.Module):
    """The stem, 13 separable blocks, global average pooling and a linear classifier.

    Args:
        num_classes: Outputs of the classifier.
        width: The paper's width multiplier: every layer has `width` times its channels.
        stem_stride: 2 for 224x224 images, 1 for 32x32 images.
    """

    def __init__(self, num_classes: int, width: float = 1.0, stem_stride: int = 2) -> None:
        super().__init__()
        channels = [scaled(count, width) for count in (32, *(outputs for outputs, _ in _BLOCKS))]
        pairs = zip(channels, channels[1:], _BLOCKS, strict=False)
        blocks = [SeparableBlock(inputs, outputs, stride) for inputs, outputs, (_, stride) in pairs]
        self.features = nn.Sequential(conv_bn(3, channels[0], stride=stem_stride), *blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels[-1], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.avgpool(self.features(x))  # (N, 1024, 1, 1)
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def mobilenet_v1(num_classes: int = 1000, width: float = 1.0) -> MobileNetV1:
    """MobileNetV1 for 224x224 images: 4.2 M parameters, 569 M MACs at width 1."""
    return MobileNetV1(num_classes, width)


def mobilenet_v1_cifar(num_classes: int = 10, width: float = 1.0) -> MobileNetV1:
    """MobileNetV1 for 32x32 images: the stem has stride 1, so the last map is 2x2."""
    return MobileNetV1(num_classes, width, stem_stride=1)
