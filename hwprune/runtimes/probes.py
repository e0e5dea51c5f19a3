"""Small ONNX networks made on the spot: to time a machine, to find its staircase, to try a runtime."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

OPSET, IR_VERSION = 17, 8


def conv_chain(
    channels: Sequence[int], *, size: int = 14, kernel: int = 3, batch: int = 1, seed: int = 0
) -> bytes:
    """A chain of convolutions, each followed by a ReLU: `channels[0]` -> `channels[1]` -> ...

    Weights are called `conv0.weight`, `conv1.weight` ...; tensors `input`, `conv0`, `relu0`, ..., `output`.

    Args:
        channels: Input channels, then the output channels of each convolution.
        size: Height and width of all feature maps.
        kernel: Height and width of the odd-sized kernels.
        batch: Images in one run.
        seed: Seed of the random weights.

    Returns:
        The serialised model.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Any] = []
    weights: list[Any] = []
    name = "input"
    last = len(channels) - 2
    for index, (reads, makes) in enumerate(itertools.pairwise(channels)):
        weight = rng.standard_normal((makes, reads, kernel, kernel), dtype=np.float32) / (kernel * reads**0.5)
        weights.append(numpy_helper.from_array(weight, f"conv{index}.weight"))
        nodes.append(_conv(name, index, kernel))
        name = "output" if index == last else f"relu{index}"
        nodes.append(onnx.helper.make_node("Relu", [f"conv{index}"], [name], name=f"relu{index}"))
    ends = [("input", channels[0]), ("output", channels[-1])]
    shapes = [
        onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [batch, count, size, size])
        for end, count in ends
    ]
    return model_bytes(onnx.helper.make_graph(nodes, "chain", shapes[:1], shapes[1:], weights))


def _conv(source: str, index: int, kernel: int) -> Any:
    return onnx.helper.make_node(
        "Conv",
        [source, f"conv{index}.weight"],
        [f"conv{index}"],
        name=f"node_conv{index}",
        kernel_shape=[kernel, kernel],
        pads=[kernel // 2] * 4,
    )


def model_bytes(graph: Any) -> bytes:
    """A graph as a serialised model, with versions that every supported runtime reads."""
    opset = onnx.helper.make_opsetid("", OPSET)
    return bytes(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString()
    )
