"""Read ONNX Runtime's profiler: from its trace and its optimised graph to one `KernelTime` per kernel.

The optimiser renames what it fuses, so kernels are traced back to the tensor they produce: a fused node
that keeps the NCHW layout still writes the original tensor; one moved to the blocked NCHWc layout is named
after the tensor it made before the move, with `_nchwc` behind it; a quantised one moved to NHWC writes a
tensor with the name of the node it was; reorders read or write an original tensor.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from hwprune import artifacts
from hwprune.errors import StorageError
from hwprune.runtimes.base import KernelTime
from hwprune.runtimes.probes import model_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

HIGHEST_FLOOR_US = 5.0  # more than this is a loaded machine, not the profiler's own cost
LEAST_US = 0.1
_SUFFIX = "_kernel_time"
_RENAMES = ("_bn_nchwc", "_nchwc")
# Kernels that only change the layout or the number format of a tensor; a Transpose only when it was inserted.
_REORDERS = ("ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear")
_MAX_TRACE_BYTES = 512 * 2**20


def with_node_names(content: bytes) -> bytes:
    """The same model with a unique name for each node: the profiler knows nodes by name only."""
    model = onnx.load_model_from_string(content)
    names = [node.name for node in model.graph.node]
    if all(names) and len(set(names)) == len(names):
        return content
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return bytes(model.SerializeToString())


def noop_chain(length: int = 32) -> bytes:
    """A network of nodes that do next to nothing."""
    shape = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Neg", [f"t{index}"], [f"t{index + 1}"], name=f"n{index}")
        for index in range(length)
    ]
    ends = [shape(name, onnx.TensorProto.FLOAT, [4]) for name in ("t0", f"t{length}")]
    graph = onnx.helper.make_graph(nodes, "noop", ends[:1], ends[1:])
    return model_bytes(graph)


def kernel_times(
    trace: Path, optimised: Path, content: bytes, runs: int, floor_us: float
) -> list[KernelTime]:
    """Kernels of one profiled session.

    Args:
        trace: The file that `end_profiling` named.
        optimised: The graph that ONNX Runtime executed.
        content: The model as it was given to ONNX Runtime.
        runs: How many of the last runs count; those before were warm-up.
        floor_us: What the profiler reports for a kernel that does nothing; taken off each time.

    Returns:
        One entry per executed node, in execution order.
    """
    try:
        events = json.loads(artifacts.read_bytes(trace, limit=_MAX_TRACE_BYTES))
    except ValueError as error:
        raise StorageError(
            "ONNX Runtime's profile is cut off.",
            where=trace,
            got=str(error),
            do="free some space there, or set TMPDIR to a folder that has some",
        ) from error
    origins = _origins(optimised, content)
    durations: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event.get("name", "").endswith(_SUFFIX):
            facts = event["args"]
            node = (
                event["name"].removesuffix(_SUFFIX),
                facts.get("op_name", ""),
                facts.get("node_index", ""),
            )
            durations.setdefault(node, []).append(float(event["dur"]))
    return [
        _kernel(_next_origin(origins, name, op), op, np.asarray(times[-runs:]), floor_us)
        for (name, op, _), times in durations.items()
    ]


class _Origin(NamedTuple):
    """What an executed node is in the graph that was given.

    Attributes:
        tensor: The tensor it makes, or, for a reorder, changes.
        reorder: Whether it only changes a layout or a number format.
    """

    tensor: str | None
    reorder: bool = False


def _next_origin(origins: dict[str, list[_Origin]], name: str, op: str) -> _Origin:
    """The origin of an executed node; the trace calls one without a name `<op>_<index>`, so order tells."""
    waiting = origins.get(name) or origins.get(f"#{op}", [])
    return waiting.pop(0) if waiting else _Origin(None)


def _kernel(origin: _Origin, op: str, times_us: NDArray[np.float64], floor_us: float) -> KernelTime:
    low, high = np.percentile(times_us, (25, 75))
    # The trace has whole microseconds; the mean of the middle half is as robust as a median, and finer.
    cut = len(times_us) // 4
    middle = np.sort(times_us)[cut : len(times_us) - cut].mean()
    return KernelTime(
        tensor=origin.tensor,
        op=op,
        reorder=origin.reorder,
        time_us=max(float(middle) - floor_us, LEAST_US),
        spread_us=float(high - low) / 2,
        runs=len(times_us),
    )


def _origins(optimised: Path, content: bytes) -> dict[str, list[_Origin]]:
    """Name (`#op` when unnamed) of executed nodes -> what each was in the given graph."""
    given = _Given(onnx.load_model_from_string(content).graph)
    origins: dict[str, list[_Origin]] = {}
    made: dict[str, str | None] = {
        name: name for name in given.tensors
    }  # executed graph's tensor -> original
    for node in onnx.load_model_from_string(artifacts.read_bytes(optimised)).graph.node:
        tensor = given.tensor_of(node, made)
        inserted = node.op_type == "Transpose" and given.makers.get(tensor or "") != "Transpose"
        origin = _Origin(tensor, inserted or node.op_type in _REORDERS)
        origins.setdefault(node.name or f"#{node.op_type}", []).append(origin)
        made.update(dict.fromkeys(node.output, tensor))
    return origins


class _Given:
    """The graph as it was given to ONNX Runtime.

    Attributes:
        by_node: Name of a node -> the tensor it makes.
        makers: Tensor -> the operator that makes it.
        tensors: All feature maps.
    """

    def __init__(self, graph: Any) -> None:
        self.by_node: dict[str, str] = {node.name: node.output[0] for node in graph.node}
        self.makers: dict[str, str] = {node.output[0]: node.op_type for node in graph.node}
        self.tensors: set[str] = {*self.makers, *(entry.name for entry in graph.input)}

    def tensor_of(self, node: Any, made: Mapping[str, str | None]) -> str | None:
        """The original tensor of an executed node; `made` tells it for the nodes before."""
        names: list[str] = [*node.output, *(node.name.removesuffix(suffix) for suffix in _RENAMES)]
        if node.op_type in _REORDERS:
            names = [*node.output, *node.input[:1]]
        if (found := next((name for name in names if name in self.tensors), None)) is not None:
            return found
        by_node = (self.by_node.get(name) for name in (node.name, node.output[0]))
        if (found := next(filter(None, by_node), None)) is not None:
            return found
        # Part of a decomposed operator, or a reorder of a renamed tensor: it belongs to what made its input.
        return next((made[name] for name in node.input if made.get(name) is not None), None)
