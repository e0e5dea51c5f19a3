"""What a search keeps an eye on: latencies, MACs, parameters, sizes, and how much of each is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from hwprune.errors import MismatchError, UsageError
from hwprune.evolution.problem import Constraint
from hwprune.latency.drift import follow
from hwprune.latency.fingerprint import space_fingerprint
from hwprune.results import Figure
from hwprune.results.acceptance import SEARCH, keeps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hwprune.latency.device import Device
    from hwprune.searching.latency_model import LatencyModel
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.units import Quantity

    Predict = Callable[[NDArray[np.int64]], NDArray[np.float64] | NDArray[np.int64]]

_SPREADS = 2.0  # of what wanders that a budget keeps free ...
_MOST_MARGIN = {"ms": 0.03, "share": 0.05}  # ... and the most of the budget that it may cost


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
    target: LatencyModel | None = None
    exact: Callable[[Widths], float] | None = None

    @classmethod
    def of_latency(cls, model: LatencyModel, quantity: Quantity | None) -> Self:
        """The latency on a device."""
        return cls(model.name, "ms", model.base_ms, model.predict, quantity, model)

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
            return self.limit is None or keeps(self.base, self.limit)
        return keeps(self.base, self.limit, self._base_error, SEARCH, self.margin)

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
        but it wanders with the contention of neighbours, the more the smaller the share is.
        """
        if self.target is None or self.quantity is None or self.limit is None:
            return 0.0
        if not self.quantity.relative:
            return min(_SPREADS * self.target.drift, _MOST_MARGIN["ms"])
        smaller = max(math.log(self.base / self.limit), 0.0)
        return min(_SPREADS * self.target.contention * smaller, _MOST_MARGIN["share"])

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

    def at(self, target: LatencyModel) -> Budget:
        """The same budget, on its target as that is now."""
        return replace(self, base=target.base_ms, predict=target.predict, target=target)


def counted(space: SearchSpace, macs: Quantity | None, params: Quantity | None) -> list[Budget]:
    """MACs and parameters: they are always told, whether they are limited or not."""
    full = space.full()
    return [
        Budget("macs", "MACs", float(space.macs(full)), space.macs, macs),
        Budget("params", "params", float(space.params(full)), space.params, params),
    ]


def check_together(targets: Sequence[LatencyModel]) -> None:
    """One network, and one file, must serve all devices.

    Raises:
        UsageError: A device twice, or devices that need different files.
        MismatchError: Tables of different models.
    """
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
    if others := [
        t.name for t in targets[1:] if space_fingerprint(t.space) != space_fingerprint(targets[0].space)
    ]:
        raise MismatchError(
            "The latency tables are of different models.",
            got=", ".join(others),
            allowed=targets[0].space.model,
            do="profile the same model on every device; where only some tables know networks without blocks, "
            "set depth = false under [model] and profile again",
        )


def common_space(spaces: Sequence[SearchSpace]) -> SearchSpace:
    """The first space, with the choices that suit every device; full width is always one of them."""
    groups = tuple(
        replace(same[0], choices=tuple(sorted(set.intersection(*(set(g.choices) for g in same)))))
        for same in zip(*(space.groups for space in spaces), strict=True)
    )
    return replace(spaces[0], groups=groups)
