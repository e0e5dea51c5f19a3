"""`LatencyModel`: predicts every network of a space from a latency table.

A network's latency is the sum of its kernels, corrected once at the level of networks. A kernel's time is
what a regressor for its family says, pulled towards what was measured for exactly this kernel, as far as
each of the two can be trusted; without noise a measured kernel keeps its measurement.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from hwprune.errors import MismatchError
from hwprune.latency.calibration import Calibration, mean_error
from hwprune.latency.kernel_model import KernelModel
from hwprune.latency.lookup import KernelSums
from hwprune.latency.regressors import REGRESSORS
from hwprune.latency.tiles import GPU_REGRESSORS
from hwprune.structure.kernels import NetworkKernels, derive_kernels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hwprune.latency.table import LatencyTable
    from hwprune.structure.kernels import KernelSlot
    from hwprune.structure.onnx_graph import NetGraph
    from hwprune.structure.space import SearchSpace

_MIN_HELD_OUT = 3


def judged(table: LatencyTable, space: SearchSpace, graph: NetGraph) -> LatencyTable:
    """The table with its regressors compared and the error of its predictions."""
    model = LatencyModel.fit(table, space, graph)
    errors = {
        "mean": model.relative_error,
        "interval_95": list(model.relative_error_interval),
        "held_out": int(table.held_out.sum()),
    }
    added = {
        "prediction_error": errors,
        "regressors": model.regressors,
        "regressor_errors": model.kernel_errors,
    }
    return replace(table, provenance={**table.provenance, **added})


class LatencyModel:
    """Predicts latencies; make one with `fit`.

    Attributes:
        relative_error: Mean absolute error of end-to-end predictions, as a fraction: over the held-out
            networks, by a model that had not seen them; cross-validated when there are too few of those.
        relative_error_interval: 95 % confidence interval of `relative_error`.
        errors: The absolute relative errors behind both, one for each network that judged.
        calibration: Correction at the level of networks.
        kernel_errors: Family of kernels -> regressor -> share of the time it misses, cross-validated when
            the table was made; the first regressor of each family is the best.
        kernels: The kernels of the space's networks.
        space: The search space.
    """

    relative_error: float
    relative_error_interval: tuple[float, float]
    errors: NDArray[np.float64]
    calibration: Calibration
    kernel_errors: dict[str, dict[str, float]]
    kernels: NetworkKernels
    space: SearchSpace

    def __init__(
        self, kernels: NetworkKernels, space: SearchSpace, model: KernelModel, calibration: Calibration
    ) -> None:
        self.kernels, self.calibration = kernels, calibration
        self.kernel_errors = model.errors
        self.relative_error, self.relative_error_interval = float("nan"), (float("nan"), float("nan"))
        self.errors = np.zeros(0)
        self.space, self._model = space, model

    @classmethod
    def fit(cls, table: LatencyTable, space: SearchSpace, base_onnx: bytes | NetGraph) -> Self:
        """Fit to a table; its held-out networks judge a first model, then they are learnt from too.

        Args:
            table: What was measured.
            space: The search space; its choices decide what `predict` is fastest at.
            base_onnx: The unpruned network.

        Raises:
            MismatchError: The table's kernels are not those of this network.
        """
        profile = table.provenance["profile"]
        kernels = derive_kernels(
            base_onnx, space, table.fusion, batch=profile["batch"], precision=profile["precision"]
        )
        if table.widths.shape[1] != len(space.groups):
            raise MismatchError(
                "The latency table belongs to another search space.",
                got=f"{table.widths.shape[1]} channel groups",
                allowed=f"{len(space.groups)}",
            )
        seen = ~table.held_out
        judged = cls._fit(table, space, kernels, seen)
        judged.kernel_errors = table.provenance.get("regressor_errors", judged.kernel_errors)
        if (~seen).sum() < _MIN_HELD_OUT:
            return judged
        final = cls._fit(table, space, kernels, np.ones_like(seen), judged)
        final.kernel_errors = judged.kernel_errors
        final._judge(judged.predict(table.widths[~seen]), table.networks["latency_ms"].to_numpy()[~seen])
        return final

    @classmethod
    def _fit(
        cls,
        table: LatencyTable,
        space: SearchSpace,
        kernels: NetworkKernels,
        rows: NDArray[np.bool_],
        judged: Self | None = None,
    ) -> Self:
        networks = table.networks[rows]
        numbers = networks["network"].to_numpy()
        used = table.kernels["network"].isin(numbers).to_numpy()
        part = table.kernels[used]
        specs = [spec for spec, keep in zip(table.specs(), used, strict=True) if keep]
        error = dict(zip(numbers, networks["error_ms"] / networks["latency_ms"], strict=True))
        model = KernelModel(
            specs,
            part["time_us"].to_numpy(dtype=np.float64),
            part["network"].to_numpy(),
            np.array([error[number] for number in part["network"]]),
            table.provenance.get("regressors"),
            judged._model if judged else None,
            REGRESSORS if table.provenance["profile"]["device"] == "cpu" else GPU_REGRESSORS,
        )
        if judged:
            return cls(kernels, space, model, judged.calibration)
        measured_ms = networks["latency_ms"].to_numpy(dtype=np.float64)
        sums_ms = model.unseen_sums_ms(numbers)
        fitted = cls(kernels, space, model, Calibration.fit(sums_ms, measured_ms))
        known = np.isfinite(sums_ms)
        fitted._judge(fitted.calibration(sums_ms[known]), measured_ms[known])
        return fitted

    @property
    def regressors(self) -> dict[str, str]:
        """Family of kernels -> name of the regressor in use."""
        return dict(self._model.chosen)

    def _judge(self, predicted_ms: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> None:
        self.errors = np.abs(predicted_ms / measured_ms - 1)
        self.relative_error, self.relative_error_interval = mean_error(self.errors)

    def predict(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Latency of networks: widths (N, groups) -> milliseconds (N,).

        Raises:
            MismatchError: A network has a kernel of an operation that the table knows nothing about.
        """
        table = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        return self.calibration(self._sums(table) / 1e3)

    def uncertainty_ms(self, widths: ArrayLike) -> NDArray[np.float64]:
        """One standard error of `predict`: widths (N, groups) -> milliseconds (N,).

        Larger where the table is thin: where few kernels like the network's were measured.
        """
        table = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        own_ms = np.sqrt(self._variances(table)) / 1e3
        return np.hypot(own_ms * self.calibration.scale, self.calibration.spread * self.predict(table))

    def kernel_us(self, slot: KernelSlot, widths: ArrayLike) -> NDArray[np.float64]:
        """Microseconds of one kernel in networks: widths (N, groups) -> (N,)."""
        return self._sums.of((slot,), np.atleast_2d(np.asarray(widths, dtype=np.int64)))

    @functools.cached_property
    def _sums(self) -> KernelSums:
        return KernelSums(self.kernels, self.space, self._model.predict)

    @functools.cached_property
    def _variances(self) -> KernelSums:
        return KernelSums(self.kernels, self.space, self._model.variance)
