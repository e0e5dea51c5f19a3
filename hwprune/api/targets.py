"""Devices that a search is about, each with its latency model: profiled here, or a table from elsewhere."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from hwprune.api.device import Device
from hwprune.api.project import Project, digest
from hwprune.errors import MismatchError
from hwprune.latency.folder import TableFolder
from hwprune.latency.model import LatencyModel
from hwprune.latency.table import LatencyTable
from hwprune.payloads import NOT_IN_NAMES, as_tuples
from hwprune.progress import QUIET, Reporter
from hwprune.results import DeviceFacts
from hwprune.runtimes.base import TargetProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprune.api.speeds import Speeds
    from hwprune.structure.space import SearchSpace

_DRIFTS, _LEAST_CHANGE = 2.0, 0.02


@dataclass(frozen=True, eq=False)
class Target:
    """One device under one target profile.

    Attributes:
        name: What results call it: the profile's name, with the device's when it is another machine.
        profile: The target profile.
        space: The search space, with choices that suit the device.
        model: Its latency model.
        base_ms: Measured latency of the unpruned network.
        base_error_ms: One standard error of it.
        drift: How far the machine's own speed wandered while the table was measured: a relative spread.
        pressure: How far a large and a small network drifted apart meanwhile, see `LatencyTable.pressure`.
        table: Stands for the latency table.
        conditions: What the table was measured under, see `results.SearchResult.devices`.
        device: Measures networks; None when only the table is at hand.
        build_spread: How far builds of one network differ: a relative standard deviation.
        speed: How many times as long as its table says the device is taken to need now.
    """

    name: str
    profile: TargetProfile
    space: SearchSpace
    model: LatencyModel
    base_ms: float
    base_error_ms: float
    drift: float
    pressure: float
    table: str
    conditions: DeviceFacts
    device: Device | None
    speed: float = 1.0
    build_spread: float = 0.0

    def predict(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Latencies of networks before any correction: widths (N, groups) -> milliseconds (N,)."""
        return self.model.predict(widths) * self.speed

    def as_of_now(self, speeds: Speeds) -> Target:
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
        self.device.base_ms = now.ms
        error_ms = math.hypot(now.error_ms, self.build_spread * now.ms)
        return replace(self, speed=speed, base_ms=now.ms, base_error_ms=error_ms)


def project_target(
    project: Project, device: str = "", profile: str = "", reporter: Reporter = QUIET
) -> Target:
    """A device that the project was profiled on, at hand.

    Args:
        project: The project.
        device: The device; "" takes the project's.
        profile: The target profile; "" takes the project's or the device's default.
        reporter: Told which runtime measures a GPU, and why, where nobody chose it.

    Raises:
        MissingArtifactError: `hwprune profile` has not been run for it.
        MismatchError: The table is of another device or model.
    """
    target, why = project.choice(device, profile)
    if why:
        reporter.note(why)
    space = project.space(target.name)
    profiled = project.profiled(target.name)
    base_ms, error_ms = profiled.base_ms, profiled.base_error_ms
    table = LatencyTable.load(project.table_folder(target.name))
    base_onnx = project.base_onnx(target.name)
    at_hand = Device(base_onnx, space, target, base_ms)
    try:
        table.check_matches(target, at_hand.runtime, space)
    except MismatchError as error:
        folder = project.table_folder(target.name)
        do = f"{error.do}, or search on the table alone, without measuring: --latency {folder}=VALUE"
        raise MismatchError(error.what, where=error.where, got=error.got, do=do) from error
    model = LatencyModel.fit(table, space, base_onnx)
    given = {"device": device, "profile": profile}
    options = "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)
    return Target(
        name=target.name,
        profile=target,
        space=space,
        model=model,
        base_ms=base_ms,
        base_error_ms=error_ms,
        drift=table.drift,
        pressure=table.pressure,
        table=_name_of(table),
        conditions=_conditions(table, target.name, f"hwprune profile{options}"),
        device=at_hand,
        build_spread=table.build_spread,
    )


def folder_target(folder: Path) -> Target:
    """A latency table on its own: its device is not at hand, and nothing is measured.

    Raises:
        ArtifactError: There is no latency table in the folder, or it is damaged.
    """
    found = TableFolder.load(folder)
    model, where = found.model(), found.table.provenance
    profile = TargetProfile.from_payload(where["profile"], where=str(folder))
    machine = str(where["device"].get("model", "another machine"))
    name = f"{profile.name} ({re.sub(NOT_IN_NAMES, '-', machine)})"  # it names files
    return Target(
        name=name,
        profile=profile,
        space=found.space,
        model=model,
        base_ms=_base_ms(found.table, model),
        base_error_ms=0.0,
        drift=found.table.drift,
        pressure=found.table.pressure,
        table=_name_of(found.table),
        conditions=_conditions(found.table, name, ""),
        device=None,
    )


def _conditions(table: LatencyTable, name: str, command: str) -> DeviceFacts:
    """Device, runtime and versions, as the table tells them."""
    told = ("profile", "device", "runtime", "settings", "libraries", "date")
    facts = {key: as_tuples(table.provenance[key]) for key in told if key in table.provenance}
    return cast("DeviceFacts", {"name": name, "command": command, **facts})


def _base_ms(table: LatencyTable, model: LatencyModel) -> float:
    """Latency of the unpruned network: it is among those that were measured, or else predicted."""
    full = np.array(model.space.full())
    measured_ms = table.networks["latency_ms"].to_numpy()[(table.widths == full).all(axis=1)]
    return float(np.median(measured_ms)) if len(measured_ms) else float(model.predict(full)[0])


def _name_of(table: LatencyTable) -> str:
    return digest(table.networks.to_csv())
