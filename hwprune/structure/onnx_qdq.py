"""Which tensor quantise/dequantise pairs and casts carry in another number format. No torch."""

from __future__ import annotations

from typing import Any

RECODING = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_QUANTISED = "_quantized"  # how ONNX Runtime's quantiser names an initialiser in 8 bits


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
