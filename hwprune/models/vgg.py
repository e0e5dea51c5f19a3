"""VGG-16 with BatchNorm (Simonyan & Zisserman, "Very Deep Convolutional Networks", 2015, table 1, column D).

`vgg16_bn` is the ImageNet form; its parameters are named as in torchvision, so torchvision's weights load.
`vgg16_bn_cifar` is the form that the pruning literature uses on 32x32 images: the same 13 convolutions,
global average pooling and one linear layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from hwprune.models.layers import initialise

_POOL = 0
_COLUMN_D = (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL, 512, 512, 512, _POOL, 512, 512, 512)


def _features() -> list[nn.Module]:
    """The 13 convolutions with the four pooling layers between them; the fifth is left to the caller."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in _COLUMN_D:
        if outputs == _POOL:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return layers


class VGG(nn.Module):
    """Convolutional features, a pooling layer to a fixed size, and a classifier."""

    def __init__(self, features: nn.Module, pooled: int, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        self.classifier = classifier
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.avgpool(self.features(x))  # (N, 512, pooled, pooled)
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def vgg16_bn(num_classes: int = 1000) -> VGG:
    """VGG-16 with BatchNorm for 224x224 images: 138.4 M parameters, 15.5 G MACs."""
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )
    return VGG(nn.Sequential(*_features(), nn.MaxPool2d(2, 2)), 7, classifier)


def vgg16_bn_cifar(num_classes: int = 10) -> VGG:
    """VGG-16 with BatchNorm for 32x32 images: 14.7 M parameters, 313 M MACs.

    The fifth pooling layer is the global average over the last 2x2 map.
    """
    return VGG(nn.Sequential(*_features()), 1, nn.Sequential(nn.Linear(512, num_classes)))
