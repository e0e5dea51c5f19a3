"""What people would use in place of hwprune's latency model, on the same networks in the same run.

- `macs`: latency as a line in the network's MACs, fitted to the table's networks.
- `isolated_layers`: each layer timed alone and summed, as OFA, NetAdapt and HALP do.
- `random_forest`: a random forest per kernel family on raw sizes, as nn-Meter's. It learns from hwprune's own
  table, so it is better off than nn-Meter, whose kernels are timed alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper
from sklearn.ensemble import RandomForestRegressor

from hwprune.latency.features import columns, macs
from hwprune.latency.measure import low_percentile
from hwprune.runtimes.probes import model_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.latency.table import LatencyTable
    from hwprune.runtimes.base import Runtime, TargetProfile
    from hwprune.structure.kernels import KernelSpec, NetworkKernels
    from hwprune.structure.space import SearchSpace, Widths

_LAYERS = ("conv", "dwconv", "groupconv", "linear")  # what such tables hold; the rest counts as nothing
_RUNS = 15


def by_macs(table: LatencyTable, space: SearchSpace, networks: Sequence[Widths]) -> NDArray[np.float64]:
    """Milliseconds of networks by a line in their MACs: (N,)."""
    known = np.column_stack([space.macs(table.widths), np.ones(len(table.networks))]).astype(np.float64)
    measured_ms = table.networks["latency_ms"].to_numpy()
    line = np.linalg.lstsq(known / measured_ms[:, None], np.ones(len(known)), rcond=None)[0]
    return np.asarray(space.macs(np.array(networks)) * line[0] + line[1])


def by_random_forest(
    table: LatencyTable, kernels: NetworkKernels, networks: Sequence[Widths]
) -> NDArray[np.float64]:
    """Milliseconds of networks by random forests on raw kernel sizes: (N,)."""
    specs, time_us = table.specs(), table.kernels["time_us"].to_numpy()
    families = np.array([spec.family for spec in specs])
    wanted = [_specs(kernels, widths) for widths in networks]
    found_ms = np.zeros(len(networks))
    for family in sorted(set(families)):
        rows = np.flatnonzero(families == family)
        forest = RandomForestRegressor(100, random_state=0, n_jobs=1)
        forest.fit(_raw_sizes([specs[row] for row in rows]), time_us[rows])
        for index, network in enumerate(wanted):
            if members := [spec for spec in network if spec.family == family]:
                found_ms[index] += forest.predict(_raw_sizes(members)).sum() / 1e3
    return found_ms


def _specs(kernels: NetworkKernels, widths: Widths) -> list[KernelSpec]:
    """The kernels that a network has; those of blocks that it does without are left out."""
    network = np.array([widths])
    pairs = zip(kernels.slots, kernels.specs(widths), strict=True)
    return [spec for slot, spec in pairs if slot.present(network)[0]]


def _raw_sizes(specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
    """nn-Meter's features: map size, channels, kernel, stride, MACs, parameters."""
    c = columns(specs)
    area = c["kernel_h"] * c["kernel_w"]
    parameters = c["in_channels"] * c["out_channels"] * area / c["groups"]
    sizes = ("height", "in_channels", "out_channels", "kernel_h", "stride")
    return np.column_stack([*(c[name] for name in sizes), macs(specs), parameters])


def by_isolated_layers(
    runtime: Runtime, profile: TargetProfile, kernels: NetworkKernels, networks: Sequence[Widths]
) -> NDArray[np.float64]:
    """Milliseconds of networks by timing each of their layers alone: (N,)."""
    timed: dict[KernelSpec, float] = {}
    found_ms = np.zeros(len(networks))
    for index, widths in enumerate(networks):
        for spec in _specs(kernels, widths):
            if spec.family in _LAYERS:
                if spec not in timed:
                    timed[spec] = _timed_ms(runtime, profile, spec)
                found_ms[index] += timed[spec]
    return found_ms


def _timed_ms(runtime: Runtime, profile: TargetProfile, spec: KernelSpec) -> float:
    with runtime.compile(runtime.lower(_single_layer(spec), profile), profile) as session:
        session.time_runs(3)
        return low_percentile(session.time_runs(_RUNS))


def _single_layer(spec: KernelSpec) -> bytes:
    """One layer with its activation as an ONNX model."""
    rng = np.random.default_rng(0)
    if spec.family == "linear":
        shape, reads = (spec.out_channels, spec.in_channels), [spec.batch, spec.in_channels]
        makes = [spec.batch, spec.out_channels]
        options: dict[str, Any] = {"transB": 1}
    else:
        shape = (spec.out_channels, spec.in_channels // spec.groups, spec.kernel_h, spec.kernel_w)
        reads = [spec.batch, spec.in_channels, spec.height * spec.stride, spec.width * spec.stride]
        makes = [spec.batch, spec.out_channels, spec.height, spec.width]
        pads = [(spec.kernel_h - 1) // 2, (spec.kernel_w - 1) // 2]
        options = {
            "kernel_shape": [spec.kernel_h, spec.kernel_w],
            "strides": [spec.stride] * 2,
            "pads": pads * 2,
            "group": spec.groups,
        }
    weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    bias = np.zeros(spec.out_channels, dtype=np.float32)
    op = "Gemm" if spec.family == "linear" else "Conv"
    last = "layer" if spec.activation else "output"
    nodes = [onnx.helper.make_node(op, ["input", "weight", "bias"], [last], name="layer", **options)]
    if spec.activation:
        nodes.append(onnx.helper.make_node("Relu", ["layer"], ["output"], name="activation"))
    tensor = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "layer",
        [tensor("input", kind, reads)],
        [tensor("output", kind, makes)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return model_bytes(graph)
