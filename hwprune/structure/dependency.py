"""Raw channel groups of a torch model, read off Torch-Pruning's dependency graph.

The graph itself, its tracing and its index mapping are Torch-Pruning's (Fang et al., "DepGraph", CVPR 2023).
What is added here: grouped convolutions couple their two sides, groups that pass through a view which does
not keep the channel axis are marked, and an analysis that explodes is stopped.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch_pruning.pruner.function import ConvPruner

from hwprune.errors import ModelError
from hwprune.structure.deadline import DeadlineExceeded, deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_ROOTS = (nn.Conv2d, nn.Linear)
_SUPPORTED = (
    nn.Conv2d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.PReLU,
    nn.Parameter,
)


@dataclass(frozen=True)
class Member:
    """One axis of one layer in a raw group: local channel `local[i]` goes with root channel `root[i]`."""

    layer: str
    axis: str  # "in" or "out"
    local: NDArray[np.int64]
    root: NDArray[np.int64]


@dataclass
class RawGroup:
    """A group as found; `problem` says why it must not be pruned, if so."""

    name: str
    width: int
    members: list[Member] = field(default_factory=list)
    multiple: int = 1
    problem: str | None = None


class _CoupledConv2d(nn.Conv2d):
    """A grouped convolution whose two sides are pruned together, a whole conv group at a time."""


class _CoupledPruner(ConvPruner):  # type: ignore[misc]
    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        return layer  # only the group is wanted; nothing is pruned through Torch-Pruning

    prune_in_channels = prune_out_channels  # one function for both sides is how Torch-Pruning couples them


class _Graph(tp.DependencyGraph):  # type: ignore[misc]
    """Torch-Pruning's graph that carries on past views it cannot map, and remembers them."""

    def _build_dependency(self, module2node: dict[Any, Any]) -> None:
        self.opaque_nodes = {node for node in module2node.values() if _is_opaque(node)}
        for node in self.opaque_nodes:
            node.type = tp.ops.OPTYPE.ELEMENTWISE  # its index mapping would be wrong, or divide by zero
        super()._build_dependency(module2node)


def _is_opaque(node: Any) -> bool:
    """Whether a reshape mixes the channel axis with others in a way that index mapping cannot follow."""
    if node.type != tp.ops.OPTYPE.RESHAPE:
        return False
    before = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
    metadata = getattr(node.grad_fn, "_input_metadata", None)
    if before is None or not metadata:
        return True
    source, result = tuple(before), tuple(metadata[0].shape)
    if len(source) == 1 and max(result) == source[0] == math.prod(result):
        return False  # a vector of weights, one for each channel, made ready for broadcasting
    if min(len(source), len(result)) < 2:
        return True
    keeps_channels = source[:2] == result[:2]
    flattens = len(source) == 4 and len(result) == 2 and result == (source[0], math.prod(source[1:]))
    # a linear layer on a channels-last tensor runs as (..., C) -> (positions, C) -> (..., C)
    keeps_last = source[-1] == result[-1] and min(len(source), len(result)) == 2
    return not (keeps_channels or flattens or keeps_last)


def find_groups(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], max_seconds: float
) -> tuple[list[RawGroup], dict[str, str]]:
    """Every group of channels that the model's layers force to be pruned together.

    Args:
        model: Not modified; a copy is traced.
        inputs: Example inputs, on the model's device.
        max_seconds: Limit on the whole analysis.

    Returns:
        The groups in the model's order, and layer -> reason for the layers that could not be analysed.

    Raises:
        ModelError: The model cannot be run or traced at all.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    for module in twin.modules():
        if type(module) is nn.Conv2d and _is_grouped(module):
            module.__class__ = _CoupledConv2d
    stop = time.thread_time() + max_seconds
    graph = _build(twin, inputs, max_seconds / 2)
    names = {module: name for name, module in twin.named_modules()}
    names.update({parameter: name for name, parameter in twin.named_parameters()})
    groups: list[RawGroup] = []
    skipped: dict[str, str] = {}
    visited: set[str] = set()
    for root in _roots(twin, graph):
        if names[root] in visited:
            continue
        left = stop - time.thread_time()
        if left <= 0:
            skipped[names[root]] = "there was no time left to analyse it"
            continue
        try:
            with deadline(min(left, max_seconds / 4)):
                group = _read_group(graph, root, names)
        except DeadlineExceeded:
            skipped[names[root]] = f"its dependency analysis did not end within {max_seconds / 4:.1f} s"
            continue
        except (IndexError, KeyError, ValueError, ZeroDivisionError, AttributeError, TypeError) as error:
            skipped[names[root]] = (
                f"Torch-Pruning cannot follow its channels ({type(error).__name__}: {error})"
            )
            continue
        groups.append(group)
        visited |= {member.layer for member in group.members if member.axis == "out"}
    return groups, skipped


def _is_grouped(conv: nn.Conv2d) -> bool:
    return conv.groups > 1 and conv.groups != conv.out_channels and conv.in_channels == conv.out_channels


def _build(twin: nn.Module, inputs: tuple[torch.Tensor, ...], max_seconds: float) -> Any:
    try:
        with warnings.catch_warnings(), torch.enable_grad(), deadline(max_seconds):
            warnings.simplefilter("ignore")
            return _Graph().build_dependency(
                twin, inputs, customized_pruners={_CoupledConv2d: _CoupledPruner()}, verbose=False
            )
    except DeadlineExceeded as error:
        raise ModelError(
            "The dependency analysis of this model did not end in time.",
            where=type(twin).__name__,
            allowed=f"{max_seconds:.0f} s",
            do="raise max_seconds, or exclude the part of the model that is unusual",
        ) from error
    except (
        Exception
    ) as error:  # whatever the user's forward or the tracer raises, the model is what to look at
        raise ModelError(
            "This model cannot be traced.",
            where=type(twin).__name__,
            got=f"{type(error).__name__}: {error}",
            do="check that the model runs on the example inputs in eval mode and returns tensors",
        ) from error


def _roots(twin: nn.Module, graph: Any) -> Iterator[nn.Module]:
    for module in twin.modules():  # the model's own order keeps group numbers stable and readable
        if isinstance(module, _ROOTS) and module in graph.module2node:
            yield module


def _read_group(graph: Any, root: nn.Module, names: dict[Any, str]) -> RawGroup:
    pruner = graph.get_pruner_of_module(root)
    width = int(pruner.get_out_channels(root))
    items = graph.get_pruning_group(root, pruner.prune_out_channels, list(range(width)))
    group = RawGroup(names[root], width)
    for item in items:
        node = item.dep.target
        if node.type == tp.ops.OPTYPE.OUTPUT:
            group.problem = group.problem or "its channels are the model's outputs"
        elif node in graph.opaque_nodes:
            group.problem = (
                group.problem or "its channels pass through a view that mixes them with another axis"
            )
        elif node.module in names and not isinstance(node.module, tp.ops._ElementWiseOp):
            _add_member(group, graph, item, node.module, names[node.module])
    return group


def _add_member(group: RawGroup, graph: Any, item: Any, module: Any, name: str) -> None:
    if not isinstance(module, _SUPPORTED):
        group.problem = group.problem or f"it feeds {name}, a {type(module).__name__}"
        return
    axis = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        _couple(group, module, name, item)
    if isinstance(module, nn.GroupNorm):
        group.multiple = math.lcm(group.multiple, module.num_groups)
    local, root = np.asarray(item.idxs, dtype=np.int64), np.asarray(item.root_idxs, dtype=np.int64)
    group.members.append(Member(name, axis, local, root))


def _couple(group: RawGroup, conv: nn.Conv2d, name: str, item: Any) -> None:
    """A grouped convolution loses whole conv groups, so widths come in steps of one conv group."""
    if conv.in_channels != conv.out_channels:
        group.problem = group.problem or f"it meets {name}, a grouped convolution that changes its width"
    elif conv.groups != conv.out_channels:
        group.multiple = math.lcm(group.multiple, conv.out_channels // conv.groups)
        if item.idxs != item.root_idxs or len(item.idxs) != conv.out_channels:
            group.problem = (
                group.problem or f"it is only a part of the input of {name}, a grouped convolution"
            )
