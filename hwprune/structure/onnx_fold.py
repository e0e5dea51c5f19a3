"""Fold batch normalisation into the convolution before it, on an ONNX graph. No torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    import onnx


def fold_batch_norm(model: onnx.ModelProto) -> None:
    """Replace each Conv -> BatchNormalization pair by one Conv with a bias, in place.

    The weight keeps its name; the bias is named after it (`conv1.weight` -> `conv1.bias`). Folding scales
    whole output channels, so it commutes with slicing them.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    producers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    folded = []
    for norm in graph.node:
        conv = producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is not None and uses[conv.output[0]] == 1 and uses[conv.input[1]] == 1:
            _fold(graph, tensors, conv, norm)
            folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
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
    folded = values * factor.reshape(-1, 1, 1, 1)
    weight.CopyFrom(numpy_helper.from_array(folded.astype(values.dtype), weight.name))
    name = weight.name.removesuffix(".weight") + ".bias"
    new_bias = numpy_helper.from_array(((bias - mean) * factor + shift).astype(values.dtype), name)
    if name in tensors:
        tensors[name].CopyFrom(new_bias)
    else:
        tensors[name] = graph.initializer.add()
        tensors[name].CopyFrom(new_bias)
    del conv.input[2:]
    conv.input.append(name)
    conv.output[0] = norm.output[0]


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def set_metadata(model: onnx.ModelProto, facts: dict[str, str]) -> None:
    """Store `facts` in the model's metadata, replacing entries of the same name."""
    kept = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, {**kept, **facts})
