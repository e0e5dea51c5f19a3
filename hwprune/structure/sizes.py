"""Sizes that a model's code holds as numbers: attributes such as `self.width`, by which channels are divided.

A split at `x.shape[1] // 2` follows its input; one at `self.width` follows only if that attribute is set
along with the channels. So attributes whose value is the size in question are looked for, in the module
that the operator belongs to and in those around it. The proof tells whether they were the right ones.
Numbers written in the code itself freeze.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hwprune.structure.layers import FROZEN, Attribute, ChannelMap
from hwprune.structure.onnx_metadata import OPEN, noted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hwprune.structure.export import Inputs
    from hwprune.structure.flow import Flow
    from hwprune.structure.groups import Groups
    from hwprune.structure.labels import Labels
    from hwprune.structure.node import Node

# Modules whose sizes `prune.set_channels` sets.
_MANAGED = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_LEAST = 2  # smaller numbers are too common to be taken for sizes


def find_attributes(
    model: nn.Module, groups: Groups, inputs: Inputs
) -> tuple[list[tuple[Attribute, Labels]], list[tuple[Labels, str]]]:
    """Attributes of modules that hold numbers of channels.

    Args:
        model: The model.
        groups: Its channel groups.
        inputs: Example inputs.

    Returns:
        The attributes, with the labels that each counts, (size,); and labels that stay because no attribute
        holds their number, with the reason.
    """
    attributes: dict[tuple[str, str, int], tuple[Attribute, Labels]] = {}
    constant: list[tuple[Labels, str]] = []
    modules = dict(model.named_modules())
    if not noted(groups.flow.graph.model, OPEN):
        return [], []
    for node in groups.flow.graph.nodes:
        home = module_path(modules, node.scope)
        if node.operator == "Conv" and isinstance(modules.get(home), _MANAGED):
            continue
        for part in _constant_sizes(groups, node):
            holders = _holders(modules, home, part)
            for path, name, index, labels in holders:
                attribute = Attribute(path, name, index, ChannelMap.frozen(len(labels)))
                attributes.setdefault((path, name, index), (attribute, labels))
            if not holders and node.operator in ("Split", "Slice"):
                reason = "cuts channels at sizes that are written in the model's code; take them from x.shape"
                constant.append((part.labels, node.because(reason)))
    read = _attributes_read(model, inputs, {path for path, _, _ in attributes}) if attributes else set()
    return [found for key, found in attributes.items() if key[:2] in read], constant


def _attributes_read(model: nn.Module, inputs: Inputs, paths: Collection[str]) -> set[tuple[str, str]]:
    """(module, attribute) that a forward pass reads of some modules: others may be equal by chance."""
    read: set[tuple[str, str]] = set()
    modules = {path: model.get_submodule(path) for path in paths}
    kinds = {path: type(module) for path, module in modules.items()}
    try:
        for path, module in modules.items():
            module.__class__ = _watched(kinds[path], path, read)
        with torch.no_grad():
            model(*copy.deepcopy(inputs))
    finally:
        for path, module in modules.items():
            module.__class__ = kinds[path]
    return read


def _watched(kind: type[nn.Module], path: str, read: set[tuple[str, str]]) -> type[nn.Module]:
    """A class that notes which attributes are read of its instance."""

    def getter(self: nn.Module, name: str) -> Any:
        read.add((path, name))
        return kind.__getattribute__(self, name)

    return type(kind.__name__, (kind,), {"__getattribute__": getter})


@dataclass(frozen=True)
class _Part:
    """A part of an axis whose size an operator holds as a constant.

    Attributes:
        labels: Canonical labels of the part; their number is the size.
        whole: Those of the whole axis, where the code may have divided it.
        sizes: All sizes of the operator.
        place: Which of them it is.
    """

    labels: Labels
    whole: Labels | None = None
    sizes: tuple[int, ...] = ()
    place: int = -1


def _constant_sizes(groups: Groups, node: Node) -> Iterator[_Part]:
    """Sizes of prunable parts that an operator holds as constants."""
    find = _FINDERS.get(node.operator)
    for part in find(groups.flow, node) if find is not None else ():
        whole = part.whole if node.operator == "Slice" else None  # a bound counts where any channel goes
        asked = part.labels if whole is None else whole
        if (groups.group[groups.flow.canonical[asked]] != FROZEN).any():
            yield part


def _of_split(flow: Flow, node: Node) -> Iterator[_Part]:
    axis = int(node.attributes.get("axis", 0)) % len(node.output_shapes[0])
    if len(node.inputs) > 1 and not node.follows(None):
        sizes = tuple(shape[axis] for shape in node.output_shapes)
        whole = flow.tensor(node.inputs[0]).line(axis)
        for place, name in enumerate(node.outputs):
            yield _Part(flow.tensor(name).line(axis), whole, sizes, place)


def _of_conv(flow: Flow, node: Node) -> Iterator[_Part]:
    """The number of conv groups, as in `F.conv2d(x, w, groups=self.channels)`."""
    if node.conv_groups > 1:
        yield _Part(flow.tensor(node.inputs[0]).line(1).reshape(node.conv_groups, -1)[:, 0])


def _of_slice(flow: Flow, node: Node) -> Iterator[_Part]:
    for axis, part in (node.slices() or {}).items():
        labels = flow.tensor(node.inputs[0]).line(axis)
        size = len(labels)
        if range(size)[part] != range(size):
            for place, bound in ((1, range(size)[part].start), (2, range(size)[part].stop)):
                if not node.follows(None, place) and 0 < bound < size:
                    yield _Part(labels[:bound], labels)


def _of_reshape(flow: Flow, node: Node) -> Iterator[_Part]:
    value = () if (known := node.value(1)) is None else tuple(known.tolist())
    for axis, (size, given) in enumerate(zip(node.output_shapes[0], value, strict=False)):
        if given == size > 1 and not node.follows(axis):
            yield _Part(flow.tensor(node.outputs[0]).line(axis), None, value, axis)


_FINDERS = {"Split": _of_split, "Conv": _of_conv, "Slice": _of_slice, "Reshape": _of_reshape}


def module_path(modules: dict[str, nn.Module], scope: str) -> str:
    """The module that a scope of the exporter names: `layer1/layer1.0/conv` -> `layer1.0.conv`."""
    path = ""
    for part in scope.split("/"):
        for name in (f"{path}.{part}".strip("."), f"{path}.{part.rpartition('.')[2]}".strip(".")):
            if name in modules:
                path = name
                break
    return path


def _holders(modules: dict[str, nn.Module], path: str, part: _Part) -> list[tuple[str, str, int, Labels]]:
    """Attributes of the operator's module, or one around it, that hold a size, with what they count."""
    parts = path.split(".") if path else []
    for count in range(len(parts), -1, -1):
        name = ".".join(parts[:count])
        if name not in modules or isinstance(modules[name], _MANAGED):
            continue
        found = [(a, i, part.labels) for a, i in _in_module(modules[name], part)]
        if not found and part.whole is not None:  # `self.channels // 2`
            whole = replace(part, labels=part.whole, sizes=(), place=-1)
            found = [(a, i, part.whole) for a, i in _in_module(modules[name], whole)]
        if found:
            return [(name, attribute, index, labels) for attribute, index, labels in found]
    return []


def _in_module(module: nn.Module, part: _Part) -> Iterator[tuple[str, int]]:
    for name, held in vars(module).items():
        if name.startswith("_") or len(part.labels) < _LEAST:
            continue
        if type(held) is int and held == len(part.labels):
            yield name, -1
        elif type(held) in (list, tuple) and part.sizes and tuple(held) == part.sizes:
            yield name, part.place
