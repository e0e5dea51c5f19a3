"""In which number format an ONNX file computes."""

from __future__ import annotations

import onnx

_INTEGERS = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"})
_FLOATS = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}


def number_format(content: bytes) -> str:
    """`int8` where anything is quantised, else `fp16` or `bf16` where weights are in it, else `fp32`."""
    graph = onnx.load_model_from_string(content).graph
    if any(node.op_type in _INTEGERS for node in graph.node):
        return "int8"
    constants = (value.t for node in graph.node if node.op_type == "Constant" for value in node.attribute)
    kinds = {_FLOATS.get(tensor.data_type, "fp32") for tensor in (*graph.initializer, *constants)}
    return min(kinds - {"fp32"}, default="fp32")
