"""Networks of the benchmarks that the registry does not name; hwprune reads them as `networks.py:NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from hwprune.models.resnet_cifar import BasicBlock, CifarResNet, resnet20, resnet56

if TYPE_CHECKING:
    from torch import Tensor

PRETRAINED = Path(__file__).parent.parent.parent / "shared" / "data" / "pretrained"


def resnet20_wide(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 with 32, 64 and 128 channels: 163 M MACs at 32x32, wide enough for steps of 16 channels."""
    return resnet20(num_classes, base_width=32)


class ZeroPadded(nn.Module):
    """The shortcut of option A: every other pixel, with channels of zeros before and behind.

    Args:
        channels: Zeros on each side.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + 2 * channels, H/2, W/2)."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels, self.channels))


def resnet56_padded(num_classes: int = 10) -> CifarResNet:
    """ResNet-56 with the shortcuts of its paper (option A), as the pretrained one has them."""
    model = resnet56(num_classes)
    for stage, channels in ((model.layer2, 8), (model.layer3, 16)):
        first = stage[0]
        assert isinstance(first, BasicBlock)
        first.downsample = ZeroPadded(channels)
    return model


def pretrained_resnet56() -> CifarResNet:
    """ResNet-56 with the weights of `shared/data/pretrained`, learnt on clean images of CIFAR-10."""
    model, state = resnet56_padded(), load_file(PRETRAINED / "cifar10_resnet56.safetensors")
    model.load_state_dict({name.replace("linear.", "fc."): value for name, value in state.items()})
    return model
