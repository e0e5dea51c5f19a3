"""What a latency table says in short, whether it holds together, and how far two tables agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.latency.fingerprint import space_fingerprint
from hwprune.latency.merge import differences
from hwprune.latency.sampling import pool

if TYPE_CHECKING:
    from hwprune.latency.folder import TableFolder
    from hwprune.latency.table import LatencyTable

_SAMPLE = 500  # networks whose predictions are compared
_SUM_TOLERANCE = 0.001  # of the kernels of a network against its latency
_ERROR_TOLERANCE = 0.005  # of the refitted model's error; other versions of scikit-learn differ a little


def summary(folder: TableFolder) -> dict[str, Any]:
    """A table in figures; units are in the names."""
    table, where = folder.table, folder.table.provenance
    latency_ms = table.networks["latency_ms"]
    error = where.get("prediction_error", {})
    return {
        "model": where["model"],
        "device": where["device"].get("model") or where["device"].get("gpu_name"),
        "runtime": f"{where['runtime'].get('runtime')} {where['runtime'].get('version')}",
        "profile": where["profile"]["name"],
        "threads": where["profile"]["threads"],
        "batch": where["profile"]["batch"],
        "precision": where["profile"]["precision"],
        "networks": len(table.networks),
        "held_out_networks": int(table.held_out.sum()),
        "kernels": len(table.kernels),
        "fastest_ms": float(latency_ms.min()),
        "slowest_ms": float(latency_ms.max()),
        "prediction_error_percent": 100 * error["mean"] if error else None,
        "noise_percent": 100 * where.get("noise", float("nan")),
        "device_seconds": table.seconds,
        "date": where.get("date"),
        "merged_from": len(where.get("merged_from", ())),
        "left_out": where.get("left_out", 0),
        "microseconds_by_family": _by_family(table),
        "regressors": dict(where.get("regressors", {})),
    }


def _by_family(table: LatencyTable) -> dict[str, float]:
    """Mean time of each family of kernels in a network, microseconds; the largest first."""
    families = table.kernels["op"].str.split("/").str[0].str.split("+").str[0]
    mean_us = table.kernels["time_us"].groupby(families).sum() / len(table.networks)
    return {str(name): float(value) for name, value in mean_us.sort_values(ascending=False).items()}


def problems(folder: TableFolder) -> list[str]:
    """What does not hold in a table that could be read; its model is fitted anew."""
    found = []
    table = folder.table
    sums_ms = table.kernels.groupby("network")["time_us"].sum() / 1e3
    latency_ms = table.networks.set_index("network")["latency_ms"]
    sums_ms = sums_ms.reindex(latency_ms.index).fillna(0.0) + table.run_ms
    off = (sums_ms / latency_ms - 1).abs()
    if (off > _SUM_TOLERANCE).any():
        worst = int(off.idxmax())
        found.append(f"the kernels of network {worst} and a run miss its latency by {off.max():.1%}")
    stored = table.provenance.get("prediction_error", {}).get("mean")
    error = folder.model(anew=True).relative_error
    if stored is None or not abs(error - stored) <= _ERROR_TOLERANCE:
        found.append(f"the refitted model is {error:.2%} off, the table says {stored}")
    return found


def compare(one: TableFolder, other: TableFolder) -> dict[str, Any]:
    """How far two tables agree.

    Returns:
        `conditions`: how device, runtime, profile and model differ. For tables of one search space also how
        the second's predictions relate to the first's, over networks drawn from the space.
    """
    where, there = one.table.provenance, other.table.provenance
    facts: dict[str, Any] = {
        "conditions": differences(where, there),
        "dates": [where.get("date"), there.get("date")],
        "networks": [len(one.table.networks), len(other.table.networks)],
    }
    if space_fingerprint(one.space) != space_fingerprint(other.space):
        return facts
    drawn = pool(one.space, _SAMPLE, np.random.default_rng(0))
    ratio = other.model().predict(drawn) / one.model().predict(drawn)
    low, middle, high = np.percentile(ratio, (5, 50, 95))
    return {
        **facts,
        "latency_ratio_median": float(middle),
        "latency_ratio_p5": float(low),
        "latency_ratio_p95": float(high),
        "scatter_percent": 100 * float(np.mean(np.abs(ratio / middle - 1))),
    }
