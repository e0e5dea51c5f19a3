"""Whether a pruned network is the unpruned one whose removed channels nobody reads.

A pruner is run on a twin whose parameters hold their own positions. What is left of them after pruning tells
exactly what was kept, whoever pruned. The masked network is the unpruned one in which no layer reads a
channel that its pruned twin does not read; both must give the same outputs. Norms over channels take the
kept channels only in both, each group of a group norm by itself: their statistics are meant to be of these.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

_READERS = (nn.modules.conv._ConvNd, nn.Linear)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_OVER_CHANNELS = (
    "StdConv",
    "AdditiveAttention",
    "SSDFeatureExtractor",
)  # in names of classes that norms over channels are part of
_NORMS = (
    "LayerNorm",
    "GroupNorm",
    "RMSNorm",
    "RmsNorm",
    "GlobalResponseNorm",
    "EvoNorm",
)  # in names of their classes


def masked_fault(
    model: nn.Module, prune: Callable[[nn.Module], nn.Module], image: torch.Tensor
) -> str | None:
    """Prune a twin of `model` and compare it with the masked network.

    Args:
        model: The unpruned network; it is not modified.
        prune: Prunes the twin that it is given, in place or not, and returns the pruned one. It must decide
            without reading weights.
        image: One batch of inputs.

    Returns:
        What is wrong, empty where nothing is, None where the two cannot be compared: weights that are
        standardised over the channels they read, and maps normalised over channels by the code of an
        attention, change with those channels.
    """
    from trace_child import fault, one_line, outputs

    twin = prune(positions(copy.deepcopy(model)))
    named = twin.named_parameters(remove_duplicate=False)
    kept = {name: tensor.detach().round().long() for name, tensor in named}
    fill(twin, model)
    try:
        got = outputs(twin, image)
    except Exception as error:
        return one_line(f"does not run: {error}")
    kinds = {type(module).__name__ for module in model.modules()}
    if any(word in kind for kind in kinds for word in _OVER_CHANNELS):
        expected = outputs(model, image)
        same = [one.shape for one in got] == [one.shape for one in expected]
        return None if same else fault(got, expected)
    return fault(got, outputs(masked(model, twin, kept), image))


def positions(model: nn.Module) -> nn.Module:
    """Put into each element of each parameter and floating-point buffer its place in the flat tensor."""
    for tensor in _floats(model).values():
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
    return model


def fill(pruned: nn.Module, model: nn.Module) -> None:
    """Give a pruned twin the values that belong to the places it kept."""
    own = _floats(model)
    for name, tensor in {id(one): (name, one) for name, one in _floats(pruned).items()}.values():
        if name in own:
            places = tensor.detach().round().long()
            tensor.data = own[name].detach().flatten()[places.flatten()].reshape(places.shape)


def _floats(model: nn.Module) -> dict[str, torch.Tensor]:
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: tensor for name, tensor in named if tensor.is_floating_point() and tensor.ndim > 0}


def masked(model: nn.Module, pruned: nn.Module, kept: dict[str, torch.Tensor]) -> nn.Module:
    """The unpruned network in which nobody reads what the pruned one does not read."""
    network = copy.deepcopy(model)
    twins = dict(pruned.named_modules())
    for name, module in network.named_modules():
        places = kept.get(f"{name}.weight")
        if places is None or places.numel() == module.weight.numel():
            continue
        if isinstance(module, _READERS) or hasattr(module, "num_experts"):
            reads = _reads(module, places)
            module.weight.data = module.weight.data * reads
        elif any(one in type(module).__name__ for one in _NORMS):
            _keep_in_norm(module, twins[name], places)
    return network


def _reads(module: nn.Module, places: torch.Tensor) -> torch.Tensor:
    """1 for each weight that is kept, and for all weights of output channels that are gone."""
    reads = torch.zeros(module.weight.numel(), dtype=module.weight.dtype)
    reads[places.flatten()] = 1
    reads = reads.reshape(module.weight.shape)
    if hasattr(module, "num_experts"):  # timm's convolution reads the axis of experts as well
        return reads
    transposed = isinstance(module, _TRANSPOSED)  # the first axis of its weight is the one that is read
    rows = reads.transpose(0, 1) if transposed else reads
    gone = rows.flatten(1).sum(1) == 0
    rows[gone] = 1
    return reads


def _keep_in_norm(module: nn.Module, pruned: nn.Module, kept: torch.Tensor) -> None:
    """Let a norm over channels see the kept ones only."""
    grouped = isinstance(module, nn.GroupNorm)
    first = grouped or "2d" in type(module).__name__.lower()
    axis = getattr(module, "channel_dim", 1 if first else -1)
    channels = module.weight.numel()
    parts = module.num_groups if grouped else 1
    weight, bias = module.weight.detach()[kept], None
    if getattr(module, "bias", None) is not None:
        bias = module.bias.detach()[kept]

    def forward(x: torch.Tensor) -> torch.Tensor:
        result = torch.zeros_like(x)
        if not grouped:
            return result.index_copy(axis, kept, pruned(x.index_select(axis, kept)))
        for part in range(parts):
            mine = kept // (channels // parts) == part
            places = kept[mine]
            if len(places):
                chosen = x.index_select(1, places)
                own = None if bias is None else bias[mine]
                normed = nn.functional.group_norm(chosen, 1, weight[mine], own, module.eps)
                result = result.index_copy(1, places, normed)
        return _activated(module, result)

    module.forward = forward


def _activated(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What timm's norms with an activation inside do after normalising."""
    for name in ("drop", "act"):
        if isinstance(getattr(module, name, None), nn.Module):
            x = getattr(module, name)(x)
    return x
