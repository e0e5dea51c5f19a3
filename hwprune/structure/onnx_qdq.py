"""What quantise/dequantise pairs and casts stand for: the tensor that they carry in another number format.

No torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwprune.structure.layers import ChannelMap

    Axes = tuple[tuple[int, ChannelMap], ...]

RECODING = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_QUANTISED = "_quantized"  # how ONNX Runtime's quantiser names an initialiser in 8 bits


def carried(graph: Any) -> dict[str, str]:
    """Output of each operator that only changes a number format -> the tensor of the network it carries."""
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in RECODING:
            source = node.input[0]
            found[node.output[0]] = found.get(source, source.removesuffix(_QUANTISED))
    return found


def quantised_axes(
    graph: Any, axes: Mapping[str, Axes], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, Axes]:
    """Prunable axes of quantised initialisers, and of the scales and zero points of their channels.

    Args:
        graph: The ONNX graph.
        axes: Prunable axes of the 32-bit network's initialisers, by name.
        arrays: The initialisers.
    """
    found: dict[str, Axes] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in arrays:
            continue
        where = axes.get(node.input[0].removesuffix(_QUANTISED), ())
        found[node.input[0]] = where
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        channels = dict(where).get(axis if arrays[node.input[0]].ndim > 1 else 0)
        for name in node.input[1:]:
            if channels is not None and arrays[name].shape == (channels.size,):
                found[name] = ((0, channels),)
    return found
