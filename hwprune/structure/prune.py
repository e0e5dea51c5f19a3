"""Make a pruned network: a new, dense, ordinary module that keeps the leading channels of each group.

A block that is left out becomes an `nn.Identity`, or one that returns no channels.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hwprune.errors import ModelError
from hwprune.structure.layers import within

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hwprune.structure.layers import Attribute, Block, Tensor
    from hwprune.structure.space import SearchSpace

_CONVS = nn.modules.conv._ConvNd
_PARAMETRISED = ".parametrizations."


def prune(model: nn.Module, space: SearchSpace, widths: Sequence[int]) -> nn.Module:
    """Build the network of `space` that `widths` names, with the model's own weights.

    Args:
        model: The traced model; it is not modified.
        space: What `trace` returned for it.
        widths: The network: channels to keep of each group, and the gate of each block.

    Returns:
        A new module of the same classes whose tensors and channel attributes are smaller.

    Raises:
        UsageError: The widths do not belong to the space.
        ModelError: The model is not the one that was traced.

    Example:
        >>> small = hwprune.prune(model, space, space.uniform(0.5))
        >>> small(torch.zeros(1, 1, 16, 16)).shape
        torch.Size([1, 2])
    """
    chosen = space.check(widths)
    return prune_in_place(copy.deepcopy(model), space, chosen)


def prune_in_place(model: nn.Module, space: SearchSpace, widths: Sequence[int]) -> nn.Module:
    """Shrink `model` itself; see `prune`. The model may live on the meta device."""
    gone = [block.name for block in space.left_out(widths)]
    for block in space.left_out(widths):
        _leave_out(model, block)
    modules = dict(model.named_modules(remove_duplicate=False))
    shared: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for layer in space.layers:
        if any(not widths[gate] for gate in space.gates(layer.name)):
            continue
        for tensor in layer.tensors:
            if any(channels.groups for _, channels in tensor.axes):
                keep = [(axis, channels.kept(widths)) for axis, channels in tensor.axes]
                _shrink(modules, tensor, keep, shared)
        module = modules[layer.name.partition(_PARAMETRISED)[0]]
        set_channels(module, int(layer.inputs.count(widths)), int(layer.outputs.count(widths)))
    for attribute in space.attributes:
        if any(within(attribute.module, name) for name in gone):
            continue
        set_size(modules[attribute.module], attribute, int(attribute.size.count(widths)))
    return model


def light_copy(model: nn.Module) -> nn.Module:
    """A copy whose parameters are new but share their memory with the model's: never write to them."""
    shared: dict[int, Any] = {
        id(one): nn.Parameter(one.detach(), one.requires_grad)
        for one in model.parameters()
        if type(one) is nn.Parameter
    }
    return copy.deepcopy(model, shared)


def _leave_out(model: nn.Module, block: Block) -> None:
    """Put what passes the input on, or no channels, in a block's place, unless one around it went before."""
    owner, _, leaf = block.name.rpartition(".")
    with contextlib.suppress(AttributeError):
        old = model.get_submodule(block.name)
        simple = block.input and len(inspect.signature(old.forward).parameters) == 1
        setattr(model.get_submodule(owner), leaf, nn.Identity() if simple else Instead(block))


class Instead(nn.Module):
    """In the place of a block: returns its input, or, for a part of concatenations, no channels.

    Args:
        block: The block.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.channels = None if block.input else 0

    def forward(self, x: Any, *_others: Any, **_more: Any) -> torch.Tensor:
        """(N, C, H, W), or a list of such -> the first of them, or its first channels: (N, 0, H, W)."""
        while not torch.is_tensor(x):
            x = x[0]
        return x if self.channels is None else x[:, : self.channels]


def _shrink(
    modules: dict[str, nn.Module],
    tensor: Tensor,
    keep: list[tuple[int, NDArray[np.int64]]],
    shared: dict[int, tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Cut one tensor; one that several modules share stays shared."""
    owner, _, leaf = tensor.name.rpartition(".")
    old = getattr(modules.get(owner), leaf, None)
    if old is None or tuple(old.shape or (1,)) != tensor.shape:
        raise ModelError(
            "This is not the model that the search space was traced from.",
            where=tensor.name,
            got="no such tensor" if old is None else f"shape {tuple(old.shape)}",
            allowed=f"shape {tensor.shape}",
            do="give the unpruned model, or trace this one",
        )
    if id(old) not in shared:
        cut = old.detach()
        for axis, kept in keep:
            if len(kept) and kept[-1] - kept[0] + 1 == len(kept):
                cut = cut.narrow(axis, int(kept[0]), len(kept))
            else:
                cut = cut.index_select(axis, torch.as_tensor(kept, device=old.device))
        cut = cut.clone(memory_format=torch.contiguous_format)
        shared[id(old)] = old, nn.Parameter(cut, old.requires_grad) if isinstance(old, nn.Parameter) else cut
    module = modules[owner]
    held: dict[str, Any] = module._parameters if isinstance(old, nn.Parameter) else module._buffers
    held[leaf] = shared[id(old)][1]


def set_channels(module: nn.Module, inputs: int, outputs: int) -> None:
    """Bring a module's channel attributes in line with its tensors."""
    if isinstance(module, _CONVS):
        if module.groups > 1:
            across = outputs if module.transposed else inputs
            module.groups = across // module.weight.shape[1]
        module.in_channels, module.out_channels = inputs, outputs
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = inputs, outputs
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = outputs
    elif isinstance(module, nn.GroupNorm):
        if module.num_groups == module.num_channels:
            module.num_groups = outputs
        module.num_channels = outputs
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = (
            tuple(module.weight.shape) if module.weight is not None else module.normalized_shape
        )
    elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
        module.num_parameters = outputs


def set_size(module: nn.Module, attribute: Attribute, value: int) -> None:
    """Set a size that a module keeps as a number, alone or in a list."""
    old = getattr(module, attribute.name)
    if attribute.index < 0:
        new: object = value
    else:
        new = type(old)([value if place == attribute.index else entry for place, entry in enumerate(old)])
    setattr(module, attribute.name, new)
