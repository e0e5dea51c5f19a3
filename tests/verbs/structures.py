"""Networks whose structure used to be misread, for the tests of the whole job."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ViewedFlat(nn.Module):
    """Flattens by `y.view(y.size(0), -1)`, behind constant padding."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(first, _block(16, 32, 2))
        self.head = nn.Linear(32 * 4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.adaptive_avg_pool2d(self.body(x), 2)
        return self.head(y.view(y.size(0), -1))


class Split(nn.Module):
    """Divides its channels by `torch.split` at a size that it keeps as an attribute."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.part = 16
        self.stem = _block(3, 2 * self.part, 2)
        self.left, self.right = _block(16, 24), _block(16, 24)
        self.head = nn.Linear(24, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.split(self.stem(x), self.part, dim=1)
        return self.head((self.left(left) + self.right(right)).mean((2, 3)))


class Squeezed(nn.Module):
    """The classic squeeze-and-excitation, with views."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem, self.down, self.up = _block(3, 32, 2), nn.Linear(32, 8), nn.Linear(8, 32)
        self.body, self.head = _block(32, 24, 2), nn.Linear(24, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        b, c, _, _ = x.size()
        gate = self.up(self.down(F.adaptive_avg_pool2d(x, 1).view(b, c)).relu()).sigmoid().view(b, c, 1, 1)
        return self.head(self.body(x * gate).mean((2, 3)))


class PaddedShortcut(nn.Module):
    """A CIFAR ResNet's block with a shortcut padded with zero channels (option A)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem, self.first = _block(3, 16), _block(16, 32, 2)
        self.second, self.norm = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        return self.head((self.norm(self.second(self.first(x))) + short).relu().mean((2, 3)))


class UNet(nn.Module):
    """Two scales, transposed convolution, concatenated skip: a map of classes, not a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = _block(3, 16), _block(16, 32, 2)
        self.up, self.join = nn.ConvTranspose2d(32, 16, 2, 2), _block(32, 16)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        return self.out(self.join(torch.cat([self.up(self.coarse(fine)), fine], 1)))


class Renamed(nn.Module):
    """EfficientNet-Lite0 as its package has it, with another head for few classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net._fc = nn.Linear(self.net._fc.in_features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def unet(num_classes: int = 3) -> nn.Module:
    """The U-Net; its classes are fixed."""
    return UNet()


class _DenseLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = _block(width, 32), nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.b(self.a(x))], 1)


def dense(num_classes: int = 3) -> nn.Module:
    """Dense layers and a classifier."""
    body = [_DenseLayer(16 + 16 * index) for index in range(5)]
    head = [_block(96, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes)]
    return nn.Sequential(_block(3, 16, 2), *body, *head)
