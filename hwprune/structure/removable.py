"""Blocks that may go: modules that pass their input on when their layers are silent.

Found by behaviour, on a model that runs. A module is a block when its output has the shape of its input, and
is its input once all convolutions, linear layers and norms inside make zeros: residual blocks of any kind,
whatever they are called. A container of nothing but such blocks is none: without it all of them are gone.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hwprune.structure.layers import Block, within
from hwprune.structure.sizes import module_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hwprune.structure.export import Inputs
    from hwprune.structure.graph import Graph
    from hwprune.structure.node import Node
    from hwprune.structure.space import SearchSpace

_SILENT = (
    *(nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase),
    *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)
_NEAR = 1e-5  # of the largest input


def find_blocks(
    model: nn.Module,
    inputs: Inputs,
    graph: Graph,
    space: SearchSpace,
    costs: Sequence[Node],
    exclude: Sequence[str] = (),
) -> tuple[Block, ...]:
    """The blocks of a model, in its order.

    Args:
        model: The traced model, in eval mode.
        inputs: Example inputs.
        graph: Its graph.
        space: Its space, without blocks.
        costs: The operators of the space's products.
        exclude: Patterns of blocks that must stay; a pattern that fits only layers inside one keeps their
            channels, not the block.
    """
    modules = dict(model.named_modules())
    paths = [module_path(modules, node.scope) for node in graph.nodes]
    names = _passing(model, inputs)
    found = [block for name in names if (block := _block(name, paths, graph, space, costs)) is not None]
    kept = [block for block in found if any(fnmatch.fnmatch(block.name, one) for one in exclude)]
    return tuple(
        block
        for block in found
        if not _contained(block, found) and not any(within(one.name, block.name) for one in kept)
    )


def _passing(model: nn.Module, inputs: Inputs) -> list[str]:
    """Modules that run once and pass their input on when their layers are silent."""
    calls: dict[str, list[torch.Tensor | None]] = {}
    hooks = [
        module.register_forward_pre_hook(_recorder(calls, name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and any(True for _ in module.children())
    ]
    with torch.no_grad():
        try:
            model(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return [
            name
            for name, seen in calls.items()
            if len(seen) == 1 and seen[0] is not None and _passes(model.get_submodule(name), seen[0])
        ]


def _recorder(calls: dict[str, list[torch.Tensor | None]], name: str) -> Callable[..., None]:
    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        single = len(args) == 1 and not kwargs and torch.is_tensor(args[0])
        calls.setdefault(name, []).append(args[0].clone() if single else None)

    return record


def _passes(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether a module returns its input, and only because its layers are silent."""
    silent = [one for one in module.modules() if isinstance(one, _SILENT)]
    if not silent or not x.is_floating_point():
        return False
    lively = _single(module(x.clone()))
    hooks = [one.register_forward_hook(_silence) for one in silent]
    try:
        result = _single(module(x.clone()))
    except Exception:  # code that cannot stand zeros; what it does then is not known
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return _near(result, x) and not _near(lively, x)


def _single(output: Any) -> torch.Tensor | None:
    return output if torch.is_tensor(output) else None


def _silence(_: nn.Module, _inputs: Any, output: Any) -> Any:
    return torch.zeros_like(output) if torch.is_tensor(output) else output


def _near(result: torch.Tensor | None, x: torch.Tensor) -> bool:
    if result is None or result.shape != x.shape or result.dtype != x.dtype:
        return False
    return bool((result - x).abs().max() <= _NEAR * x.abs().max())


def _block(
    name: str, paths: Sequence[str], graph: Graph, space: SearchSpace, costs: Sequence[Node]
) -> Block | None:
    """A module as a block; None where the graph shows more than one way in or out.

    Args:
        name: Its name.
        paths: The module that each operator of the graph is in.
        graph: The graph.
        space: Its space.
        costs: The operators of the space's products.
    """
    inside = [node for node, path in zip(graph.nodes, paths, strict=True) if within(path, name)]
    made = {one for node in inside for one in node.outputs}
    everywhere = {one for node in graph.nodes for one in node.outputs} | set(graph.inputs)
    read = {one for node in inside for one in node.inputs if one in everywhere and one not in made}
    outside = {one for node in graph.nodes if node.outputs[0] not in made for one in node.inputs}
    left = made & (outside | set(graph.outputs))
    layers = tuple(layer.name for layer in space.layers if within(layer.name, name))
    if len(read) != 1 or len(left) != 1 or not layers:
        return None
    products = tuple(index for index, node in enumerate(costs) if node.outputs[0] in made)
    return Block(name, read.pop(), left.pop(), layers, products)


def _contained(block: Block, found: Sequence[Block]) -> bool:
    """Whether all layers of a block are in other blocks inside it."""
    inner = {layer for one in found if one is not block for layer in one.layers if _is_inside(one, block)}
    return inner >= set(block.layers)


def _is_inside(one: Block, block: Block) -> bool:
    return one.name != block.name and within(one.name, block.name)
