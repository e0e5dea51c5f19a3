"""Where the weights of a PruningNet come from.

A `WeightGenerator` gives one tensor of one layer at any widths. Those here:

- `CroppedWeight` (`shared`): one full-width parameter, cropped. The paper's ablation of weight generation,
  and what biases, normalisation and linear layers always use.
- `FcWeight` (`fc`): the paper's two fully-connected layers on the layer's encoding.
- `ResidualWeight` (`residual`): a trained weight, cropped, with gains for its channels that are generated
  from the encoding and start at one.

To add one, write a subclass and give it a line in `make_generator`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hwprune.errors import UsageError, nearest
from hwprune.pruningnet.crop import Crop
from hwprune.pruningnet.settings import GeneratorName

if TYPE_CHECKING:
    from torch import Tensor

    from hwprune.structure.space import ChannelMap, Widths

Axes = tuple[tuple[int, "ChannelMap"], ...]
Seen = tuple[tuple[int, int], ...]  # (group, full width) for each group that a layer's encoding holds
_GAIN_SHARE = 4  # gains, one for each channel, get by with a quarter of the hidden layer that weights need


class WeightGenerator(nn.Module, ABC):
    """Gives one tensor of one layer, cropped to widths."""

    @abstractmethod
    def weight(self, widths: Widths) -> Tensor:
        """The tensor of the pruned layer, dense, differentiable with respect to the generator."""


class CroppedWeight(WeightGenerator):
    """A full-width parameter, cropped to the leading channels of each group.

    Args:
        full: The full-width tensor; it becomes a parameter and starts at these values.
        axes: Its prunable axes.
        requires_grad: Whether it is trained.
    """

    def __init__(self, full: Tensor, axes: Axes, *, requires_grad: bool = True) -> None:
        super().__init__()
        self.full = nn.Parameter(full.detach().clone(), requires_grad=requires_grad)
        self.crop = Crop(axes)

    def weight(self, widths: Widths) -> Tensor:
        """The cropped parameter."""
        return self.crop(self.full, widths)


class FcWeight(WeightGenerator):
    """MetaPruning's generator: encoding -> Linear -> ReLU -> Linear -> reshape -> crop top-left.

    The encoding holds the kept share of each channel group that the layer, or its whole block, writes or
    reads. The last linear layer has one row for each element of the full-width weight; only the rows that
    survive the crop are computed, which gives the same weight for less memory traffic.

    Args:
        shape: Shape of the full-width weight, (O, I, ...).
        axes: Its prunable axes.
        seen: (group, full width) for each group of the encoding.
        hidden: Width of the hidden layer.
    """

    def __init__(self, shape: tuple[int, ...], axes: Axes, seen: Seen, hidden: int) -> None:
        super().__init__()
        self.crop = Crop(axes)
        self.seen = seen
        self.first = nn.Linear(len(seen), hidden)
        self.rows = nn.Parameter(torch.empty(*shape, hidden))  # the last layer's weight, (O, I, ..., hidden)
        self.row_bias = nn.Parameter(torch.empty(shape))  # and its bias, (O, I, ...)
        self._initialise(math.prod(shape[1:]))

    @torch.no_grad()
    def _initialise(self, fan_in: int) -> None:
        """Give generated weights the variance of He et al. (2015), 2 / fan-in, at full width.

        Half of it comes from the bias rows, which do not depend on the encoding, so narrow networks start
        with between half of it and all of it too.
        """
        if self.rows.is_meta:  # only counted, never run
            return
        hidden = self._hidden(torch.ones(len(self.seen)))
        self.rows.normal_(std=math.sqrt(1 / fan_in) / max(float(hidden.norm()), 1e-3))
        self.row_bias.normal_(std=math.sqrt(1 / fan_in))

    def encoding(self, widths: Widths) -> Tensor:
        """Kept share of each group that the layer sees: (groups seen,)."""
        return _encoding(self.seen, widths, self.rows.device)

    def _hidden(self, encoding: Tensor) -> Tensor:
        return torch.relu(self.first(encoding))

    def weight(self, widths: Widths) -> Tensor:
        """The generated weight, only its kept part computed."""
        # In float32 also under autocast: casting the rows would cost more than it saves.
        with torch.autocast(self.rows.device.type, enabled=False):
            hidden = self._hidden(self.encoding(widths))
            if self.crop.views(widths):
                made = cast("Tensor", _KeptRows.apply(self.rows, hidden, self.crop, widths))
            else:
                made = _times(self.crop(self.rows, widths), hidden)
            return made + self.crop(self.row_bias, widths)


def _times(rows: Tensor, hidden: Tensor) -> Tensor:
    """Rows times the hidden layer: (O, I, ..., hidden) and (hidden,) -> (O, I, ...)."""
    # `matmul`, and this where `hidden` requires a gradient, copies what a crop along the second axis leaves.
    return functional.linear(rows.flatten(1, -2), hidden[None]).reshape(rows.shape[:-1])


class _KeptRows(torch.autograd.Function):
    """`_times` of the kept rows, which are a view.

    Autograd's own backward pass would make the gradient of the rows twice, of those that are kept and padded
    to all of them: for the paper's MobileNetV2 up to 200 MB each.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, hidden: Tensor, crop: Crop, widths: Widths) -> Tensor:
        ctx.save_for_backward(rows, hidden)
        ctx.crop, ctx.widths = crop, widths
        return _times(crop(rows, widths), hidden.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, hidden = ctx.saved_tensors
        padded = torch.zeros_like(rows)
        torch.mul(grad[..., None], hidden, out=ctx.crop(padded, ctx.widths))
        kept = ctx.crop(rows, ctx.widths).flatten(1, -2)
        return padded, torch.bmm(grad.flatten(1)[:, None], kept).sum((0, 1)), None, None


class ResidualWeight(WeightGenerator):
    """A trained weight whose channels are rescaled for the widths at hand: W[o, i] x (1 + u[o]) x (1 + v[i]).

    The gains u and v of the written and the read channels come from two fully-connected layers on the
    encoding, the last of which starts at zero: at first the network is the trained one, cropped. They need a
    few values for each channel, where `FcWeight` needs `hidden` values for each element of the weight.

    Args:
        full: The trained full-width weight, (O, I, ...); it becomes a parameter and starts at these values.
        axes: Its prunable axes.
        seen: (group, full width) for each group of the encoding.
        hidden: Width of the hidden layer.
    """

    def __init__(self, full: Tensor, axes: Axes, seen: Seen, hidden: int) -> None:
        super().__init__()
        self.full = nn.Parameter(full.detach().clone())
        self.crop = Crop(axes)
        self.seen = seen
        self.first = nn.Linear(len(seen), hidden)
        self.gain_axes = tuple(axis for axis, _ in axes)
        self.gain_crops = [Crop(((0, channels),)) for _, channels in axes]
        self.gains = nn.ModuleList(_zero(nn.Linear(hidden, full.shape[axis])) for axis in self.gain_axes)

    def weight(self, widths: Widths) -> Tensor:
        """The cropped weight times the gains of its channels."""
        with torch.autocast(self.full.device.type, enabled=False):
            weight = self.crop(self.full, widths)
            hidden = torch.relu(self.first(_encoding(self.seen, widths, self.full.device)))
            for axis, crop, gain in zip(self.gain_axes, self.gain_crops, self.gains, strict=True):
                shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
                weight = weight * (1 + crop(gain(hidden), widths)).reshape(shape)
            return weight


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _encoding(seen: Seen, widths: Widths, device: torch.device) -> Tensor:
    """The encoding of one layer: the kept share of each group that it sees, (groups seen,)."""
    return torch.tensor([widths[group] / full for group, full in seen], device=device)


def make_generator(
    name: GeneratorName, full: nn.Parameter, axes: Axes, seen: Seen, hidden: int
) -> WeightGenerator:
    """The generator `name` for one convolution weight.

    Args:
        name: `fc`, `residual` or `shared`.
        full: The base network's full-width weight.
        axes: Its prunable axes.
        seen: (group, full width) for each group that `fc` and `residual` encode.
        hidden: Width of the hidden layer of `fc`; that of `residual` is a quarter of it.
    """
    if name == "fc":
        return FcWeight(tuple(full.shape), axes, seen, hidden)
    if name == "residual":
        return ResidualWeight(full, axes, seen, max(4, hidden // _GAIN_SHARE))
    return CroppedWeight(full, axes, requires_grad=full.requires_grad)


def check_generator(name: str) -> None:
    """Raise `UsageError` unless `name` is a generator."""
    if name not in get_args(GeneratorName):
        raise UsageError(
            "There is no such weight generator.", got=name, allowed=nearest(name, get_args(GeneratorName))
        )
