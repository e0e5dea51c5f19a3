"""`LatencyModel`: latencies of all networks of a space on one device, by a table that was measured there."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from hwprune import artifacts
from hwprune.latency.folder import TableFolder, find_table
from hwprune.payloads import NOT_IN_NAMES, as_tuples, digest, misfits
from hwprune.runtimes.base import TargetProfile
from hwprune.searching.ranges import latencies

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprune.latency.device import Device
    from hwprune.latency.model import TableModel
    from hwprune.latency.table import LatencyTable
    from hwprune.results import DeviceFacts
    from hwprune.searching.device_speed import Speeds
    from hwprune.structure.space import SearchSpace
    from hwprune.units import Quantity

BASE, _BASE_FILE = "base.json", ("unpruned-latency", 1)
_DRIFTS, _LEAST_CHANGE = 2.0, 0.02


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Predicts networks on one device under one target profile; `Target.profile` makes one.

    Attributes:
        name: What results call it: the profile's name, with the device's when it is another machine.
        profile: The target profile.
        space: The search space, with choices that suit the device.
        model: Its latency model.
        base_ms: Measured latency of the unpruned network.
        base_error_ms: One standard error of it.
        drift: How far the machine's own speed wandered while the table was measured: a relative spread.
        contention: How far a large and a small network drifted apart, see `LatencyTable.contention`.
        table: Stands for the latency table.
        conditions: What the table was measured under, see `results.SearchResult.devices`.
        device: Measures networks; None when only the table is at hand.
        build_spread: How far builds of one network differ: a relative standard deviation.
        source: The table, with what belongs to it.
        speed: How many times as long as its table says the device is taken to need now.

    Example:
        >>> latency = target.profile(model, space)
        >>> bool(latency.predict([space.smallest()])[0] < latency.base_ms)
        True
        >>> limit = latency.limit("60%")
    """

    name: str
    profile: TargetProfile
    space: SearchSpace
    model: TableModel
    base_ms: float
    base_error_ms: float
    drift: float
    contention: float
    table: str
    conditions: DeviceFacts
    device: Device | None
    source: TableFolder
    speed: float = 1.0
    build_spread: float = 0.0

    def predict(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Latencies of networks before any correction: widths (N, groups) -> milliseconds (N,)."""
        return self.model.predict(widths) * self.speed

    @classmethod
    def of(
        cls,
        source: TableFolder,
        *,
        name: str = "",
        command: str = "",
        base: tuple[float, float] | None = None,
        device: Device | None = None,
    ) -> Self:
        """The model of a table.

        Args:
            source: The table, its search space and network.
            name: What results call the device; "": by the table, as that of another machine.
            command: The command that measures the table again; "" where none does.
            base: Latency of the unpruned network and one standard error (ms); by default the table's.
            device: Measures networks, where the device is at hand.
        """
        table, model = source.table, source.model()
        where = table.provenance
        profile = TargetProfile.from_payload(where["profile"], where="the latency table")
        machine = re.sub(NOT_IN_NAMES, "-", str(where["device"].get("model", "another machine")))
        name = name or f"{profile.name} ({machine})"  # it names files
        base_ms, error_ms = base or (_base_ms(table, model), 0.0)
        return cls(
            name=name,
            profile=profile,
            space=source.space,
            model=model,
            base_ms=base_ms,
            base_error_ms=error_ms,
            drift=table.drift,
            contention=table.contention,
            table=_name_of(table),
            conditions=_conditions(table, name, command),
            device=device,
            build_spread=table.build_spread,
            source=source,
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a latency table on its own: its device is not at hand, and nothing is measured.

        Args:
            folder: A folder that `save` or `hwprune profile` wrote, or the name of a table that comes with
                hwprune, such as `lut/NAME`.

        Raises:
            ArtifactError: There is no latency table in the folder, or it is damaged.
        """
        source = TableFolder.load(Path(folder))
        return cls.of(source, base=kept_base(find_table(Path(folder)), source.table))

    def save(self, folder: Path | str) -> None:
        """Write the table with all that `load` needs.

        Raises:
            StorageError: Full disk, no permission.
        """
        self.source.save(Path(folder))
        kept = _Base(self.table, self.base_ms, self.base_error_ms)
        artifacts.write_json(Path(folder) / BASE, *_BASE_FILE, asdict(kept))

    def limit(self, text: str, points: int = 0) -> LatencyLimit:
        """A limit on this latency: `15ms`, `800us`, or `60%` of the unpruned network's.

        Args:
            text: The limit; a range such as `30%:80%` asks for a front of networks.
            points: Limits within a range; 0 takes 6.

        Raises:
            UsageError: The text is no latency.
        """
        return LatencyLimit(self, latencies(text, points))

    def as_of_now(self, speeds: Speeds) -> LatencyModel:
        """The target with the unpruned network measured again: the unit of everything measured from here on.

        Measurements are multiples of the unpruned network's latency, so they cannot see that a whole machine
        has become slower since it was profiled. Predictions follow it where the difference is more than twice
        the machine's own drift, and more than 2 %; below that the closed loop corrects them.

        Args:
            speeds: What was found before.

        Raises:
            DeviceError: The machine is too noisy to trust.
        """
        if self.device is None:
            return self
        now = self.device.base()
        tolerance = max(_DRIFTS * self.drift, _LEAST_CHANGE)
        speed = speeds.settle(self.table, now.ms / self.base_ms, tolerance)
        device = copy.copy(self.device)  # whoever holds the model of before goes on with the unit of before
        device.base_ms = now.ms
        error_ms = math.hypot(now.error_ms, self.build_spread * now.ms)
        return replace(self, speed=speed, base_ms=now.ms, base_error_ms=error_ms, device=device)


@dataclass(frozen=True, eq=False)
class LatencyLimit:
    """A limit on the latency that a model predicts.

    Attributes:
        model: The model.
        quantities: The limit in milliseconds or as a share of the unpruned network's; several for a front,
            the loosest first.
    """

    model: LatencyModel
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True)
class _Base:
    """What is kept of the unpruned network beside a table: the unit of all that is measured later."""

    table: str
    ms: float
    error_ms: float


def kept_base(folder: Path, table: LatencyTable) -> tuple[float, float] | None:
    """Latency of the unpruned network and one standard error (ms), as `save` kept it beside this table."""
    if not (folder / BASE).is_file():
        return None
    kept = artifacts.read_json(folder / BASE, *_BASE_FILE)
    if misfits(kept, _Base) or not 0 < kept["ms"] < math.inf or not 0 <= kept["error_ms"] < math.inf:
        raise artifacts.broken(folder / BASE, "no latency of a network", "Target.profile")
    return (kept["ms"], kept["error_ms"]) if kept["table"] == _name_of(table) else None


def _name_of(table: LatencyTable) -> str:
    return digest(table.networks.to_csv())


def _conditions(table: LatencyTable, name: str, command: str) -> DeviceFacts:
    """Device, runtime and versions, as the table tells them."""
    told = ("profile", "device", "runtime", "settings", "libraries", "date")
    facts = {key: as_tuples(table.provenance[key]) for key in told if key in table.provenance}
    return cast("DeviceFacts", {"name": name, "command": command, **facts})


def _base_ms(table: LatencyTable, model: TableModel) -> float:
    """Latency of the unpruned network: it is among those that were measured, or else predicted."""
    full = np.array(model.space.full())
    measured_ms = table.networks["latency_ms"].to_numpy()[(table.widths == full).all(axis=1)]
    return float(np.median(measured_ms)) if len(measured_ms) else float(model.predict(full)[0])
