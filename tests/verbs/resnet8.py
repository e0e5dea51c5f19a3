"""The smallest network with residual blocks, one of which may go, for projects that take every verb."""

from __future__ import annotations

from hwprune.models.resnet_cifar import CifarResNet


def resnet8(num_classes: int) -> CifarResNet:
    return CifarResNet(1, num_classes)
