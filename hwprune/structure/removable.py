"""Blocks that may go: modules that pass their input on when their layers are silent, or only add channels.

Found by behaviour, on a model that runs. A module is a block

- when its output has the shape of its input, and is its input once all convolutions, linear layers and norms
  inside make zeros: residual blocks of any kind, whatever they are called;
- or once convolutions and linear layers make zeros while norms and activations pass their input on: blocks
  with a norm in their shortcut, or a norm or activation behind their sum, which goes with the block;
- or when its output is only ever concatenated with all that it reads: dense layers (parts.py).

A container of nothing but such blocks is none: without it all of them are gone.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hwprune.structure.layers import Block, within
from hwprune.structure.parts import NO_SHORTCUT, NO_WAY, ONE_WAY, Parts
from hwprune.structure.sizes import module_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hwprune.structure.export import Inputs
    from hwprune.structure.groups import Groups
    from hwprune.structure.node import Node
    from hwprune.structure.space import SearchSpace

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_NEAR = 1e-5  # of the largest input
_OTHER_SHAPE = "its output has another shape than its input"
_INPUTS = "it takes several tensors"
_TWICE = "it runs more than once"
_FAILS = "its code fails without its layers"
_EXCLUDED = "it, or a block inside, is excluded"
_SAME = object()


class BlockFinder:
    """Finds the blocks of a model.

    Args:
        model: The traced model, in eval mode.
        inputs: Example inputs.
        groups: The channel groups of its graph.
        space: Its space, without blocks.
        costs: The operators of the space's products.

    Attributes:
        why: Module -> why it is no block.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, groups: Groups, space: SearchSpace, costs: Sequence[Node]
    ) -> None:
        self.space, self.costs = space, costs
        self.parts = Parts(groups, space.layers)
        self.modules = dict(model.named_modules())
        self.nodes: dict[str, list[Node]] = {}
        for node in groups.flow.graph.nodes:
            self.nodes.setdefault(module_path(self.modules, node.scope), []).append(node)
        self.calls = _calls(model, inputs)
        self.why: dict[str, str] = {}

    def find(self, exclude: Sequence[str] = ()) -> tuple[Block, ...]:
        """The blocks, in the model's order.

        Args:
            exclude: Patterns of blocks that must stay; a pattern that fits only layers inside one keeps their
                channels, not the block.
        """
        found: dict[str, Block] = {}
        with torch.no_grad():
            for loose in (False, True):
                for name in reversed(self.calls):  # what is inside before what is around it
                    if loose and (self.why.get(name) != NO_SHORTCUT or _around(name, found)):
                        continue
                    block = self._block(name, loose=loose)
                    if isinstance(block, Block):
                        found[name] = block
                        self.why.pop(name, None)
                    else:
                        self.why[name] = block
        kept = [name for name in found if any(fnmatch.fnmatch(name, pattern) for pattern in exclude)]
        blocks = [found[name] for name in self.modules if name in found]
        blocks = [block for block in blocks if not _contained(block, blocks)]
        excluded = {block.name for block in blocks if any(within(one, block.name) for one in kept)}
        self.why |= dict.fromkeys(excluded, _EXCLUDED)
        return tuple(block for block in blocks if block.name not in excluded)

    def kept(self, blocks: Sequence[Block]) -> dict[str, str]:
        """Modules that look like blocks -> why they may not go.

        They are of the class of a block; where there are no blocks, of any class of which the model has
        several modules with several layers each.
        """
        gone = {block.name for block in blocks}
        kinds = {type(self.modules[name]) for name in gone} or {
            kind for kind, count in Counter(map(type, self.modules.values())).items() if count > 1
        }
        found: dict[str, str] = {}
        for name in [name for name in self.modules if name in self.why]:
            module = self.modules[name]
            layers = sum(isinstance(one, _WEIGHTED) for one in module.modules())
            plain = type(module) in kinds - {nn.Sequential} and layers > 1
            if plain and name not in gone and not any(within(name, outer) for outer in found):
                found[name] = self.why[name]
        return found

    def _block(self, name: str, *, loose: bool) -> Block | str:
        """A module as a block, or why it is none."""
        inside = [node for path, nodes in self.nodes.items() if within(path, name) for node in nodes]
        layers = tuple(layer.name for layer in self.space.layers if within(layer.name, name))
        part = self.parts.part(inside)
        if len(self.calls[name]) > 1:
            return _TWICE
        if not (part.single and layers):
            return ONE_WAY if part.left else NO_WAY
        fault = _fault(self.modules[name], self.calls[name][0], loose=loose)
        if not fault and len(part.reads) == 1:
            place: tuple[str, tuple[int, ...]] | str = (part.reads[0], ())
        else:
            place = self.parts.segment(part, layers)
        if isinstance(place, str):
            return place if place != NO_SHORTCUT else fault or _INPUTS
        products = tuple(index for index, node in enumerate(self.costs) if node.outputs[0] in part.made)
        reads = () if (place[0],) == part.reads else part.reads
        return Block(name, place[0], part.left[0], layers, products, place[1], reads)


@dataclass(frozen=True)
class _Call:
    """One call of a module, all tensors of which are one and the same.

    Attributes:
        x: The tensor.
        args: Arguments; where one is the tensor, `_SAME`.
        kwargs: Likewise.
    """

    x: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def of(self, module: nn.Module) -> Any:
        """What a module returns."""
        x = self.x.clone()
        args = [x if one is _SAME else one for one in self.args]
        return module(*args, **{name: x if one is _SAME else one for name, one in self.kwargs.items()})


def _calls(model: nn.Module, inputs: Inputs) -> dict[str, list[_Call | None]]:
    """Module with others inside -> its calls, None for each that is given other than one tensor."""
    calls: dict[str, list[_Call | None]] = {}
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
    return calls


def _recorder(calls: dict[str, list[_Call | None]], name: str) -> Callable[..., None]:
    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args and torch.is_tensor(args[0]) else None
        own = [_SAME if one is x else one for one in args]
        more = {key: _SAME if one is x else one for key, one in kwargs.items()}
        plain = all(
            one in (_SAME, None) or isinstance(one, bool | int | float) for one in (*own, *more.values())
        )
        single = plain and x is not None and x.is_floating_point()
        found = _Call(x.clone(), tuple(own), more) if single and x is not None else None
        calls.setdefault(name, []).append(found)

    return record


def _fault(module: nn.Module, call: _Call | None, *, loose: bool) -> str:
    """Why a module does not return its input when its layers are silent; "" where it does."""
    if call is None:
        return _INPUTS
    x, lively = call.x, call.of(module)
    if not torch.is_tensor(lively) or lively.shape != x.shape or lively.dtype != x.dtype:
        return _OTHER_SHAPE
    weighted = [one for one in module.modules() if isinstance(one, _WEIGHTED)]
    others: list[nn.Module] = [one for one in module.modules() if isinstance(one, _NORMS)]
    if loose:
        hooks = [one.register_forward_hook(_silence) for one in weighted]
        others += [one for one in module.modules() if _is_activation(one)]
        hooks += [one.register_forward_hook(_pass_on) for one in others]
    else:
        hooks = [one.register_forward_hook(_silence) for one in (*weighted, *others)]
    try:
        silent = call.of(module)
    except Exception:  # code that cannot stand zeros; what it does then is not known
        return _FAILS
    finally:
        for hook in hooks:
            hook.remove()
    layers = weighted if loose else hooks
    return "" if layers and _near(silent, x) and not _near(lively, x) else NO_SHORTCUT


def _silence(_: nn.Module, _inputs: Any, output: Any) -> Any:
    return torch.zeros_like(output) if torch.is_tensor(output) else output


def _pass_on(_: nn.Module, inputs: tuple[Any, ...], _output: Any) -> Any:
    return inputs[0]


def _is_activation(module: nn.Module) -> bool:
    """Whether a module computes each number from one number, and 0 from 0."""
    if isinstance(module, nn.PReLU):
        return True
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        return False
    values = torch.linspace(-2.0, 2.0, 5)
    try:
        alone = torch.cat([module(value.reshape(1)) for value in values])
        return bool(torch.equal(module(values.clone()), alone) and alone[2] == 0)
    except Exception:  # it wants other shapes: not an activation
        return False


def _near(result: Any, x: torch.Tensor) -> bool:
    if not torch.is_tensor(result) or result.shape != x.shape:
        return False
    return bool((result - x).abs().max() <= _NEAR * x.abs().max())


def _around(name: str, found: Mapping[str, Block]) -> bool:
    return any(within(one, name) for one in found)


def _contained(block: Block, found: Sequence[Block]) -> bool:
    """Whether all layers of a block are in other blocks inside it."""
    inner = {layer for one in found if one is not block for layer in one.layers if _is_inside(one, block)}
    return inner >= set(block.layers)


def _is_inside(one: Block, block: Block) -> bool:
    return one.name != block.name and within(one.name, block.name)
