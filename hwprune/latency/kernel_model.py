"""How long a kernel takes: a regressor for its family, pulled towards the kernel's own measurements."""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import MismatchError
from hwprune.latency.cross_validation import CrossValidation
from hwprune.latency.regressors import REGRESSORS, Regressor, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.kernels import KernelSpec

_FOLDS = 3
_SMALL_SHARE = 0.01  # families below this share of the time are not worth a comparison of regressors
_BASE_ERROR = 0.02  # how far even a perfectly quiet measurement is believed
_THIN = 2.0  # how much a cell of the staircase without any row adds to the regressor's variance
_SAME_US = 0.1  # noise of a kernel that took nothing


class KernelModel:
    """Learns from the rows of a table.

    Args:
        specs: Kernel of each row.
        time_us: Its time.
        network: Number of the network it was profiled in; folds never split a network.
        error: Relative error of that network's latency.
        chosen: Family -> regressor, where that is decided already; compared by cross-validation otherwise.
        judged: Choices and errors that are taken over, which saves time.
        regressors: Those to compare, by name.

    Attributes:
        chosen: Family -> name of the regressor in use.
        errors: Family -> regressor -> sum of absolute errors over sum of times, cross-validated; the one in
            use first.
        spreads: Family -> spread of the logarithm of its cross-validated predictions.
    """

    def __init__(
        self,
        specs: Sequence[KernelSpec],
        time_us: NDArray[np.float64],
        network: NDArray[np.int64],
        error: NDArray[np.float64],
        chosen: Mapping[str, str] | None = None,
        judged: CrossValidation | None = None,
        regressors: Mapping[str, type[Regressor]] = REGRESSORS,
    ) -> None:
        self._regressors = regressors
        self._specs, self._time_us, self._network = specs, time_us, network
        self._weights = 1 / (_BASE_ERROR**2 + error**2)
        self._unseen_us = np.full(len(specs), np.nan)
        judged = judged or CrossValidation()
        self.chosen: dict[str, str] = dict(judged.regressors)
        self.errors: dict[str, Mapping[str, float]] = dict(judged.kernel_errors)
        self.spreads: dict[str, float] = dict(judged.spreads)
        self._models: dict[str, Regressor] = {}
        families = np.array([spec.family for spec in specs])
        for family in sorted(set(families.tolist())):
            rows = np.flatnonzero(families == family)
            if family not in self.chosen:
                self._choose(family, rows, (chosen or {}).get(family))
            self._models[family] = self._fit(self.chosen[family], rows)
        self._measured = _Measured(specs, time_us)

    def _choose(self, family: str, rows: NDArray[np.int64], decided: str | None) -> None:
        names = [decided] if decided and decided in self._regressors else list(self._regressors)
        if self._time_us[rows].sum() < _SMALL_SHARE * self._time_us.sum():
            names = ["trees"]
        unseen = {name: self._cross_predict(name, rows) for name in names}
        total = max(self._time_us[rows].sum(), 1e-9)
        missed = {
            name: float(np.nansum(np.abs(found - self._time_us[rows])) / total)
            for name, found in unseen.items()
        }
        self.errors[family] = dict(sorted(missed.items(), key=lambda item: item[1]))
        best = self.chosen[family] = next(iter(self.errors[family]))
        self._unseen_us[rows] = unseen[best]
        self.spreads[family] = _log_spread(unseen[best], self._time_us[rows])

    def _cross_predict(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predictions for each row by a model that saw none of its network: (rows,); nan when impossible."""
        found = np.full(len(rows), np.nan)
        numbers = {number: i % _FOLDS for i, number in enumerate(np.unique(self._network))}
        fold = np.array([numbers[number] for number in self._network[rows]])
        for index in range(_FOLDS):
            test = fold == index
            if test.any() and not test.all():
                model = self._fit(name, rows[~test])
                found[test] = model.predict([self._specs[row] for row in rows[test]])
        return found

    def _fit(self, name: str, rows: NDArray[np.int64]) -> Regressor:
        specs = [self._specs[row] for row in rows]
        return self._regressors[name]().fit(specs, self._time_us[rows], self._weights[rows])

    def unseen_sums_ms(self, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sum over the kernels of each network, each predicted without having seen the network: (N,) ms."""
        order = {number: index for index, number in enumerate(networks)}
        sums = np.zeros(len(networks))
        np.add.at(sums, [order[number] for number in self._network], self._unseen_us / 1e3)
        return sums

    def predict(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """Microseconds of kernels: (N,).

        Raises:
            MismatchError: An operation that the table knows nothing about; it never counts as 0.
        """
        return self._blend(specs)[0]

    def variance(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """Square of the standard error of `predict`: (N,) microseconds squared."""
        return self._blend(specs)[1]

    def _blend(self, specs: Sequence[KernelSpec]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Regression and measurement, each weighted by the inverse of its variance."""
        guess = self._regress(specs)
        families = [spec.family for spec in specs]
        noise = np.array([self._measured.noise.get(family, _BASE_ERROR) for family in families])
        total = np.array([self.spreads[family] for family in families])
        thin = 1 + _THIN / (1 + self._measured.cell_counts(specs))
        model_var = np.maximum(total**2 - noise**2, (0.1 * total) ** 2) * thin
        mean_us, count = self._measured.lookup(specs)
        hit_var = np.where(count > 0, noise**2 / np.maximum(count, 1), np.inf)
        with np.errstate(invalid="ignore"):
            share = np.where(count > 0, model_var / np.maximum(model_var + hit_var, 1e-12), 0.0)
        share = np.where((count > 0) & (hit_var == 0), 1.0, share)
        value = share * mean_us + (1 - share) * guess
        relative = np.where(count > 0, (1 - share) * model_var, model_var)
        return value, relative * np.maximum(value, _SAME_US) ** 2

    def _regress(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        families = np.array([spec.family for spec in specs])
        guess = np.empty(len(specs))
        for family in set(families.tolist()):
            rows = np.flatnonzero(families == family)
            if family not in self._models:
                raise MismatchError(
                    "The latency table has no kernel of this operation: it cannot be predicted.",
                    got=family,
                    allowed=", ".join(sorted(self._models)),
                    do="measure this model with `hwprune profile`",
                )
            guess[rows] = self._models[family].predict([specs[row] for row in rows.tolist()])
        return guess


class _Measured:
    """What was measured for exactly a kernel, how much such measurements repeat, and where they are."""

    def __init__(self, specs: Sequence[KernelSpec], time_us: NDArray[np.float64]) -> None:
        times: dict[KernelSpec, list[float]] = {}
        for spec, value in zip(specs, time_us.tolist(), strict=True):
            times.setdefault(spec, []).append(value)
        self._found = {spec: (statistics.median(values), len(values)) for spec, values in times.items()}
        self.noise = _repeat_noise(times)
        self._cells: dict[KernelSpec, int] = {}
        for spec in specs:
            cell = _cell(spec)
            self._cells[cell] = self._cells.get(cell, 0) + 1

    def lookup(self, specs: Sequence[KernelSpec]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Median time (0 when never measured) and number of measurements of each kernel: (N,), (N,)."""
        found = np.array([self._found.get(spec, (0.0, 0)) for spec in specs], dtype=np.float64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def cell_counts(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """How many rows lie on the same step of the staircase as each kernel: (N,)."""
        return np.array([self._cells.get(_cell(spec), 0) for spec in specs], dtype=np.float64)


@functools.lru_cache(maxsize=65536)  # as for `kind_of`
def _cell(spec: KernelSpec) -> KernelSpec:
    ends = [math.ceil(c / 16) * 16 + (c % 4 != 0) for c in (spec.in_channels, spec.out_channels)]
    return replace(kind_of(spec), in_channels=ends[0], out_channels=ends[1])


def _repeat_noise(times: Mapping[KernelSpec, Sequence[float]]) -> dict[str, float]:
    """Family -> relative spread of measurements of one kernel in different networks, robustly."""
    deviations: dict[str, list[float]] = {}
    for spec, values in times.items():
        if len(values) > 1 and (centre := statistics.median(values)) > _SAME_US:
            grow = math.sqrt(len(values) / (len(values) - 1))
            found = deviations.setdefault(spec.family, [])
            found.extend(grow * abs(value / centre - 1) for value in values)
    return {family: 1.2533 * float(np.mean(np.clip(found, 0, 0.5))) for family, found in deviations.items()}


def _log_spread(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    known = np.isfinite(predicted) & (measured > _SAME_US)
    if known.sum() < 2:
        return 0.5
    left = np.log(np.maximum(predicted[known], _SAME_US) / measured[known])
    return float(max(1.4826 * np.median(np.abs(left)), 1e-4))
