"""Fold batch normalisation into convolutions, and what is computed from shapes into constants. No torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwprune.structure import graph as graphs
from hwprune.structure.onnx_metadata import BATCHED, FOLLOWING, note_places, places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwprune.structure.onnx_weights import Array, WeightedGraph


def fold(net: WeightedGraph) -> None:
    """Fold batch normalisation and shapes, in place."""
    fold_batch_norm(net)
    fold_shapes(net)


def fold_batch_norm(net: WeightedGraph) -> None:
    """Replace each Conv -> BatchNormalization pair by one Conv with a bias, in place.

    The weight keeps its name; the bias is named after it (`conv1.weight` -> `conv1.bias`). Folding scales
    whole output channels, so it commutes with slicing them.
    """
    graph = net.model.graph
    values = {
        node.output[0]: numpy_helper.to_array(a.t)
        for node in graph.node
        for a in node.attribute
        if node.op_type == "Constant" and a.name == "value"
    }
    values |= net.arrays
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    producers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    gone: set[str] = set()
    for norm in graph.node:
        conv = producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if (
            conv is not None
            and uses[conv.output[0]] == 1
            and uses[conv.input[1]] == 1
            and values.keys() >= {conv.input[1], *norm.input[1:5]}
            and all(uses[name] == 1 for name in conv.input[2:])
            and not any(a.name == "training_mode" and a.i for a in norm.attribute)
        ):
            gone.update(conv.input[1:])  # where these are operators: they become initialisers
            _fold(net, values, conv, norm)
            gone.add(norm.output[0])
    keep_nodes(graph, [n for n in graph.node if n.op_type == "Conv" or n.output[0] not in gone])
    _drop_unused(net)


def _fold(net: WeightedGraph, values: dict[str, Array], conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
    scale, shift, mean, variance = (values[name] for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    weight = conv.input[1]
    kernel = values[weight]
    bias = values[conv.input[2]] if len(conv.input) > 2 else np.float32(0)
    folded = (kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))).astype(kernel.dtype)
    name = weight.removesuffix(".weight") + ".bias"
    if name in values and name not in conv.input:  # somebody else's
        name = f"{weight}/bias"
    new_bias = ((bias - mean) * factor + shift).astype(kernel.dtype)
    for one, value in ((weight, folded), (name, new_bias)):
        net.put(one, value)
        values[one] = value
    del conv.input[2:]
    conv.input.append(name)
    conv.output[0] = norm.output[0]
    norm.output[0] += "/folded"


def fold_shapes(net: WeightedGraph) -> None:
    """Make constants of what operators compute from shapes, in place; note what follows the batch.

    Runtimes would do the same when they load the model, and so would not know the names from before.
    """
    model = net.model
    known = graphs.read(model)
    _drop_empty(model.graph, known.shapes)
    wanted = {name for node in known.nodes for name in node.values}
    folded = [name for name in sorted(wanted - net.arrays.keys()) if known.constants[name].dtype.kind != "f"]
    for name in folded:
        net.put(name, known.constants[name])
    gone = set(folded) - {name for node in known.nodes for name in node.outputs}
    keep_nodes(
        model.graph, [node for node in model.graph.node if not gone.issuperset(filter(None, node.output))]
    )
    drop_dead(model.graph)
    _drop_unused(net)
    parts = {name: found for name, found in places(model, BATCHED).items() if min(found) < 0}
    for key, flags, others in ((BATCHED, known.batched, parts), (FOLLOWING, known.following, {})):
        found = {name: np.flatnonzero(flags[name]).tolist() for name in sorted(wanted & flags.keys())}
        note_places(model, key, found | others)
    for entry in model.graph.output:
        shape = known.shapes.get(entry.name)
        if shape is not None:
            kind = entry.type.tensor_type.elem_type
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, shape))


def _drop_empty(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Concatenate nothing without channels, as layers that were left out make."""
    for node in graph.node:
        left = [name for name in node.input if 0 not in shapes.get(name, ())]
        if node.op_type == "Concat" and 0 < len(left) < len(node.input):
            node.input[:] = left


def drop_dead(graph: onnx.GraphProto) -> None:
    """Remove operators that nothing reads."""
    used = {entry.name for entry in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(names_read(node))
    keep_nodes(graph, kept[::-1])


def keep_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Leave only some operators; to remove them one by one would copy the rest each time."""
    copies = onnx.GraphProto()
    copies.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def names_read(node: onnx.NodeProto) -> list[str]:
    """What an operator reads, in the graphs inside it too."""
    inner = [name for a in node.attribute for n in a.g.node for name in names_read(n)]
    return [*node.input, *inner]


def _drop_unused(net: WeightedGraph) -> None:
    used = {name for node in net.model.graph.node for name in names_read(node)}
    net.keep(used | {output.name for output in net.model.graph.output})
