"""From the groups of a graph to a `SearchSpace`: layers, products, and why channels stay. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.flow import OUTPUTS, Flow, weight_behind
from hwprune.structure.layers import ChannelGroup, ChannelMap, Layer, Product, Tensor
from hwprune.structure.space import PAPER_RATIOS, SearchSpace, make_choices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hwprune.structure.groups import Axis, Groups
    from hwprune.structure.node import Node


MODEL_OUTPUTS = "its channels are the model's outputs"
_KINDS = {
    "Conv": "conv",
    "ConvTranspose": "deconv",
    "DeformConv": "conv",
    "Gemm": "linear",
    "MatMul": "linear",
}


@dataclass(frozen=True)
class Owned:
    """A parameter or buffer and whose it is.

    Attributes:
        shape: Its shape.
        module: The module that owns it.
        layer: The layer that it belongs to: the same, but for what stands behind a parametrised weight.
        buffer: Whether it is a buffer.
        kind: The layer's kind, where it is no convolution or linear layer.
    """

    shape: tuple[int, ...]
    module: str
    layer: str
    buffer: bool = False
    kind: str = "parameter"


@dataclass(frozen=True)
class Weighted:
    """A convolution or matrix product and the weight it uses.

    Attributes:
        node: The operator.
        kind: `conv`, `deconv` or `linear`.
        weight: The weight's name, "" when both factors depend on the network's inputs.
        made: Axis of that weight whose positions are the channels it makes.
        side: Which of the operator's inputs the weight is behind: 1, or 0 for a weight on the left.
    """

    node: Node
    kind: str
    weight: str
    made: int
    side: int


def weighted(flow: Flow) -> list[Weighted]:
    """All convolutions and matrix products of a graph, in order; looked up once for each settled flow."""
    if flow.weighted is None:
        flow.weighted = tuple(_weighted(flow))
    return list(flow.weighted)


def _weighted(flow: Flow) -> list[Weighted]:
    found = []
    for node in flow.graph.nodes:
        kind = _KINDS.get(node.operator)
        if kind is None or (kind == "linear" and not any(flow.tensor(name).data for name in node.inputs[:2])):
            continue  # a weight that is computed of others
        side = 0 if kind == "linear" and not flow.tensor(node.inputs[0]).data else 1
        name = "" if flow.tensor(node.inputs[side]).data else weight_behind(flow.graph, node.inputs[side])
        found.append(Weighted(node, kind, name, _made(flow, node, side, name) if name else 0, side))
    return found


def _out_axis(node: Node, side: int) -> int:
    """Axis of the factor itself, as the operator reads it, that becomes channels."""
    if node.operator == "ConvTranspose":
        return 1 if node.conv_groups == 1 else 0
    if node.operator == "Gemm":
        return 0 if node.attributes.get("transB" if side else "transA") else 1
    return 0 if node.operator != "MatMul" else (-1 if side else -2)


def _made(flow: Flow, node: Node, side: int, weight: str) -> int:
    """The weight's own axis, found by its labels where the factor is computed of it."""
    factor, shape = node.inputs[side], flow.graph.weights[weight]
    axis = _out_axis(node, side) % len(flow.tensor(factor).shape)
    while factor != weight and (maker := flow.graph.makers[factor]).operator == "Transpose":
        order = maker.attributes.get("perm", range(len(maker.output_shapes[0]))[::-1])
        axis, factor = order[axis], maker.inputs[0]
    if factor == weight:
        return axis
    tensor = flow.tensor(factor)
    line = tensor.line(axis)
    for own in range(len(shape)):
        labels = flow.axes.get((weight, own))
        if labels is not None and line.any() and np.array_equal(flow.canonical[labels], line):
            return own
    return min(axis, len(shape) - 1)


def products(
    groups: Groups, found: Sequence[Weighted], owned: Mapping[str, Owned], images: int
) -> list[tuple[Node, Product]]:
    """Each convolution and matrix product, and what it costs.

    Args:
        groups: The channel groups.
        found: What `weighted` found.
        owned: Whose each weight is.
        images: Images in the example batch.
    """
    made = [(one.node, _product(groups, one, owned, images)) for one in found]
    sums = [node for node in groups.flow.graph.nodes if node.operator == "Einsum"]
    return made + [(node, _einsum(groups.flow, node, images)) for node in sums]


def _product(groups: Groups, one: Weighted, owned: Mapping[str, Owned], images: int) -> Product:
    flow, node = groups.flow, one.node
    made = node.output_shapes[0]
    layer = owned[one.weight].layer if one.weight in owned else ""
    if one.kind == "linear":
        return _matrix_product(groups, one, layer, images)
    x, factor = flow.tensor(node.inputs[0]), flow.tensor(node.inputs[1])
    if one.kind == "conv":
        lines = factor.line(0), factor.line(1)
        positions = math.prod(factor.shape[2:]) * math.prod(made[2:]) * made[0]
    else:
        lines = factor.line(1), factor.line(0)
        positions = math.prod(factor.shape[2:]) * math.prod(x.shape[2:]) * x.shape[0]
    images = images if flow.tensor(node.outputs[0]).data else 1  # a projection of fixed positions runs once
    outputs, reads = (groups.map(line) for line in lines)
    return Product(layer, outputs, reads, max(1, positions // images))


def _matrix_product(groups: Groups, one: Weighted, layer: str, images: int) -> Product:
    """(..., m, k) times (..., k, n): of m and n at most one follows channels, the other counts positions."""
    node, made = one.node, one.node.output_shapes[0]
    left, right = (groups.flow.tensor(name) for name in node.inputs[:2])
    columns = 0 if node.operator == "Gemm" and node.attributes.get("transB") else -1
    read = left.line(0 if node.attributes.get("transA") else len(left.shape) - 1)
    result = groups.flow.tensor(node.outputs[0])
    lines = [result.line(axis) for axis in range(len(made))]
    vector = len(right.shape) == 1
    made_by = np.zeros(1, dtype=np.int64) if vector else right.line(columns % len(right.shape))
    outputs = next((line for line in lines if line.any()), made_by)
    positions = math.prod(made) // len(outputs)
    return Product(layer, groups.map(outputs), groups.map(read), max(1, positions // images))


def _einsum(flow: Flow, node: Node, images: int) -> Product:
    """A product that keeps all its channels: every combination of its indices."""
    terms = node.attributes["equation"].decode().replace(" ", "").partition("->")[0].split(",")
    sizes = {
        index: size
        for term, name in zip(terms, node.inputs, strict=True)
        for index, size in zip(term, flow.tensor(name).shape, strict=False)
    }
    one = ChannelMap.frozen(1)
    return Product("", one, one, max(1, math.prod(sizes.values()) // images))


def layers(groups: Groups, found: Sequence[Weighted], owned: Mapping[str, Owned]) -> tuple[Layer, ...]:
    """Every module that owns tensors, in the model's order."""
    using: dict[str, Weighted] = {}
    for one in found:
        if one.weight in owned:
            using.setdefault(owned[one.weight].module, one)
    modules: dict[str, list[Tensor]] = {}
    for name, tensor in owned.items():
        modules.setdefault(tensor.module, []).append(_tensor(groups, name, tensor.shape, tensor.buffer))
    kinds = {tensor.module: tensor.kind for tensor in owned.values()}
    return tuple(_layer(groups, name, own, using.get(name), kinds[name]) for name, own in modules.items())


def _tensor(groups: Groups, name: str, shape: tuple[int, ...], buffer: bool) -> Tensor:
    axes = []
    if name in groups.flow.graph.weights:
        maps = [(axis, groups.axis((name, axis))) for axis, size in enumerate(shape) if size > 1]
        axes = [(axis, channels) for axis, channels in maps if channels.groups]
    return Tensor(name, shape or (1,), tuple(axes), buffer)


def _layer(groups: Groups, name: str, tensors: Sequence[Tensor], one: Weighted | None, kind: str) -> Layer:
    if one is not None:
        x = groups.flow.tensor(one.node.inputs[1 - one.side])
        axis = 1 if one.kind in ("conv", "deconv") else len(x.shape) - 1
        reads = x.line(axis if one.side else len(x.shape) - 2)
        made = groups.axis((one.weight, one.made))
        if one.kind == "deconv" and made.size != one.node.output_shapes[0][1]:
            made = groups.map(groups.flow.tensor(one.node.outputs[0]).line(1))
        return Layer(name, one.kind, groups.map(reads), made, tuple(tensors))
    maps = [channels for tensor in tensors for _, channels in tensor.axes]
    outputs = maps[0] if maps else ChannelMap.frozen(tensors[0].shape[0])
    return Layer(name, kind, outputs, outputs, tuple(tensors))


def reasons(groups: Groups, makers: Mapping[Axis, str]) -> dict[str, str]:
    """Layer -> why its channels, or some of them, stay."""
    found: dict[str, str] = {}
    for axis, layer in makers.items():
        labels = groups.flow.axes.get(axis)
        if labels is None:
            continue
        stays = groups.group[groups.flow.canonical[labels]] < 0
        if not stays.any() or layer in found:
            continue
        reason = groups.why_frozen(labels[stays])
        reason = MODEL_OUTPUTS if reason == OUTPUTS else reason
        part = "" if stays.all() else f"{int(stays.sum())} of {len(stays)} channels stay: "
        found[layer] = part + reason
    return found


def make_space(
    groups: Groups, name: str, input_shape: tuple[int, ...], owned: Mapping[str, Owned]
) -> SearchSpace:
    """The search space of some groups, with the paper's 31 ratios as each group's choices.

    Args:
        groups: The channel groups.
        name: The model's name.
        input_shape: Shape of the first input, (N, C, H, W).
        owned: Every parameter and buffer, by name, in the model's order.
    """
    found = weighted(groups.flow)
    entries = zip(groups.names, groups.widths, groups.multiples, strict=True)
    return SearchSpace(
        model=name,
        input_shape=input_shape,
        groups=tuple(
            ChannelGroup(owned[weight].layer, width, many, make_choices(width, many, 1, PAPER_RATIOS))
            for (weight, _), width, many in entries
        ),
        layers=layers(groups, found, owned),
        frozen=reasons(groups, makers(groups.flow, owned)),
        products=tuple(one for _, one in products(groups, found, owned, max(1, input_shape[0]))),
    )


def makers(flow: Flow, owned: Mapping[str, Owned]) -> dict[Axis, str]:
    """Output axis of each convolution and linear layer -> the layer, in the order of the model's tensors."""
    order = {name: place for place, name in enumerate(owned)}
    found = {(one.weight, one.made): owned[one.weight].layer for one in weighted(flow) if one.weight in owned}
    return dict(sorted(found.items(), key=lambda entry: order[entry[0][0]]))
