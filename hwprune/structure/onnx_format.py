"""In which number format an ONNX file computes, and which tensors are carried in another one. No torch."""

from __future__ import annotations

from typing import Any

import onnx

RECODING = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_QUANTISED = "_quantized"  # how ONNX Runtime's quantiser names an initialiser in 8 bits
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


def bare(name: str) -> str:
    """The name of a weight in the network that was quantised."""
    return name.removesuffix(_QUANTISED)


def carried(graph: Any) -> dict[str, str]:
    """Output of each operator that only changes a number format -> the tensor of the network it carries."""
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in RECODING:
            source = node.input[0]
            found[node.output[0]] = found.get(source, bare(source))
    return found
