"""Conversion of an ONNX model to 16-bit floats, by ONNX Runtime's converter."""

from __future__ import annotations

import onnx

from hwprune.errors import DeviceError, ModelError


def half(content: bytes) -> bytes:
    """The network with weights and activations in 16 bits; inputs and outputs stay in 32.

    Raises:
        DeviceError: ONNX Runtime, whose converter is used, is not here.
        ModelError: It cannot convert the network.
    """
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise DeviceError(
            "ONNX Runtime's converter cannot be loaded.", got=error, do="pip install onnxruntime"
        ) from error
    try:
        model = convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True)
        _sort(model.graph)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
    except Exception as error:  # the converter raises whatever goes wrong inside
        raise ModelError(
            "The network cannot be converted to fp16.", got=f"{type(error).__name__}: {error}"[:300]
        ) from error


def _sort(graph: onnx.GraphProto) -> None:
    """Put every node behind those it reads: the converter leaves its casts of inputs at the end."""
    made = {name for node in graph.node for name in node.output}
    known: set[str] = set()
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if all(name in known or name not in made for name in node.input):
                ordered.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError(f"{later[0].op_type} is part of a cycle")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)
