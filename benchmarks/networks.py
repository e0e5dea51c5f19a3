"""Networks of the benchmarks that the registry does not name; hwprune reads them as `networks.py:NAME`."""

from __future__ import annotations

from hwprune.models.resnet_cifar import CifarResNet, resnet20


def resnet20_wide(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 with 32, 64 and 128 channels: 163 M MACs at 32x32, wide enough for steps of 16 channels."""
    return resnet20(num_classes, base_width=32)
