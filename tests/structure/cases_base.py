"""How a case is written: a few layers, a forward of a few lines, and what is right for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (2, 3, 16, 16)


class Net(nn.Module):
    """Named layers, parameters, buffers (plain tensors) and settings; the forward comes from `case`."""

    def __init__(self, **parts: object) -> None:
        super().__init__()
        self.body: Callable[..., object] | None = None
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def extra_repr(self) -> str:
        return getattr(self.body, "__qualname__", "")

    def forward(self, *inputs: Tensor) -> object:
        assert self.body is not None
        return self.body(self, *inputs)


@dataclass(frozen=True)
class Case:
    """One small network and what is right for it.

    Attributes:
        name: Of the case.
        factory: Makes the network.
        shapes: Of the inputs.
        groups: All channel groups, name -> width, where there is no doubt about them.
        prunable: Layers all of whose output channels must follow a group.
        frozen: Layers of whose output channels none may.
        mixes: Channels are normalised, averaged or compared with one another, so that a network without
            some of them is not the full one with these channels unread.
        refuses: A documented error is the only right answer.
        may_refuse: A documented error is a right answer.
        uncounted: Torch's own counter of operations cannot count it.
    """

    name: str
    factory: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = (IMAGE,)
    groups: dict[str, int] | None = None
    prunable: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    mixes: bool = False
    refuses: bool = False
    may_refuse: bool = False
    uncounted: bool = False

    def build(self) -> nn.Module:
        """The network, the same at every call."""
        torch.manual_seed(0)
        return self.factory().eval()

    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors of one call."""
        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randn(shape, generator=generator) for shape in self.shapes)


CASES: dict[str, Case] = {}


def case(
    layers: Callable[[], Net],
    *shapes: tuple[int, ...],
    prunable: str = "",
    frozen: str = "",
    groups: dict[str, int] | None = None,
    **flags: bool,
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Enter the decorated forward as a case; `prunable` and `frozen` are names with spaces between them."""

    def enter(forward: Callable[..., object]) -> Callable[..., object]:
        def factory() -> nn.Module:
            net = layers()
            net.body = forward
            return net

        name = forward.__name__
        assert name not in CASES, name
        names = frozenset(prunable.split()), frozenset(frozen.split())
        CASES[name] = Case(name, factory, shapes or (IMAGE,), groups, *names, **flags)
        return forward

    return enter


def conv(
    cin: int, cout: int, kernel: int | tuple[int, int] = 3, stride: int = 1, **more: object
) -> nn.Conv2d:
    """A convolution; with odd sizes it keeps the size of its map."""
    more.setdefault("padding", 0 if isinstance(kernel, tuple) else kernel // 2)
    return nn.Conv2d(cin, cout, kernel, stride, **more)


def cbr(cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    first = conv(cin, cout, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def up(cin: int, cout: int, kernel: int = 2, stride: int = 2, padding: int = 0) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(cin, cout, kernel, stride, padding)


def vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape) + 0.5)


class Head(nn.Module):
    """Global pooling and a classifier."""

    def __init__(self, channels: int, classes: int = 5) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
