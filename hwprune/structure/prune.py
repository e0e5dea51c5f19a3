"""Make a pruned network: a new, dense, ordinary module that keeps the leading channels of each group."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.space import SearchSpace


def prune(model: nn.Module, space: SearchSpace, widths: Sequence[int]) -> nn.Module:
    """Build the network of `space` that `widths` names, with the model's own weights.

    Args:
        model: The traced model; it is not modified.
        space: What `trace` returned for it.
        widths: Channels to keep, one for each group.

    Returns:
        A new module of the same classes whose tensors and channel attributes are smaller.

    Raises:
        UsageError: The widths do not belong to the space.
    """
    chosen = space.check(widths)
    return prune_in_place(copy.deepcopy(model), space, chosen)


def prune_in_place(model: nn.Module, space: SearchSpace, widths: Sequence[int]) -> nn.Module:
    """Shrink `model` itself; see `prune`. The model may live on the meta device."""
    modules = dict(model.named_modules())
    for layer in space.layers:
        for tensor in layer.tensors:
            if any(channels.groups for _, channels in tensor.axes):
                _shrink(
                    modules, tensor.name, [(axis, channels.kept(widths)) for axis, channels in tensor.axes]
                )
        if layer.op != "parameter":
            set_channels(
                modules[layer.name], int(layer.inputs.count(widths)), int(layer.outputs.count(widths))
            )
    return model


def _shrink(modules: dict[str, nn.Module], name: str, keep: list[tuple[int, object]]) -> None:
    owner, _, leaf = name.rpartition(".")
    old: torch.Tensor = getattr(modules[owner], leaf)
    new = old.detach()
    for axis, indices in keep:
        new = new.index_select(axis, torch.as_tensor(indices, device=old.device))
    if isinstance(old, nn.Parameter):
        setattr(modules[owner], leaf, nn.Parameter(new.clone(), requires_grad=old.requires_grad))
    else:
        modules[owner].register_buffer(leaf, new.clone())


def set_channels(module: nn.Module, inputs: int, outputs: int) -> None:
    """Bring a module's channel attributes in line with its tensors."""
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:
            module.groups = inputs // (module.in_channels // module.groups)
        module.in_channels, module.out_channels = inputs, outputs
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = inputs, outputs
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = outputs
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = outputs
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (*module.normalized_shape[:-1], outputs)
    elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
        module.num_parameters = outputs
