"""Budgets as the user writes them, and what each of them limits."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import MismatchError, UsageError
from hwprune.latency.fingerprint import space_fingerprint
from hwprune.latency.folder import known_table
from hwprune.progress import QUIET, Reporter
from hwprune.project.network import unpruned_onnx
from hwprune.project.targets import project_target
from hwprune.searching.latency_model import LatencyModel
from hwprune.searching.limits import Budget, check_together, counted
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.units import Quantity, parse_bytes, parse_count, parse_latency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hwprune.project.folder import Project
    from hwprune.structure.space import Widths

    Predict = Callable[[NDArray[np.int64]], NDArray[np.float64] | NDArray[np.int64]]

_METADATA_BYTES = 4096  # provenance in an exported file, beside the names of its classes


@dataclass(frozen=True)
class Asked:
    """One budget as it was written.

    Attributes:
        name: `latency`, `macs`, `params` or `size`.
        quantity: The limit.
        place: The device of a latency budget as the user wrote it; "" for the project's.
    """

    name: str
    quantity: Quantity
    place: str = ""


def parse_budgets(latency: str | Sequence[str], macs: str, params: str, size: str) -> tuple[Asked, ...]:
    """Read the budgets of a command.

    Args:
        latency: VALUE, or DEVICE=VALUE, DEVICE/PROFILE=VALUE, FOLDER=VALUE; one or several.
        macs: A count or share, or "".
        params: The same.
        size: Bytes or a share, or "".

    Raises:
        UsageError: One cannot be understood, or there is none.
    """
    asked = []
    for text in (latency,) if isinstance(latency, str) else latency:
        place, _, value = text.rpartition("=")
        if text:
            asked.append(Asked("latency", parse_latency(value), place.strip()))
    counts = (("macs", macs, parse_count), ("params", params, parse_count), ("size", size, parse_bytes))
    asked += [Asked(name, parse(text, f"--{name}")) for name, text, parse in counts if text]
    if not asked:
        raise UsageError(
            "A search needs a budget.",
            allowed="--latency 15ms, --latency 60%, --macs 300M, --params 2M, --size 4MB, or several",
            do="give one, for example --latency 60%",
        )
    return tuple(asked)


def resolve(
    project: Project, asked: Sequence[Asked], device: str, profile: str, reporter: Reporter = QUIET
) -> tuple[Budget, ...]:
    """What the budgets limit: latencies first, then MACs and parameters, which are always reported.

    Args:
        project: The project.
        asked: The budgets.
        device: For a budget that names none; "" takes the project's.
        profile: The target profile for it; "" takes the project's or the device's default.
        reporter: Told which runtime measures a GPU, and why, where nobody chose it.

    Raises:
        UsageError: A device or folder that is not there, a budget given twice, or devices that one file
            cannot serve.
        ArtifactError: `hwprune profile` has not been run for a device.
    """
    latencies: list[Asked | None] = [one for one in asked if one.name == "latency"] or [None]
    targets = [_target(project, one.place if one else "", device, profile, reporter) for one in latencies]
    check_together(targets)
    if all(target.device is None for target in targets):
        _check_model(project, targets[0])
    space = targets[0].space
    budgets = [
        Budget.of_latency(target, one.quantity if one else None)
        for one, target in zip(latencies, targets, strict=True)
    ]
    given = {one.name: one.quantity for one in asked}
    budgets += counted(space, given.get("macs"), given.get("params"))
    if "size" in given:
        budgets.append(_size(project, targets[0], given["size"]))
    return tuple(budgets)


def _target(project: Project, place: str, device: str, profile: str, reporter: Reporter) -> LatencyModel:
    """The device that a user named: DEVICE, DEVICE/PROFILE, or the folder or name of a table."""
    if not place:
        return project_target(project, device, profile, reporter)
    if known_table(Path(place)):
        return LatencyModel.load(place)
    name, _, under = place.partition("/")
    if name == "cpu" or name.startswith("cuda"):
        return project_target(project, name, under, reporter)
    raise UsageError(
        "A latency budget names a device that is not known.",
        where="--latency",
        got=place,
        allowed="cpu, cpu/PROFILE, a folder with a latency table (table.json), or one of `hwprune lut list`",
        do="see `hwprune doctor` for the devices of this machine, or check the path of the folder",
    )


def _check_model(project: Project, target: LatencyModel) -> None:
    """A table from elsewhere must be of the project's model; `hwprune profile` may never have run here."""
    from hwprune.project.network import traced

    own = traced(project)
    if not target.space.blocks:  # a table of widths alone is of the same model
        own = replace(own, blocks=())
    if space_fingerprint(own) != space_fingerprint(target.space):
        raise MismatchError(
            "The latency table is of another model, or of other images, than the project's.",
            where=target.name,
            got=target.space.model,
            allowed=f"{own.model}, {own.input_shape[-1]} pixels",
            do="make a plan with `hwprune profile --plan` and measure it on that device",
        )


def _size(project: Project, target: LatencyModel, quantity: Quantity) -> Budget:
    """Bytes of the exported file: a straight line over the parameters, and exactly by slicing."""
    space = target.space
    if target.device is not None:
        base_onnx = project.base_onnx(target.profile.name)
    elif target.profile.precision == "fp32":
        base_onnx = unpruned_onnx(project, space, space.input_shape[0])
    else:
        raise UsageError(
            "The size of a file in an integer format is known only where its device is.",
            where="--size",
            got=target.name,
            do="give the budget as --params",
        )
    classes = json.dumps(project.dataset.classes) if project.config.data.given else ""
    slicer, more = OnnxSlicer(base_onnx, space), _METADATA_BYTES + len(classes)

    def exact(widths: Widths) -> float:
        return float(len(slicer.slice(widths)) + more)

    ends = np.array([space.smallest(), space.full()])
    bytes_, params = [exact(tuple(end)) for end in ends.tolist()], space.params(ends)
    slope = (bytes_[1] - bytes_[0]) / max(int(params[1] - params[0]), 1)

    def predict(widths: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(bytes_[1] - slope * (params[1] - space.params(widths)), dtype=np.float64)

    return Budget("size", "bytes", bytes_[1], predict, quantity, exact=exact)
