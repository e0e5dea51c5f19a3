"""`LatencyTable`: what was measured on a device. The table is the truth; every model is refitted from it.

A table is a folder of three files: `kernels.csv`, `networks.csv` (columns below) and `table.json`, which says
where they come from and holds their checksums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune import artifacts
from hwprune.environment import device_differences, device_fingerprint
from hwprune.errors import ArtifactError, MismatchError
from hwprune.latency.fingerprint import space_fingerprint
from hwprune.latency.measure import APART, spread
from hwprune.runtimes.base import PRECISIONS, TargetProfile
from hwprune.structure.fusion import Fusion
from hwprune.structure.kernels import KernelSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from hwprune.latency.attribution import Attribution
    from hwprune.runtimes.base import Runtime
    from hwprune.structure.space import SearchSpace

KIND, SCHEMA_VERSION = "latency-table", 2
# what else lies in a table's folder
SPACE, GRAPH, STAIRCASE, CURVES = "space.json", "graph.onnx", "staircase.json", "curves.json"
SPEC_COLUMNS = tuple(KernelSpec.__dataclass_fields__)
KERNEL_COLUMNS = {
    "network": "number of the network that the kernel was profiled in",
    "tensor": "ONNX tensor that the kernel makes; for a reorder, the tensor whose layout changes",
    "op": "operation, with what is fused to it: conv, dwconv, conv+add, linear, reorder/A>B ...",
    "in_channels": "channels read",
    "out_channels": "channels made",
    "kernel_h": "kernel height",
    "kernel_w": "kernel width",
    "stride": "stride",
    "groups": "convolution groups",
    "height": "height of the output",
    "width": "width of the output",
    "batch": "images in one run",
    "activation": "fused activation, empty when none",
    "precision": "number format",
    "time_us": "time in the network's run, microseconds: drift and profiling cost removed; the kernels of a "
    "network and the cost of a run add up to its measured end-to-end latency",
    "reported_us": "time that the runtime's profiler reported, microseconds, less the profiler's floor",
    "spread_us": "half the distance between the quartiles of the reported time, microseconds",
    "parts": "kernels of the runtime that make it up; 0 for a reorder that was not needed",
}
NETWORK_COLUMNS = {
    "network": "number of the network in the plan",
    "widths": "channels of each group, separated by spaces",
    "held_out": "1 when the network only judges the model",
    "latency_ms": "end-to-end latency, milliseconds: ratio x ms^(1 - share) x heavy_ms^share, of the table's "
    "reference",
    "error_ms": "one standard error of latency_ms",
    "ratio": "latency relative to the two reference networks, timed interleaved",
    "share": "weight of the heavy reference, the unpruned network, behind the ratio; 0 to 1",
    "reference_ms": "latency of the reference network in the same session, milliseconds",
    "heavy_ms": "latency of the heavy reference in the same session, milliseconds",
    "blocks": "interleaved blocks taken",
    "noise": "relative spread of the reference over the session",
    "stolen": "share of the session in which other programs had the core; not part of latency_ms",
    "reported_ms": "sum of the kernels' reported times, milliseconds",
    "seconds": "device time spent on the network",
    "date": "when it was measured, UTC",
}
_PROVENANCE = (
    *("profile", "device", "runtime", "settings", "libraries"),
    *("model", "space", "graph", "fusion", "reference"),
)
_OPTIONAL: Mapping[str, type | tuple[type, ...]] = {
    "prediction_error": dict,
    "regressors": dict,
    "regressor_errors": dict,
    "merged_from": list,
    "builds": dict,
    "overhead": dict,
    "noise": (int, float),
    "left_out": int,
    "date": str,
}
_TEXTS = ("widths", "date", "tensor", "op", "activation", "precision")
_MOST_SPREAD = 100.0  # of builds of one network; a real one is a few percent
_MOST_RUN_US = 1e6  # a second; a real one is microseconds
_MOST_PARTS = 1000  # kernels of the runtime behind one row; a real one has a handful
_NUMBERS = {*KERNEL_COLUMNS, *NETWORK_COLUMNS} - set(_TEXTS)


def write_rows(
    folder: Path,
    kernels: Iterable[tuple[Any, ...]],
    networks: Iterable[tuple[Any, ...]],
    provenance: Mapping[str, Any],
) -> None:
    """Write the three files of a table; needs no pandas.

    Raises:
        StorageError: Full disk, no permission.
    """
    columns = {"kernels": KERNEL_COLUMNS, "networks": NETWORK_COLUMNS}
    sums = {
        name: artifacts.write_csv(folder / f"{name}.csv", columns[name], rows)
        for name, rows in (("kernels", kernels), ("networks", networks))
    }
    payload = {**provenance, "checksums": sums, "columns": columns}
    artifacts.write_json(folder / "table.json", KIND, SCHEMA_VERSION, payload)


def runtime_of(folder: Path) -> dict[str, str]:
    """What `Runtime.describe` told when the table in a folder was measured; {} without a readable table."""
    try:
        told = artifacts.read_json(folder / "table.json", KIND, SCHEMA_VERSION, "hwprune profile")["runtime"]
        return {str(key): str(value) for key, value in told.items()}
    except (ArtifactError, KeyError, AttributeError):
        return {}


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured kernels and networks of one search space on one device.

    Attributes:
        kernels: One row per kernel and network; columns `KERNEL_COLUMNS`.
        networks: One row per network; columns `NETWORK_COLUMNS`.
        provenance: Device, runtime and build, target profile, libraries, fingerprints of space and graph,
            observed fusion, reference network, seed, date, seconds, noise, prediction errors, and how far
            builds of one network differ.
    """

    kernels: pd.DataFrame
    networks: pd.DataFrame
    provenance: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Device time behind the table."""
        return float(self.networks["seconds"].sum())

    @property
    def reference_ms(self) -> float:
        """Latency of the reference network, milliseconds."""
        return self.units_ms[0]

    @property
    def units_ms(self) -> tuple[float, float]:
        """Latencies of the light and the heavy reference: the units behind all latencies."""
        reference = self.provenance["reference"]
        return float(reference["ms"]), float(reference["heavy_ms"])

    @property
    def drift(self) -> float:
        """How far the machine's own speed wandered while the table was measured: a relative spread."""
        return spread(self._sessions()[:, 0])

    @property
    def contention(self) -> float:
        """How far a large and a small network drifted apart while the table was measured.

        Neighbours on the machine take cache and memory bandwidth, which slows a network the more the larger
        it is. The relative spread of the heavy reference's latency over the light one's, over the sessions,
        as a part of the logarithm of that ratio: a network of a share s of the unpruned one's latency is
        expected to wander by `contention` x ln(1 / s), relatively. 0 where the references are alike; a table
        of two or three sessions can hardly tell.
        """
        light, heavy = self._sessions().T
        ratios = heavy / light
        apart = float(np.median(ratios))
        return spread(ratios) / math.log(apart) if apart > APART else 0.0

    def _sessions(self) -> NDArray[np.float64]:
        """Latencies of the light and the heavy reference in each session: (sessions, 2), milliseconds."""
        columns = self.networks[["reference_ms", "heavy_ms"]].drop_duplicates()
        return np.asarray(columns, dtype=np.float64)

    @property
    def build_spread(self) -> float:
        """How far builds of one network differ: a relative standard deviation; 0 where they do not."""
        return float(self.provenance.get("builds", {}).get("spread", 0.0))

    @property
    def run_ms(self) -> float:
        """What a run costs beside its kernels; 0 in tables in which the kernels bear it."""
        return float(self.provenance.get("overhead", {}).get("run_us", 0.0)) / 1e3

    @property
    def fusion(self) -> Fusion:
        """Which operators the runtime was seen to execute together."""
        return Fusion.from_payload(self.provenance["fusion"])

    @property
    def widths(self) -> NDArray[np.int64]:
        """Widths of the measured networks: (networks, groups)."""
        rows = [[int(width) for width in text.split()] for text in self.networks["widths"]]
        return np.array(rows, dtype=np.int64).reshape(len(rows), -1)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which networks only judge the model: (networks,)."""
        flags: NDArray[np.bool_] = self.networks["held_out"].to_numpy() == 1
        return flags

    def specs(self) -> list[KernelSpec]:
        """The spec of each row of `kernels`."""
        rows = [*zip(*(self.kernels[name].tolist() for name in SPEC_COLUMNS), strict=True)]
        known = {row: KernelSpec(*row) for row in set(rows)}  # making one is slow, and most come up again
        return [known[row] for row in rows]

    @classmethod
    def of(cls, rows: Attribution) -> LatencyTable:
        """The table of attributed rows."""
        import pandas as pd

        kernels = pd.DataFrame(rows.kernels, columns=list(KERNEL_COLUMNS))
        return cls(kernels, pd.DataFrame(rows.networks, columns=list(NETWORK_COLUMNS)), rows.provenance)

    def save(self, folder: Path) -> None:
        """Write the table.

        Raises:
            StorageError: Full disk, no permission.
        """
        kernels, networks = (
            frame.itertuples(index=False, name=None) for frame in (self.kernels, self.networks)
        )
        write_rows(folder, kernels, networks, self.provenance)

    @classmethod
    def load(cls, folder: Path, made_by: str = "hwprune profile") -> LatencyTable:
        """Read a table that `save` wrote.

        Raises:
            MissingArtifactError: There is none; names the command that makes it.
            MismatchError: Written with another schema version.
            ArtifactError: Truncated, altered, or not a latency table.
        """
        payload = artifacts.read_json(folder / "table.json", KIND, SCHEMA_VERSION, made_by)
        try:
            sums = payload.pop("checksums")
            payload.pop("columns", None)
            frames = {
                name: _read(folder / f"{name}.csv", sums[name], made_by) for name in ("kernels", "networks")
            }
            table = cls(frames["kernels"], frames["networks"], payload)
            _check(table)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise artifacts.broken(
                folder / "table.json", f"{type(error).__name__}: {error}", made_by
            ) from error
        return table

    def check_matches(
        self,
        profile: TargetProfile,
        runtime: Runtime,
        space: SearchSpace,
        device: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse to predict for anything but what the table was measured on.

        Args:
            profile: The target profile in use.
            runtime: Its runtime.
            space: The search space in use; other choices of the same groups are fine.
            device: Fingerprint of the device in use; this machine's when None.

        Raises:
            MismatchError: Another profile, device, runtime (the first two parts of its version count) or
                model; all differences are named.
        """
        here = {
            "profile": profile.to_payload(),
            "device": dict(device) if device is not None else device_fingerprint(profile.device),
            "runtime": runtime.describe(),
        }
        different = condition_differences(self.provenance, here)
        if self.provenance["space"] != space_fingerprint(space):
            different.append(f"model: {self.provenance['model']}, not this {space.model}")
        if different:
            raise MismatchError(
                "The latency table was measured under other conditions.",
                got="; ".join(different),
                do="measure this device with `hwprune profile`",
            )


def _read(path: Path, checksum: str, made_by: str) -> pd.DataFrame:
    return artifacts.read_table(path, checksum, made_by, _TEXTS)


def _check(table: LatencyTable) -> None:
    """What a table read from a file must be: it is untrusted input."""
    if missing := [key for key in _PROVENANCE if key not in table.provenance]:
        raise ValueError(f"no {', '.join(missing)} in its provenance")
    for frame, columns in ((table.kernels, KERNEL_COLUMNS), (table.networks, NETWORK_COLUMNS)):
        if missing := [name for name in columns if name not in frame]:
            raise ValueError(f"no column {', '.join(missing)}")
        numbers = frame[[name for name in columns if name in _NUMBERS]].to_numpy(dtype=np.float64)
        if len(frame) == 0 or not np.isfinite(numbers).all() or (numbers < 0).any():
            raise ValueError("rows are missing, or hold something else than numbers of zero or more")
    _check_ranges(table)
    _check_provenance(table.provenance)
    TargetProfile.from_payload(table.provenance["profile"])
    table.fusion, table.widths  # noqa: B018 - both raise when they cannot be read


def _check_provenance(found: Mapping[str, Any]) -> None:
    """The types of what is read from the provenance; keys of `_OPTIONAL` may be missing."""
    tables = ("profile", "device", "runtime", "fusion", "reference")
    wrong = [key for key in tables if not isinstance(found[key], dict)]
    wrong += [key for key, kinds in _OPTIONAL.items() if key in found and not isinstance(found[key], kinds)]
    error = found.get("prediction_error") or {"mean": 0.0}
    if wrong or not isinstance(error.get("mean"), int | float):
        raise ValueError(f"its provenance is wrong: {', '.join(wrong) or 'prediction_error'}")
    spread = found.get("builds", {}).get("spread", 0.0)
    if not isinstance(spread, int | float) or not 0 <= spread < _MOST_SPREAD:
        raise ValueError("its provenance is wrong: builds")
    run_us = found.get("overhead", {}).get("run_us", 0.0)
    if not isinstance(run_us, int | float) or not 0 <= run_us < _MOST_RUN_US:
        raise ValueError("its provenance is wrong: overhead")


def _check_ranges(table: LatencyTable) -> None:
    """What would break predictions or merging far from here."""
    networks, kernels = table.networks, table.kernels
    positive = ("latency_ms", "ratio", "reference_ms", "heavy_ms")
    if not min(table.units_ms) > 0 or not (networks[list(positive)] > 0).all(axis=None):
        raise ValueError("a latency of zero")
    sizes = [name for name in SPEC_COLUMNS if name in _NUMBERS]
    rules = (
        ((networks["share"] <= 1).all(), "a share above 1"),
        ((kernels[sizes] >= 1).all(axis=None), "a kernel without channels, size or group"),
        ((kernels["parts"] <= _MOST_PARTS).all(), "a kernel of too many parts"),
        (set(kernels["precision"]) <= set(PRECISIONS), "an unknown precision"),
        (networks["network"].is_unique, "a network twice"),
        (set(kernels["network"]) == set(networks["network"]), "kernels of other networks than were measured"),
        ((kernels.groupby("network")["reported_us"].sum() > 0).all(), "a network without kernels"),
    )
    if wrong := [text for holds, text in rules if not holds]:
        raise ValueError(", ".join(wrong))


def condition_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what the conditions of two measurements differ, as `key: this, not that`.

    Args:
        one: Has `profile`, `device` and `runtime`, as the provenance of a table.
        other: The same.
    """
    found = [
        *_profile_differences(one["profile"], other["profile"]),
        *device_differences(one["device"], other["device"]),
        *_runtime_differences(one["runtime"], other["runtime"]),
    ]
    cores = [where["device"].get("physical_cores") for where in (one, other)]
    if one["profile"].get("threads") == 0 and cores[0] != cores[1]:  # 0 threads: one for each core
        found.append(f"physical cores: {cores[0]}, not {cores[1]}")
    return found


def _profile_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    keys = [key for key in other if key != "name"]  # the same conditions under another name are the same
    return [f"{key}: {one.get(key)}, not {other[key]}" for key in keys if one.get(key) != other[key]]


def _runtime_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The name and the first two parts of the version count: runtimes change kernels with the second."""

    def identity(facts: Mapping[str, Any]) -> tuple[Any, list[str]]:
        return facts.get("runtime", ""), str(facts.get("version", "")).split(".")[:2]

    if identity(one) == identity(other):
        return []
    here, there = (f"{facts.get('runtime')} {facts.get('version')}" for facts in (one, other))
    return [f"runtime: {here}, not {there}"]
