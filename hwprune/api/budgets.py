"""Budgets as the user writes them, and what each of them limits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwprune.api.subject import unpruned_onnx
from hwprune.api.targets import Target, folder_target, project_target
from hwprune.errors import MismatchError, UsageError
from hwprune.evolution.problem import Constraint
from hwprune.latency.drift import follow
from hwprune.latency.fingerprint import space_fingerprint
from hwprune.latency.folder import known_table
from hwprune.progress import QUIET, Reporter
from hwprune.results import Figure
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.units import Quantity, parse_bytes, parse_count, parse_latency

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hwprune.api.device import Device
    from hwprune.api.project import Project
    from hwprune.structure.space import SearchSpace, Widths

    Predict = Callable[[NDArray[np.int64]], NDArray[np.float64] | NDArray[np.int64]]

_SPREADS = 2.0  # of what wanders that a budget keeps free ...
_MOST_MARGIN = {"ms": 0.03, "share": 0.05}  # ... and the most of the budget that it may cost
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


@dataclass(frozen=True, eq=False)
class Budget:
    """One thing that the search keeps an eye on; without a quantity it is only reported.

    Attributes:
        name: As in `results.Figure`.
        unit: `ms`, `MACs`, `params` or `bytes`.
        base: The unpruned network's figure.
        predict: Figures of networks: widths (N, groups) -> (N,).
        quantity: The limit as it was written; None without one.
        target: The device of a latency.
        exact: The exact figure of one network, where predictions are not; None for those that are exact.
    """

    name: str
    unit: str
    base: float
    predict: Predict
    quantity: Quantity | None = None
    target: Target | None = None
    exact: Callable[[Widths], float] | None = None

    @property
    def device(self) -> Device | None:
        """What measures it; None for counts, and for a device that is not at hand."""
        return self.target.device if self.target else None

    @property
    def only_predicted(self) -> bool:
        """Whether the figure can be predicted, but not known: a latency on a device that is not at hand."""
        return self.unit == "ms" and self.device is None

    @property
    def met_by_base(self) -> bool:
        """Whether the unpruned network keeps the budget; milliseconds with its error and the margin."""
        if self.limit is None or self.quantity is None or self.quantity.relative:
            return self.limit is None or self.base <= self.limit
        return self.base + self._base_error <= self.limit * (1 - self.margin)

    @property
    def _base_error(self) -> float:
        return self.target.base_error_ms if self.target else 0.0

    def base_figure(self) -> Figure:
        """What the unpruned network needs of this, as it was profiled."""
        if self.only_predicted:
            return self.figure(self.base)
        return self.figure(self.base, self.base, self._base_error)

    def figure(self, predicted: float, measured: float | None = None, error: float | None = None) -> Figure:
        """What a network needs of this, beside the unpruned one and the budget."""
        return Figure(
            name=self.name,
            unit=self.unit,
            base=self.base,
            predicted=predicted,
            measured=measured,
            error=error,
            budget=self.quantity.text if self.quantity else "",
            limit=self.limit,
        )

    @property
    def limit(self) -> float | None:
        """The budget in `unit`."""
        return None if self.quantity is None else self.quantity.of(self.base)

    @property
    def margin(self) -> float:
        """The part of the budget to keep free, so that it also holds in another hour of the machine.

        Milliseconds drift with the machine's own speed. A share of the unpruned network's latency does not,
        but it wanders with the pressure of neighbours, the more the smaller the share is.
        """
        if self.target is None or self.quantity is None or self.limit is None:
            return 0.0
        if not self.quantity.relative:
            return min(_SPREADS * self.target.drift, _MOST_MARGIN["ms"])
        smaller = max(math.log(self.base / self.limit), 0.0)
        return min(_SPREADS * self.target.pressure * smaller, _MOST_MARGIN["share"])

    @property
    def wandering(self) -> str:
        """Why there is a margin."""
        share = self.quantity is not None and self.quantity.relative
        return "small and large networks drift apart there" if share else "the machine's own speed wanders"

    def constraint(self, *, margin: bool) -> Constraint:
        """The limit for a search, with the margin taken off or without."""
        if self.limit is None:
            raise ValueError(f"{self.name} has no budget")
        limit = self.limit * (1 - self.margin if margin else 1)
        refit = self.refit if self.device else None
        return Constraint(name=self.name, predict=self.predict, limit=limit, unit=self.unit, refit=refit)

    def refit(
        self, networks: NDArray[np.int64], measured_ms: NDArray[np.float64], error_ms: NDArray[np.float64]
    ) -> Predict:
        """Predictions of latency that follow networks measured on the device now: widths (N, groups)."""
        if self.target is None:
            raise ValueError(f"{self.name} is no latency")
        return follow(self.target.model, networks, measured_ms, error_ms).predict

    @property
    def in_milliseconds(self) -> bool:
        """Whether it is a limit in milliseconds of a device that is at hand, not a share of the base's."""
        return self.device is not None and self.quantity is not None and not self.quantity.relative

    @property
    def unit_error(self) -> float:
        """Relative error of the unit of measurements: none for shares, of which it is no part."""
        return self._base_error / self.base if self.in_milliseconds else 0.0

    def at(self, target: Target) -> Budget:
        """The same budget, on its target as that is now."""
        return replace(self, base=target.base_ms, predict=target.predict, target=target)


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
    _check_together(targets)
    if all(target.device is None for target in targets):
        _check_model(project, targets[0])
    space = targets[0].space
    budgets = [
        Budget(target.name, "ms", target.base_ms, target.predict, one.quantity if one else None, target)
        for one, target in zip(latencies, targets, strict=True)
    ]
    given = {one.name: one.quantity for one in asked}
    full = np.array(space.full())
    budgets += [
        Budget("macs", "MACs", float(space.macs(full)), space.macs, given.get("macs")),
        Budget("params", "params", float(space.params(full)), space.params, given.get("params")),
    ]
    if "size" in given:
        budgets.append(_size(project, targets[0], given["size"]))
    return tuple(budgets)


def _target(project: Project, place: str, device: str, profile: str, reporter: Reporter) -> Target:
    """The device that a user named: DEVICE, DEVICE/PROFILE, or the folder or name of a table."""
    if not place:
        return project_target(project, device, profile, reporter)
    if known_table(Path(place)):
        return folder_target(Path(place))
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


def _check_together(targets: Sequence[Target]) -> None:
    """One network, and one file, must serve all devices."""
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise UsageError(
            "Two latency budgets are about the same device.",
            got=f"target profiles {', '.join(names)}",
            do="name the profile, such as cpu/cpu=8ms beside cpu/cpu-1t=60%, or give one of them only",
        )
    formats = {(target.profile.precision, target.profile.batch) for target in targets}
    if len(formats) > 1:
        raise UsageError(
            "The devices need different files: their number formats or batches differ.",
            got="; ".join(f"{t.name}: {t.profile.precision}, batch {t.profile.batch}" for t in targets),
            do="search for each of them alone",
        )
    if strangers := [
        t.name for t in targets[1:] if space_fingerprint(t.space) != space_fingerprint(targets[0].space)
    ]:
        raise MismatchError(
            "The latency tables are of different models.",
            got=", ".join(strangers),
            allowed=targets[0].space.model,
            do="profile the same model on every device; where only some tables know networks without blocks, "
            "set depth = false under [model] and profile again",
        )


def _check_model(project: Project, target: Target) -> None:
    """A table from elsewhere must be of the project's model; `hwprune profile` may never have run here."""
    from hwprune.api.subject import traced

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


def common_space(spaces: Sequence[SearchSpace]) -> SearchSpace:
    """The first space, with the choices that suit every device; full width is always one of them."""
    groups = tuple(
        replace(same[0], choices=tuple(sorted(set.intersection(*(set(g.choices) for g in same)))))
        for same in zip(*(space.groups for space in spaces), strict=True)
    )
    return replace(spaces[0], groups=groups)


def _size(project: Project, target: Target, quantity: Quantity) -> Budget:
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
    classes = json.dumps(project.dataset.classes) if project.config.data.source else ""
    slicer, more = OnnxSlicer(base_onnx, space), _METADATA_BYTES + len(classes)

    def exact(widths: Widths) -> float:
        return float(len(slicer.slice(widths)) + more)

    ends = np.array([space.smallest(), space.full()])
    bytes_, params = [exact(tuple(end)) for end in ends.tolist()], space.params(ends)
    slope = (bytes_[1] - bytes_[0]) / max(int(params[1] - params[0]), 1)

    def predict(widths: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(bytes_[1] - slope * (params[1] - space.params(widths)), dtype=np.float64)

    return Budget("size", "bytes", bytes_[1], predict, quantity, exact=exact)
