"""Read OpenVINO's per-node counters: one `KernelTime` per executed node.

Each executed node tells which operators of the given graph it is made of. Operators are therefore named
before the network is compiled, and a node's whole time belongs to the last of its operators, in the order of
the given graph: the one that makes the node's output. Which operators were executed together is left to
`structure.fusion`, as for every runtime.

A `Reorder` that stands for no operator only changes the layout, and so does a quantiser that is executed by
itself change the number format only: such nodes count as reorders of the tensor that they read. A node that
OpenVINO's own transformations put in belongs to what made its first input.

A counter is the mean of whole microseconds, cut off, over all runs since the network was compiled. Times of
single runs are therefore differences of sums, each right to one microsecond for each run before it. Their
mean is right to a microsecond; a run in which other programs had the core counts as a median one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from hwprune.runtimes.base import KernelTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_CUT_US = 0.5  # what cutting off takes from a number on average
_LEAST_US = 0.1
_RECODING = ("QuantizeLinear", "DequantizeLinear")
_OUTLIER = 2.0  # times the median run


class Given(NamedTuple):
    """The graph as it was given to OpenVINO.

    Attributes:
        tensors: Name of an operator, or of an output or input of the network -> its tensor.
        position: Tensor -> its place in the order of the operators.
        recoded: Tensors that only carry another one in a different number format.
    """

    tensors: dict[str, str]
    position: dict[str, int]
    recoded: frozenset[str]


def with_node_names(content: bytes) -> tuple[bytes, Given]:
    """The same model with a name for each operator that OpenVINO cannot take apart, and what they mean."""
    model = onnx.load_model_from_string(content)
    tensors, position = {}, {}
    for index, node in enumerate(model.graph.node):
        node.name = f"hwprune{index}"
        tensors[node.name] = node.output[0]
        position[node.output[0]] = index
    # The operator behind an output or input of the network is called as its tensor is.
    tensors.update({entry.name: entry.name for entry in (*model.graph.input, *model.graph.output)})
    recoded = frozenset(node.output[0] for node in model.graph.node if node.op_type in _RECODING)
    return bytes(model.SerializeToString()), Given(tensors, position, recoded)


def kernel_times(runtime_model: Any, given: Given, reports: Sequence[Any], before: int) -> list[KernelTime]:
    """Kernels of one profiled network.

    Args:
        runtime_model: The graph that OpenVINO executes.
        given: What `with_node_names` told.
        reports: The counters of all nodes after the warm-up, and after each run from there on.
        before: Runs of the warm-up.

    Returns:
        One entry per executed node, in execution order.
    """
    counted = [
        {entry.node_name: entry.real_time.total_seconds() * 1e6 for entry in report if _executed(entry)}
        for report in reports
    ]
    kernels = []
    for node in _origins(runtime_model, given):
        if node.name in counted[-1]:
            means_us = np.array([report.get(node.name, 0.0) for report in counted])
            kernels.append(_kernel(node, run_times(means_us, before)))
    return kernels


def run_times(means_us: NDArray[np.float64], before: int) -> NDArray[np.float64]:
    """Times of single runs from a counter that holds the mean of all runs so far.

    Args:
        means_us: The counter after `before` runs and after each run from there on, (R + 1,), microseconds.
        before: Runs before the first.

    Returns:
        Microseconds of each run, (R,), each right to one microsecond for each run before it; a run that other
        programs disturbed has the median instead.
    """
    runs = np.arange(before, before + len(means_us))
    times = np.diff(means_us * runs)
    middle = float(np.median(times))
    return np.where(times > _OUTLIER * max(middle, 0.0) + runs[1:], middle, times)


def _executed(entry: Any) -> bool:
    return str(entry.status).endswith("EXECUTED")


class _Node(NamedTuple):
    """An executed node: its name, its operation, the tensor that it makes or changes."""

    name: str
    op: str
    tensor: str | None
    reorder: bool


def _kernel(node: _Node, times_us: NDArray[np.float64]) -> KernelTime:
    low, high = np.percentile(times_us, (25, 75))
    return KernelTime(
        tensor=node.tensor,
        op=node.op,
        reorder=node.reorder,
        time_us=max(float(times_us.mean()) + _CUT_US, _LEAST_US),
        spread_us=float(high - low) / 2,
        runs=len(times_us),
    )


def _origins(runtime_model: Any, given: Given) -> list[_Node]:
    """What each node of the executed graph is in the given one, in execution order."""
    found, made = [], dict[str, str | None]()
    operators = [(_facts(one), one) for one in runtime_model.get_ordered_ops()]
    for facts, operator in sorted(operators, key=lambda pair: int(pair[0]["execOrder"])):
        sources = [port.get_source_output().get_node().get_friendly_name() for port in operator.inputs()]
        name, op = operator.get_friendly_name(), facts["layerType"]
        own = [tensor for part in facts["originalLayersNames"].split(",") if (tensor := _tensor(part, given))]
        tensor = max(own, key=lambda one: given.position.get(one, -1), default=None)
        if tensor is None:
            tensor = next((made[source] for source in sources if made.get(source) is not None), None)
        reorder = (op == "Reorder" and not own) or (bool(own) and given.recoded.issuperset(own))
        made[name] = tensor
        found.append(_Node(name, op, tensor, reorder))
    return found


def _facts(operator: Any) -> dict[str, str]:
    """What OpenVINO tells of an executed node, as text."""
    told: Mapping[str, Any] = operator.get_rt_info()
    keys = ("execOrder", "layerType", "originalLayersNames")
    return {key: str(getattr(told[key], "value", told[key])) for key in keys}


def _tensor(part: str, given: Given) -> str | None:
    """The tensor of one of the operators that a node was made of; one that was split has a longer name."""
    return given.tensors.get(part) or given.tensors.get(part.split("/")[0])
