"""Weights for trying a model: all different, none without effect, signals of similar size in every layer."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from hwprune.structure.export import Inputs

_SMALL = 0.05  # smaller scales hide what they are applied to
_LEAST_VARIANCE = 0.1  # of the mean variance: to divide by less would enlarge rounding errors
_CALMER = 0.5  # of the weights
_CALM = 4.0  # times the variance: signals that are small beside the shifts keep activations near a line


def random_like(inputs: Inputs) -> Inputs:
    """Random inputs of the same shapes; integers stay as they are."""
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else x for x in inputs
    )


def shake(model: nn.Module, inputs: Inputs, *, calm: bool = False) -> nn.Module:
    """A copy in eval mode with other weights.

    Batch norms get the statistics of one random batch. Otherwise signals grow or fade from layer to layer,
    and outputs depend on rounding errors alone.

    Args:
        model: Not modified.
        inputs: Example inputs.
        calm: Whether every layer makes signals smaller, so that rounding errors cannot grow.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (*twin.parameters(), *_statistics(twin)):
            if value.is_floating_point() and value.numel() > 0:
                _stir(value, generator)
                if calm and value.ndim > 1:
                    value.mul_(_CALMER)
        least = 1.0 if calm else 0.0
        hooks = [
            module.register_forward_pre_hook(functools.partial(_take_over, least))
            for module in twin.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None
        ]
        if hooks:
            twin(*copy.deepcopy(random_like(inputs)))
        for hook in hooks:
            hook.remove()
    return twin


def _statistics(model: nn.Module) -> list[torch.Tensor]:
    """Buffers that are statistics or scales of channels; others, such as positions, are left alone."""
    names = ("running_mean", "running_var", "weight", "bias")
    return [value for name, value in model.named_buffers() if name.rpartition(".")[2] in names]


def _stir(value: torch.Tensor, generator: torch.Generator) -> None:
    noise = torch.rand(value.shape, generator=generator).to(value)
    least, largest = (float(one) for one in value.aminmax())
    if least > 0:  # scales and variances stay positive
        if largest < _SMALL:
            value.fill_(0.5)
        value.mul_(noise.mul_(0.6).add_(0.7))
    elif least == largest == 0:
        value.copy_(noise.sub_(0.5))
    else:
        value.add_(noise.sub_(0.5), alpha=float(value.norm(1)) / value.numel())


def _take_over(least: float, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Set the statistics of a batch norm to those of its input, the variance to `least` or more."""
    x = inputs[0].transpose(0, 1).flatten(1)
    if x.shape[1] < 2:
        return
    variance, mean = torch.var_mean(x, 1)
    module.running_mean.copy_(mean)  # type: ignore[operator]
    least = max(least, _LEAST_VARIANCE * float(variance.mean()) + 1e-5)
    module.running_var.copy_(_CALM * variance.clamp(min=least))  # type: ignore[operator]
