"""Fold batch normalisation into convolutions, and what is computed from shapes into constants. No torch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwprune.structure import graph as graphs
from hwprune.structure.onnx_metadata import batched, note_batched, note_following


def fold(model: onnx.ModelProto) -> None:
    """Fold batch normalisation and shapes, in place."""
    fold_batch_norm(model)
    fold_shapes(model)


def fold_batch_norm(model: onnx.ModelProto) -> None:
    """Replace each Conv -> BatchNormalization pair by one Conv with a bias, in place.

    The weight keeps its name; the bias is named after it (`conv1.weight` -> `conv1.bias`). Folding scales
    whole output channels, so it commutes with slicing them.
    """
    graph = model.graph
    tensors = {
        node.output[0]: a.t
        for node in graph.node
        for a in node.attribute
        if a.name == "value" and a.HasField("t")
    }
    tensors |= {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    producers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    folded = []
    for norm in graph.node:
        conv = producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if (
            conv is not None
            and uses[conv.output[0]] == 1
            and uses[conv.input[1]] == 1
            and tensors.keys() >= {conv.input[1], *norm.input[1:5]}
            and all(uses[name] == 1 for name in conv.input[2:])
            and not any(a.name == "training_mode" and a.i for a in norm.attribute)
        ):
            _fold(graph, tensors, conv, norm)
            folded.append(norm)
    gone = {norm.output[0] for norm in folded}
    kept = [n for n in graph.node if n.op_type != "BatchNormalization" or n.output[0] not in gone]
    keep_nodes(graph, kept)
    _drop_unused(graph)


def _fold(
    graph: onnx.GraphProto, tensors: dict[str, onnx.TensorProto], conv: onnx.NodeProto, norm: onnx.NodeProto
) -> None:
    scale, shift, mean, variance = (numpy_helper.to_array(tensors[name]) for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    weight = tensors[conv.input[1]]
    values = numpy_helper.to_array(weight)
    bias = numpy_helper.to_array(tensors[conv.input[2]]) if len(conv.input) > 2 else np.float32(0)
    folded = values * factor.reshape(-1, *[1] * (values.ndim - 1))
    weight.CopyFrom(numpy_helper.from_array(folded.astype(values.dtype), weight.name))
    name = weight.name.removesuffix(".weight") + ".bias"
    if name in tensors and name not in conv.input:  # somebody else's
        name = f"{weight.name}/bias"
    new_bias = numpy_helper.from_array(((bias - mean) * factor + shift).astype(values.dtype), name)
    if name in tensors:
        tensors[name].CopyFrom(new_bias)
    else:
        tensors[name] = graph.initializer.add()
        tensors[name].CopyFrom(new_bias)
    del conv.input[2:]
    conv.input.append(name)
    conv.output[0] = norm.output[0]
    norm.output[0] += "/folded"


def fold_shapes(model: onnx.ModelProto) -> None:
    """Make constants of what operators compute from shapes, in place; note what follows the batch.

    Runtimes would do the same when they load the model, and so would not know the names from before.
    """
    known = graphs.read(model)
    wanted = {name for node in known.nodes for name in node.values}
    own = {tensor.name for tensor in model.graph.initializer}
    folded = [name for name in sorted(wanted - own) if known.constants[name].dtype.kind != "f"]
    for name in folded:
        value = np.array(known.constants[name], order="C")
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    gone = set(folded) - {name for node in known.nodes for name in node.outputs}
    keep_nodes(
        model.graph, [node for node in model.graph.node if not gone.issuperset(filter(None, node.output))]
    )
    drop_dead(model.graph)
    follows = sorted(wanted & known.batched.keys())
    flags: dict[str, list[int]] = {name: np.flatnonzero(known.batched[name]).tolist() for name in follows}
    flags |= {name: places for name, places in batched(model).items() if min(places) < 0}
    if flags:
        note_batched(model, flags)
    follows = sorted(wanted & known.following.keys())
    if follows:
        note_following(model, {name: np.flatnonzero(known.following[name]).tolist() for name in follows})
    for entry in model.graph.output:
        shape = known.shapes.get(entry.name)
        if shape is not None:
            kind = entry.type.tensor_type.elem_type
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, shape))


def drop_dead(graph: onnx.GraphProto) -> None:
    """Remove operators and weights that nothing reads."""
    used = {entry.name for entry in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(names_read(node))
    keep_nodes(graph, kept[::-1])
    _drop_unused(graph)


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


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in names_read(node)} | {
        output.name for output in graph.output
    }
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
