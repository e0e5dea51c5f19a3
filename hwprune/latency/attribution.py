"""From records of whole networks to rows of kernels: drift and profiling cost taken out.

The profiler slows a network down, and the machine drifts between profiling and timing. So the profile only
says how a network's time is *shared out*: each kernel gets its share of the end-to-end latency that was
measured unprofiled against the reference. Kernels and the cost of a run add up to it exactly.
"""

from __future__ import annotations

import logging
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hwprune.environment import library_versions, machine_load
from hwprune.latency.overhead import Overhead
from hwprune.latency.records import steady
from hwprune.nvml import summarise
from hwprune.structure.fusion import observe
from hwprune.structure.kernels import NetworkKernels, derive_kernels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hwprune.latency.records import NetworkRecord
    from hwprune.runtimes.base import KernelTime, TargetProfile
    from hwprune.structure.onnx_graph import NetGraph
    from hwprune.structure.space import SearchSpace, Widths

_log = logging.getLogger(__name__)
_LOST_LIMIT = 0.02  # share of a network's time in kernels that cannot be traced to the graph


class Attribution(NamedTuple):
    """What makes a latency table; no pandas, for a target device has none.

    Attributes:
        kernels: One row per kernel and network, columns as in `table.KERNEL_COLUMNS`.
        networks: One row per network, columns as in `table.NETWORK_COLUMNS`.
        provenance: Where they come from; see `table.LatencyTable`.
    """

    kernels: list[tuple[Any, ...]]
    networks: list[tuple[Any, ...]]
    provenance: dict[str, Any]


def attribute(
    records: Sequence[NetworkRecord],
    graph: NetGraph,
    space: SearchSpace,
    profile: TargetProfile,
    *,
    identity: Mapping[str, Any],
    reference: Widths,
) -> Attribution:
    """Turn records into rows.

    Args:
        records: At least one; those of another state of the machine are left out, see `records.steady`.
        graph: The unpruned network.
        space: Its search space.
        profile: What it was measured under.
        identity: What all records share: device, runtime, profile, fingerprints, seed.
        reference: Widths of the network that all were interleaved with.
    """
    ordered = sorted(steady(records), key=lambda record: record.index)
    missing = [space.left_out(record.widths) for record in ordered]
    fusion = observe(graph, [record.report for record in ordered], missing)
    kernels = derive_kernels(graph, space, fusion, batch=profile.batch, precision=profile.precision)
    units_ms = (
        float(np.median([record.reference_ms for record in ordered])),
        float(np.median([record.heavy_ms for record in ordered])),
    )
    overhead = _overhead(ordered, units_ms)
    rows = [row for record in ordered for row in _kernel_rows(record, kernels, units_ms, overhead)]
    provenance = {
        **identity,
        "libraries": library_versions(),
        "load": machine_load(),
        "left_out": len(records) - len(ordered),
        "fusion": fusion.to_payload(),
        "overhead": {"run_us": overhead.run_us, "kernel_us": overhead.kernel_us},
        "reference": {"widths": list(reference), "ms": units_ms[0], "heavy_ms": units_ms[1]},
        "noise": float(np.median([record.noise for record in ordered])),
        "date": max(record.date for record in ordered),
    }
    if gpu := summarise([record.gpu for record in ordered]):
        provenance["gpu"] = gpu
    return Attribution(rows, [_network_row(record, units_ms) for record in ordered], provenance)


def _overhead(records: Sequence[NetworkRecord], units_ms: tuple[float, float]) -> Overhead:
    """What runs and their profiles cost beside the kernels."""
    figures = [
        (sum(kernel.time_us for kernel in one.kernels), len(one.kernels), 1e3 * one.latency_ms(units_ms))
        for one in records
    ]
    reported_us, kernels, latency_us = np.array(figures, dtype=np.float64).T
    return Overhead.fit(reported_us, kernels, latency_us)


def _network_row(record: NetworkRecord, units_ms: tuple[float, float]) -> tuple[Any, ...]:
    latency_ms = record.latency_ms(units_ms)
    return (
        record.index,
        " ".join(map(str, record.widths)),
        int(record.held_out),
        latency_ms,
        record.error * latency_ms,
        record.ratio,
        record.share,
        record.reference_ms,
        record.heavy_ms,
        record.blocks,
        record.noise,
        record.stolen,
        sum(kernel.time_us for kernel in record.kernels) / 1e3,
        record.seconds,
        record.date,
    )


def _kernel_rows(
    record: NetworkRecord, kernels: NetworkKernels, units_ms: tuple[float, float], overhead: Overhead
) -> list[tuple[Any, ...]]:
    network = np.array([record.widths], dtype=np.int64)
    parts: dict[int, list[KernelTime]] = {
        index: [] for index in set(kernels.reorder_of.values()) if kernels.slots[index].present(network)[0]
    }
    lost_us = 0.0
    for kernel in record.kernels:
        slot = (kernels.reorder_of if kernel.reorder else kernels.kernel_of).get(kernel.tensor or "")
        if slot is None or not kernels.slots[slot].present(network)[0]:
            lost_us += kernel.time_us
        else:
            parts.setdefault(slot, []).append(kernel)
    found_us = sum(kernel.time_us for members in parts.values() for kernel in members)
    if lost_us > _LOST_LIMIT * (found_us + lost_us):
        _log.warning("%.0f us of network %d are in kernels unknown to the graph", lost_us, record.index)
    if not found_us:
        _log.warning("no kernel of network %d is known to the graph: only its latency counts", record.index)
        return []
    times_us = {slot: sum(overhead.less(one.time_us) for one in parts[slot]) for slot in parts}
    scale = max(record.latency_ms(units_ms) * 1e3 - overhead.run_us, 0.0) / sum(times_us.values())
    specs = kernels.specs(record.widths)
    return [
        (
            record.index,
            kernels.slots[slot].tensor,
            *astuple(specs[slot]),
            scale * times_us[slot],
            sum(kernel.time_us for kernel in members),
            float(np.sqrt(sum(kernel.spread_us**2 for kernel in members))),
            len(members),
        )
        for slot, members in sorted(parts.items())
    ]
