"""Networks with blocks, for the tests of blocks."""

from __future__ import annotations

import warnings

import torch
from cases_base import Head, cbr, conv
from torch import Tensor, nn

import hwprune
from hwprune.structure.space import SearchSpace

IMAGE = (1, 3, 16, 16)


def traced(model: nn.Module, **options: object) -> SearchSpace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hwprune.trace(model, torch.randn(IMAGE), depth=True, **options)


def names(space: SearchSpace) -> list[str]:
    return [block.name for block in space.blocks]


class Residual(nn.Module):
    """A block that ends in ReLU, as ResNet's."""

    def __init__(self, width: int = 8, inner: int = 12, stride: int = 1, first: int = 0) -> None:
        super().__init__()
        self.a = cbr(first or width, inner, stride=stride)
        self.b = nn.Sequential(conv(inner, width, bias=False), nn.BatchNorm2d(width))
        self.short = conv(first, width, 1, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(self.a(x)) + self.short(x))


class PreActivation(nn.Module):
    """A block that begins with norm and ReLU, and ends in a sum."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm2d(width), conv(width, 6), conv(6, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(torch.relu(self.norm(x)))))


class Excited(nn.Module):
    """An inverted residual with squeeze-and-excitation: its last layer alone does not silence it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.up, self.down = cbr(width, 16), nn.Sequential(conv(16, width, 1), nn.BatchNorm2d(width))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(width, 4, 1), nn.ReLU(), conv(4, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.up(x))
        return x + y * torch.sigmoid(self.gate(y))


class Nested(nn.Module):
    """A block with one inside."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.inner, self.b = conv(width, 6), Residual(6, 4), conv(6, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.inner(torch.relu(self.a(x))))


class EndsInside(nn.Module):
    """A block whose last layer is a block: both end at one tensor."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.inner = conv(width, width), PreActivation(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.a(x))


class DenseLayer(nn.Module):
    """Makes 4 more channels of all before, as torchvision's: from a list."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm2d(width), conv(width, 8, 1), conv(8, 4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.b(torch.relu(self.a(torch.relu(self.norm(torch.cat(maps, 1))))))


class DenseStage(nn.Module):
    """Concatenates what its layers make."""

    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(width + 4 * index) for index in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Concatenating(nn.Module):
    """A dense layer that returns its input with 4 more channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = cbr(width, 8), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b(self.a(x)), x], 1)


class Aggregated(nn.Module):
    """One-shot aggregation (VoVNet): only the last layer is read by nobody but the concatenation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.c = cbr(width, 6), cbr(6, 4), cbr(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        return torch.cat([x, a, b, self.c(b)], 1)


class Branches(nn.Module):
    """Inception: no branch's input is a part of the concatenation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b = cbr(width, 6), cbr(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], 1)


class Ghost(nn.Module):
    """Cheap channels by a depthwise convolution of the others: these would go with them."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.cheap = cbr(width, 6), nn.Sequential(conv(6, 6, groups=6), nn.BatchNorm2d(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], 1)


class RepVGG(nn.Module):
    """Its shortcut is a batch norm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a = nn.Sequential(conv(width, width), nn.BatchNorm2d(width))
        self.b = nn.Sequential(conv(width, width, 1), nn.BatchNorm2d(width))
        self.same = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.a(x) + self.b(x) + self.same(x))


class Leaky(nn.Module):
    """Ends in an activation that does not pass what it made before."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.act = cbr(width, 6), conv(6, width), nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.b(self.a(x)))


class Given(nn.Module):
    """A block that is given its shortcut, as DLA's."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b = cbr(width, 6), conv(6, width)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return torch.relu((x if shortcut is None else shortcut) + self.b(self.a(x)))


class Tree(nn.Module):
    """Two such blocks and their concatenation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.one, self.two, self.root = Given(width), Given(width), cbr(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x, shortcut=x)
        return self.root(torch.cat([self.two(one), one], 1))


class C2f(nn.Module):
    """Half of the channels, and what each bottleneck makes of the last, concatenated."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter, self.leave = cbr(width, 8), cbr(16, width)
        self.m = nn.ModuleList([Given(4), Given(4)])

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.enter(x).chunk(2, 1))
        for block in self.m:
            maps.append(block(maps[-1]))
        return self.leave(torch.cat(maps, 1))


def network(*body: nn.Module, first: int = 8, last: int = 8) -> nn.Module:
    """A stem, a body and a classifier, with shaken batch norms."""
    torch.manual_seed(0)
    model = nn.Sequential(cbr(3, first), *body, Head(last)).eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.5, 0.5)
                norm.weight.uniform_(0.5, 1.5)
    return model


def concatenating() -> list[nn.Module]:
    """Networks with blocks that are parts of concatenations."""
    return [
        network(DenseStage(), cbr(20, 8)),
        network(Concatenating(8), Concatenating(12), cbr(16, 8)),
        network(Aggregated(), cbr(22, 8)),
        network(C2f()),
    ]
