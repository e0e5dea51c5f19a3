"""`trace`: from a torch model to its `SearchSpace`.

Steps: find the raw groups (dependency.py), resolve overlaps, write every tensor axis as a `ChannelMap`, then
try the groups, down to single ones where that fails (trial.py), and freeze those that break the model.
"""

from __future__ import annotations

import fnmatch
import math
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hwprune.errors import HwpruneWarning, ModelError, nearest
from hwprune.structure.dependency import RawGroup, find_groups
from hwprune.structure.space import (
    FROZEN,
    PAPER_RATIOS,
    ChannelGroup,
    ChannelMap,
    Layer,
    Run,
    SearchSpace,
    Tensor,
    make_choices,
)
from hwprune.structure.trial import broken_groups, record_positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_Axes = dict[tuple[str, str], ChannelMap]
_TRIAL_PATIENCE = 3  # trials end by themselves; this only stops a model whose forward takes for ever
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def trace(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    name: str = "model",
    exclude: Sequence[str] = (),
    max_seconds: float = 8.0,
) -> SearchSpace:
    """Find the channel groups of any CNN.

    What cannot be pruned safely is frozen: kept at full width, listed in `SearchSpace.frozen`, and named in
    an `HwpruneWarning` with the reason. The model's outputs are never pruned.

    Args:
        model: Any module whose forward runs on `example_inputs` in eval mode; it is not modified.
        example_inputs: One batch, (N, C, H, W), or a tuple of such inputs.
        name: The model's name, kept in the space.
        exclude: Patterns (`layer4.*`) of layers whose output channels must stay.
        max_seconds: Limit on the dependency analysis, in seconds of computing; what is not analysed by then
            is frozen. Trying the groups is stopped likewise, at three times the limit.

    Returns:
        The space, with the paper's 31 ratios as each group's choices.

    Raises:
        ModelError: The model does not run on the inputs, cannot be traced, or has nothing to prune.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    positions = record_positions(model, inputs)
    raw, frozen = find_groups(model, inputs, max_seconds)
    _exclude(model, raw, exclude)
    owners = _Owners(model)
    for group in raw:
        owners.claim(group)
    keep = [group for group in raw if group.problem is None]
    stop = time.thread_time() + _TRIAL_PATIENCE * max_seconds
    while True:  # each round freezes at least one group, so it ends
        space = _assemble(model, keep, owners, positions, name, tuple(inputs[0].shape))
        broken = broken_groups(model, space, inputs, stop)
        if not broken:
            break
        for index, reason in broken.items():
            keep[index].problem = reason
        keep = [group for group in keep if group.problem is None]
    frozen.update({group.name: group.problem for group in raw if group.problem})
    if not space.groups:
        raise ModelError("Nothing in this model can be pruned.", where=name, got=_list_reasons(frozen))
    _warn(name, frozen)
    return SearchSpace(name, space.input_shape, space.groups, space.layers, frozen)


def _exclude(model: nn.Module, groups: list[RawGroup], patterns: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ModelError(
                "A pattern of layers to exclude fits no layer.",
                got=repr(pattern),
                allowed=nearest(pattern, names),
                do="mend `exclude` under [model]",
            )
    for group in groups:
        for member in group.members:
            if member.axis == "out" and any(fnmatch.fnmatch(member.layer, pattern) for pattern in patterns):
                group.problem = group.problem or f"{member.layer} is excluded"


def _list_reasons(frozen: Mapping[str, str]) -> str:
    return "; ".join(f"{layer}: {reason}" for layer, reason in frozen.items())


def _warn(name: str, frozen: Mapping[str, str]) -> None:
    notable = {layer: reason for layer, reason in frozen.items() if "model's outputs" not in reason}
    if notable:
        text = f"{name}: {len(notable)} channel group(s) keep their full width. {_list_reasons(notable)}"
        warnings.warn(text, HwpruneWarning, stacklevel=3)


class _Owners:
    """Who owns each local channel of each layer axis; a channel claimed twice freezes both claimants."""

    def __init__(self, model: nn.Module) -> None:
        self.sizes = {}
        for name, module in [*model.named_modules(), *model.named_parameters()]:
            for axis, size in _axis_sizes(module).items():
                self.sizes[name, axis] = size
        self.claims: dict[tuple[str, str], list[RawGroup]] = {}

    def claim(self, group: RawGroup) -> None:
        """Enter a group's members, marking it and others where they overlap or repeat a channel."""
        for member in group.members:
            key = (member.layer, member.axis)
            if member.local.max(initial=-1) >= self.sizes[key]:
                group.problem = group.problem or f"its channels cannot be followed into {member.layer}"
                continue
            if len(set(member.local.tolist())) != len(member.local):
                group.problem = group.problem or f"it meets itself in {member.layer}"
            for other in self.claims.setdefault(key, []):
                if set(_local(other, key)) & set(member.local.tolist()):
                    group.problem = group.problem or f"it shares channels of {member.layer} with {other.name}"
                    other.problem = other.problem or f"it shares channels of {member.layer} with {group.name}"
            self.claims[key].append(group)

    def maps(self, keep: Sequence[RawGroup]) -> _Axes:
        """The channel map of every axis that one of the kept groups touches."""
        index = {id(group): position for position, group in enumerate(keep)}
        result = {}
        for key, claimants in self.claims.items():
            group_of = np.full(self.sizes[key], FROZEN, dtype=np.int64)
            root_of = np.zeros(self.sizes[key], dtype=np.int64)
            for group in claimants:
                if id(group) in index:
                    for member in group.members:
                        if (member.layer, member.axis) == key:
                            group_of[member.local] = index[id(group)]
                            root_of[member.local] = member.root
            result[key] = encode_runs(group_of, root_of)
        return result


def _local(group: RawGroup, key: tuple[str, str]) -> list[int]:
    return [int(i) for m in group.members if (m.layer, m.axis) == key for i in m.local]


def _axis_sizes(module: nn.Module | nn.Parameter) -> dict[str, int]:
    """Channels on the prunable axes of a supported layer."""
    if isinstance(module, nn.Conv2d):
        return {"in": module.in_channels, "out": module.out_channels}
    if isinstance(module, nn.Linear):
        return {"in": module.in_features, "out": module.out_features}
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return {"out": module.num_features}
    if isinstance(module, nn.LayerNorm):
        return {"out": module.normalized_shape[-1]}
    if isinstance(module, nn.GroupNorm):
        return {"out": module.num_channels}
    if isinstance(module, nn.PReLU):
        return {"out": module.num_parameters}
    if isinstance(module, nn.Parameter):
        return {"out": module.shape[_parameter_axis(module)]}
    return {}


def _parameter_axis(parameter: torch.Tensor) -> int:
    """The axis that Torch-Pruning prunes of a bare parameter: the last one longer than 1."""
    return max((axis for axis, size in enumerate(parameter.shape) if size > 1), default=0)


def encode_runs(group_of: NDArray[np.int64], root_of: NDArray[np.int64]) -> ChannelMap:
    """Write two arrays over local channels (group, root channel) as the fewest runs."""
    runs: list[Run] = []
    local, size = 0, len(group_of)
    while local < size:
        group, start = int(group_of[local]), int(root_of[local])
        if group == FROZEN:
            end = local + int(np.argmax(np.append(group_of[local:] != FROZEN, True)))
            runs.append(Run(FROZEN, 0, end - local))
            local = end
            continue
        same = (group_of[local:] == group) & (root_of[local:] == start)
        repeat = int(np.argmax(np.append(~same, True)))
        steps = np.arange(size - local) // repeat
        follows = (group_of[local:] == group) & (root_of[local:] == start + steps)
        length = int(np.argmax(np.append(~follows, True))) // repeat
        runs.append(Run(group, start, length, repeat))
        local += length * repeat
    return ChannelMap(tuple(runs))


def _assemble(
    model: nn.Module,
    keep: Sequence[RawGroup],
    owners: _Owners,
    positions: Mapping[str, int],
    name: str,
    input_shape: tuple[int, ...],
) -> SearchSpace:
    axes = owners.maps(keep)
    groups = tuple(
        ChannelGroup(g.name, g.width, g.multiple, make_choices(g.width, g.multiple, 1, PAPER_RATIOS))
        for g in keep
    )
    layers = [_layer(path, module, axes, positions) for path, module in model.named_modules()]
    return SearchSpace(name, input_shape, groups, tuple(layer for layer in layers if layer is not None))


def _layer(path: str, module: nn.Module, axes: _Axes, positions: Mapping[str, int]) -> Layer | None:
    """Describe a module that owns tensors directly, or return None."""
    own: list[tuple[str, torch.Tensor, bool]]
    own = [(leaf, tensor, False) for leaf, tensor in module.named_parameters(recurse=False)]
    own += [(leaf, tensor, True) for leaf, tensor in module.named_buffers(recurse=False) if tensor.ndim > 0]
    if not own:
        return None
    sizes = _axis_sizes(module)
    outputs = axes.get((path, "out")) or ChannelMap.frozen(sizes.get("out", 1))
    coupled = not isinstance(module, nn.Conv2d | nn.Linear) or _grouped(module)
    inputs = outputs if coupled and "in" not in sizes else axes.get((path, "in"))
    if coupled and "in" in sizes:
        inputs = outputs if sizes["in"] == sizes["out"] else ChannelMap.frozen(sizes["in"])
    inputs = inputs or ChannelMap.frozen(sizes.get("in", 1))
    tensors = tuple(
        _tensor(f"{path}.{leaf}" if path else leaf, leaf, module, tensor, axes, inputs, outputs, buffer)
        for leaf, tensor, buffer in own
    )
    if isinstance(module, nn.Conv2d):
        kernel, stride = tuple(module.kernel_size), tuple(module.stride)
        return Layer(
            path, "conv", inputs, outputs, (kernel[0], kernel[1]), (stride[0], stride[1]), module.groups,
            positions.get(path, 0), tensors,
        )  # fmt: skip
    op = "linear" if isinstance(module, nn.Linear) else "norm" if isinstance(module, _NORMS) else None
    op = op or ("prelu" if isinstance(module, nn.PReLU) else "parameter")
    return Layer(
        path, op, inputs, outputs, positions=positions.get(path, 0 if op == "linear" else 1), tensors=tensors
    )


def _grouped(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1


def _tensor(
    name: str, leaf: str, module: nn.Module, tensor: torch.Tensor, axes: _Axes,
    inputs: ChannelMap, outputs: ChannelMap, buffer: bool,
) -> Tensor:  # fmt: skip
    """The maps of one tensor's axes: output channels first, then input channels where it has them."""
    shape = tuple(tensor.shape)
    if isinstance(module, nn.Conv2d | nn.Linear):
        maps = [(0, outputs)]
        if leaf == "weight" and not _grouped(module):
            maps.append((1, inputs))
    elif isinstance(module, (*_NORMS, nn.PReLU)):
        maps = [(len(shape) - 1, outputs)]
    else:
        bare = axes.get((name, "out"))
        maps = [(_parameter_axis(tensor), bare)] if bare is not None else []
    prunable = tuple((axis, channels) for axis, channels in maps if channels.groups)
    return (
        Tensor(name, shape or (1,), prunable, buffer) if math.prod(shape) else Tensor(name, (1,), (), buffer)
    )
