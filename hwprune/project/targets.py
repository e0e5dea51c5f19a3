"""Devices that a project was profiled on."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from hwprune.errors import MismatchError
from hwprune.latency.device import Device
from hwprune.latency.folder import TableFolder
from hwprune.latency.table import LatencyTable
from hwprune.progress import QUIET, Reporter
from hwprune.searching.latency_model import LatencyModel

if TYPE_CHECKING:
    from hwprune.project.folder import Project


def project_target(
    project: Project, device: str = "", profile: str = "", reporter: Reporter = QUIET
) -> LatencyModel:
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
    given = {"device": device, "profile": profile}
    options = "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)
    return LatencyModel.of(
        TableFolder(table, space, base_onnx),
        name=target.name,
        command=f"hwprune profile{options}",
        base=(base_ms, error_ms),
        device=at_hand,
    )
