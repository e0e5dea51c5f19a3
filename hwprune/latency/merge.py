"""Several runs of `hwprune profile` on one device, for one model, joined into one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwprune.errors import MismatchError, UsageError
from hwprune.latency.attribution import attribute
from hwprune.latency.folder import TableFolder
from hwprune.latency.model import judged
from hwprune.latency.records import NetworkRecord
from hwprune.latency.table import LatencyTable, condition_differences
from hwprune.runtimes.base import KernelTime, TargetProfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ORIGIN = ("seed", "date", "noise", "left_out", "load", "libraries", "runtime", "device")


def merge(parts: Sequence[TableFolder]) -> TableFolder:
    """Join tables: every network of each, numbered anew, in the unit of one common reference.

    All are attributed again together, so what the runtime fuses is known from all networks.

    Args:
        parts: At least one; the space's choices are those of the first. A single one is judged anew, as the
            table of a probe needs.

    Raises:
        UsageError: There is none.
        MismatchError: They are of different devices, runtimes, conditions or models; names what differs.
    """
    if not parts:
        raise UsageError("Merging takes at least one table.", got=0)
    first = parts[0]
    for other in parts[1:]:
        if different := differences(first.table.provenance, other.table.provenance):
            raise MismatchError(
                "These latency tables cannot be merged: they were measured under different conditions.",
                got="; ".join(different),
                do="merge runs of one model on one device under one target profile",
            )
    records: list[NetworkRecord] = []
    for part in parts:
        records.extend(_records(part.table, len(records)))
    before = first.table.provenance
    names = ("profile", "device", "runtime", "settings", "model", "space", "graph", "seed")
    origin = {"merged_from": [_origin(part.table) for part in parts]}
    rows = attribute(
        records,
        first.graph,
        first.space,
        TargetProfile.from_payload(before["profile"]),
        identity={**{name: before[name] for name in names if name in before}, **origin},
        reference=tuple(before["reference"]["widths"]),
    )
    table = judged(LatencyTable.of(rows), first.space, first.graph)
    return TableFolder(table, first.space, first.graph_onnx)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why two tables (their provenance) are not of one device, condition and model."""
    found = condition_differences(one, other)
    for name in ("space", "graph"):
        if one[name] != other[name]:
            found.append(f"{name} of {one['model']}, not that of {other['model']}")
    if one["reference"]["widths"] != other["reference"]["widths"]:
        found.append("reference network: other widths")
    return found


def _origin(table: LatencyTable) -> dict[str, Any]:
    """Where one part came from; what was merged before stays visible."""
    own = {name: table.provenance[name] for name in _ORIGIN if name in table.provenance}
    earlier = table.provenance.get("merged_from")
    return {**own, "networks": len(table.networks), **({"merged_from": earlier} if earlier else {})}


def _records(table: LatencyTable, offset: int) -> Iterator[NetworkRecord]:
    """The rows of a table as records again, numbered from `offset` on; single runs are no longer known."""
    kernels: dict[int, list[KernelTime]] = {}
    for row in table.kernels.itertuples():
        kernels.setdefault(int(row.network), []).extend(_kernel_times(row))
    for index, (row, widths) in enumerate(zip(table.networks.itertuples(), table.widths, strict=True)):
        yield NetworkRecord(
            index=offset + index,
            widths=tuple(widths.tolist()),
            held_out=bool(row.held_out),
            ratio=float(row.ratio),
            error=float(row.error_ms) / float(row.latency_ms),
            share=float(row.share),
            reference_ms=float(row.reference_ms),
            heavy_ms=float(row.heavy_ms),
            blocks=int(row.blocks),
            noise=float(row.noise),
            stolen=float(row.stolen),
            seconds=float(row.seconds),
            date=str(row.date),
            kernels=tuple(kernels.get(int(row.network), ())),
        )


def _kernel_times(row: Any) -> list[KernelTime]:
    """The kernels behind one row: as many as the runtime reported, with equal shares."""
    count = int(row.parts)
    reorder = str(row.op).startswith("reorder/")
    return [
        KernelTime(
            tensor=str(row.tensor),
            op=str(row.op),
            reorder=reorder,
            time_us=float(row.reported_us) / count,
            spread_us=float(row.spread_us) / count**0.5,
            runs=0,
        )
        for _ in range(count)
    ]
