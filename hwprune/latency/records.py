"""One file per measured network, so that a killed profile goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping  # noqa: TC003 - `payloads.misfits` reads the hints at run time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune import artifacts
from hwprune.errors import ArtifactError, MismatchError
from hwprune.latency.measure import unit_ms
from hwprune.latency.table import condition_differences
from hwprune.payloads import misfits
from hwprune.runtimes.base import KernelTime
from hwprune.structure.space import Widths  # noqa: TC001 - `misfits` reads it

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hwprune.latency.measure import Measurement

_log = logging.getLogger(__name__)
_SCHEMA = 2
_NETWORK, _SESSION, _REFERENCES = "latency-network", "latency-session", "latency-references"
STATE = 1.2  # a reference that is slower or faster by more was timed on another machine, in effect
_DECIMALS = 6  # milliseconds: nanoseconds


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """Everything that was measured on one network.

    Attributes:
        index: Its number in the plan.
        widths: Its widths.
        held_out: Whether it only judges the model.
        ratio: End-to-end latency relative to the references, see `measure.unit_ms`.
        error: Relative standard error of `ratio`.
        share: Weight of the heavy reference behind `ratio`.
        reference_ms: The (light) reference's latency in the same session.
        heavy_ms: The heavy reference's latency in the same session.
        blocks: Interleaved blocks taken.
        noise: Relative spread of the reference.
        stolen: Share of the time in which other programs had the core.
        seconds: Device time spent on this network; on a GPU, the time in which networks ran.
        date: When, in UTC, ISO 8601.
        kernels: What the runtime's profiler reported, in execution order.
        samples_ms: Every timed run, one list per block.
        preparing: Seconds besides, in which its networks were built for a GPU and loaded.
        gpu: Clocks, power, temperature of the GPU meanwhile and what throttled it, see `nvml.summarise`.
    """

    index: int
    widths: Widths
    held_out: bool
    ratio: float
    error: float
    share: float
    reference_ms: float
    heavy_ms: float
    blocks: int
    noise: float
    stolen: float
    seconds: float
    date: str
    kernels: tuple[KernelTime, ...]
    samples_ms: tuple[tuple[float, ...], ...] = ()
    preparing: float = 0.0
    gpu: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        index: int,
        widths: Widths,
        held_out: bool,
        result: Measurement,
        kernels: list[KernelTime],
        seconds: float,
    ) -> NetworkRecord:
        """Put a measurement and a profile of one network together."""
        return cls(
            index=index,
            widths=widths,
            held_out=held_out,
            ratio=result.ratio,
            error=result.relative_error,
            share=result.share,
            reference_ms=result.reference_ms,
            heavy_ms=result.heavy_ms,
            blocks=result.blocks,
            noise=result.noise,
            stolen=result.stolen,
            seconds=seconds,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            kernels=tuple(kernels),
            samples_ms=tuple(tuple(np.round(block, _DECIMALS).tolist()) for block in result.samples_ms),
        )

    def latency_ms(self, units_ms: tuple[float, float]) -> float:
        """Its latency when the references take `units_ms`, light and heavy."""
        return self.ratio * unit_ms(self.share, *units_ms)

    @property
    def report(self) -> list[tuple[str | None, bool]]:
        """(tensor, is a reorder) of each kernel, as `fusion.observe` wants it."""
        return [(kernel.tensor, kernel.reorder) for kernel in self.kernels]


def steady(records: Sequence[NetworkRecord]) -> list[NetworkRecord]:
    """The records of one state of the machine, the one that it was in most of the time.

    A virtual machine may be moved: with its two cores now on one physical core, networks on two threads took
    twice as long from one second to the next, for minutes, each by another factor. Such records cannot be
    brought into one table with the others.
    """
    if not records:
        return []
    logs = np.log([record.reference_ms for record in records])
    near = np.abs(logs[:, None] - logs[None, :]) <= np.log(STATE)  # (records, records)
    best = near[int(near.sum(axis=1).argmax())]
    return [record for record, keep in zip(records, best, strict=True) if keep]


class Journal:
    """The folder of records of one profile.

    Args:
        folder: Where to keep them.
        identity: What must not change between two visits: device, runtime, profile, space, seed.

    Raises:
        MismatchError: The folder holds records of another identity; says what differs.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        path = folder / "session.json"
        if path.is_file() or any(folder.glob("network-*.json")):
            _refuse_others(_session(path), identity, folder)
        else:
            artifacts.write_json(path, _SESSION, _SCHEMA, identity)

    def append(self, record: NetworkRecord) -> None:
        """Keep a record, atomically."""
        artifacts.write_json(self._path(record.index), _NETWORK, _SCHEMA, asdict(record))

    def keep_references(self, networks: Sequence[int], result: Measurement) -> None:
        """Keep every run of the references of a round, once for all its networks."""
        names = ("light_ms", "heavy_ms")
        samples = {
            name: [np.round(visit, _DECIMALS).tolist() for visit in visits]
            for name, visits in zip(names, result.reference_samples_ms, strict=False)
        }
        payload = {"networks": list(networks), **samples}
        artifacts.write_json(self.folder / f"round-{min(networks):05d}.json", _REFERENCES, _SCHEMA, payload)

    def load(self) -> list[NetworkRecord]:
        """All records, by number; a damaged one is left out, and so is measured again."""
        records = []
        for path in sorted(self.folder.glob("network-*.json")):
            try:
                records.append(_record(artifacts.read_json(path, _NETWORK, _SCHEMA)))
            except (ArtifactError, KeyError, TypeError, ValueError) as error:
                _log.warning("Measuring a network again, its record is damaged: %s (%s)", path, error)
        return sorted(records, key=lambda record: record.index)

    def _path(self, index: int) -> Path:
        return self.folder / f"network-{index:05d}.json"


def _record(payload: dict[str, Any]) -> NetworkRecord:
    payload = {"preparing": 0.0, **payload}  # records of before it was told apart
    if wrong := misfits(payload, NetworkRecord):
        raise ValueError(f"unexpected fields: {', '.join(wrong)}")
    kernels = tuple(KernelTime(**kernel) for kernel in payload["kernels"])
    samples = tuple(tuple(block) for block in payload["samples_ms"])
    widths = tuple(int(width) for width in payload["widths"])
    return NetworkRecord(**{**payload, "kernels": kernels, "samples_ms": samples, "widths": widths})


def _session(path: Path) -> dict[str, Any]:
    """What the records of a folder were made under; says what to do when that cannot be read."""
    try:
        kept = artifacts.read_json(path, _SESSION, _SCHEMA)
        if not all(isinstance(kept.get(key), dict) for key in ("profile", "device", "runtime")):
            raise artifacts.broken(path, "no profile, device or runtime")
        return kept
    except ArtifactError as error:
        raise MismatchError(
            "The records of this profile cannot be continued.",
            where=path,
            got=f"{error.what} {error.got or ''}".strip(),
            do=f"delete the folder {path.parent} and profile again",
        ) from error


def _refuse_others(kept: dict[str, Any], identity: dict[str, Any], folder: Path) -> None:
    different = condition_differences(kept, identity)
    different += [
        f"{key}: {kept.get(key)}, not {identity[key]}"
        for key in ("model", "space", "graph", "seed")
        if kept.get(key) != identity[key]
    ]
    if different:
        raise MismatchError(
            "The records of this profile were made under other conditions.",
            where=folder,
            got="; ".join(different),
            do="delete that folder to profile anew, or choose another one; where only `depth` under [model] "
            "changed since, set it back (false before there was any)",
        )
