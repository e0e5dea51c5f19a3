"""An ONNX file from anywhere, brought into the form that hwprune works with. No torch."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import version_converter

from hwprune.errors import ModelError
from hwprune.structure.onnx_fold import fold, keep_nodes
from hwprune.structure.onnx_graph import consistency, parse_model
from hwprune.structure.onnx_weights import WeightedGraph, keep_inputs
from hwprune.structure.resolve import CUTTABLE

_OLDEST_OPSET = 13  # in older ones sizes of parts and axes are attributes


def read_onnx(model: bytes | str | Path) -> bytes:
    """The content of an ONNX file.

    Raises:
        ModelError: There is no such file.
    """
    if isinstance(model, bytes):
        return model
    if not isinstance(model, str | Path):
        raise ModelError(
            "This is not an ONNX file.",
            got=type(model).__name__,
            allowed="a path, or the bytes of a file (`ModelProto.SerializeToString()`)",
        )
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError("There is no such ONNX file.", where=path, do="check the path")
    return path.read_bytes()


def prepare_onnx(model: bytes | str | Path) -> bytes:
    """A file as hwprune works with it: weights as initialisers, sizes as constants, batch norm folded.

    Args:
        model: An ONNX file or its content, with fixed input sizes; only the batch may be open, and becomes 1.

    Raises:
        ModelError: No such file, not an ONNX model, or one with open sizes or weights in other files.

    Example:
        >>> content = hwprune.prepare_onnx("net.onnx")
        >>> isinstance(content, bytes)
        True
    """
    return prepared(read_onnx(model)).content()


def prepared(content: bytes) -> WeightedGraph:
    """The same from a file's content, its weights beside the graph."""
    proto = parse_model(content)
    with consistency():
        proto = _renewed(proto)
        _name_operators(proto)
        _share_no_vectors(proto)
        net = WeightedGraph.of(proto)
        keep_inputs(proto, lambda name: name not in net.arrays)  # old files list weights too
        fold(net)
    return net


def _renewed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an operator set that is new enough."""
    if not model.graph.node:
        raise ModelError(
            "There is no network in this ONNX model.",
            got="a graph without operators",
            do="export it anew; an empty file reads like this too",
        )
    known = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)
    if known >= _OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, _OLDEST_OPSET)
    except Exception as error:  # the converter raises errors of its own
        raise ModelError(
            "This ONNX model is too old to be read, and cannot be converted.",
            got=f"operator set {known}: {str(error)[:200]}",
            allowed=f"operator set {_OLDEST_OPSET} or newer",
            do="export it anew with a newer operator set",
        ) from error


def _name_operators(model: onnx.ModelProto) -> None:
    """Give operators names, and turn weights that are constants of the graph into initialisers."""
    kept = []
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        value = node.attribute[0].t if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if value is not None and value.data_type in CUTTABLE and len(value.dims):
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    if len(kept) < len(model.graph.node):
        keep_nodes(model.graph, kept)


def _share_no_vectors(model: onnx.ModelProto) -> None:
    """Give each operator its own vectors: exporters merge equal biases, which need not stay equal."""
    vectors = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 1}
    read: set[str] = set()
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in read and name in vectors:
                node.input[place] = f"{name}/{node.name}"
                copy = model.graph.initializer.add()
                copy.CopyFrom(vectors[name])
                copy.name = node.input[place]
            read.add(name)
