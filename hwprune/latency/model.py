"""`TableModel`: predicts every network of a space from a latency table.

A network's latency is the sum of its kernels and the cost of a run, corrected once at the level of networks.
A kernel's time is what a regressor for its family says, pulled towards what was measured for exactly this
kernel, as far as each of the two can be trusted; without noise a measured kernel keeps its measurement.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from hwprune.errors import MismatchError
from hwprune.latency.calibration import Calibration, mean_error
from hwprune.latency.cross_validation import CrossValidation
from hwprune.latency.kernel_model import KernelModel
from hwprune.latency.lookup import KernelSums
from hwprune.latency.regressors import REGRESSORS
from hwprune.latency.wave_quantisation import GPU_REGRESSORS
from hwprune.structure.kernels import NetworkKernels, derive_kernels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from hwprune.latency.table import LatencyTable
    from hwprune.structure.kernels import KernelSlot
    from hwprune.structure.onnx_graph import NetGraph
    from hwprune.structure.space import SearchSpace

_MIN_HELD_OUT = 3


def judged(
    table: LatencyTable, space: SearchSpace, graph: NetGraph, model: TableModel | None = None
) -> LatencyTable:
    """The table with its regressors compared and the error of its predictions.

    Args:
        table: What was measured.
        space: The search space.
        graph: The unpruned network.
        model: A model of exactly these networks that has compared the regressors, if there is one.
    """
    model = model or TableModel.fit(table, space, graph, anew=True)
    errors = {
        "mean": model.relative_error,
        "interval_95": list(model.relative_error_interval),
        "held_out": int(table.held_out.sum()),
    }
    added = model.cross_validation.to_provenance(table)
    return replace(table, provenance={**table.provenance, "prediction_error": errors, **added})


class TableModel:
    """Predicts latencies; make one with `fit`.

    Attributes:
        relative_error: Mean absolute error of end-to-end predictions, as a fraction: over the held-out
            networks, by a model that had not seen them; cross-validated when there are too few of those.
        relative_error_interval: 95 % confidence interval of `relative_error`.
        errors: The absolute relative errors behind both, one for each network that judged.
        judged_ms: What those were made of: (networks, 3), predicted, measured, one standard error of it.
        calibration: Correction at the level of networks.
        cross_validation: Which regressors are in use, and how much each misses.
        kernels: The kernels of the space's networks.
        space: The search space.
        run_ms: What a run costs beside its kernels.
    """

    def __init__(
        self,
        kernels: NetworkKernels,
        space: SearchSpace,
        model: KernelModel,
        cross_validation: CrossValidation,
        run_ms: float = 0.0,
    ) -> None:
        self.kernels, self.space, self.cross_validation, self.run_ms = (
            kernels,
            space,
            cross_validation,
            run_ms,
        )
        self.errors, self.calibration = cross_validation.errors, cross_validation.calibration
        self.judged_ms = cross_validation.judged_ms
        self.relative_error, self.relative_error_interval = mean_error(self.errors)
        self._model = model

    @classmethod
    def fit(
        cls, table: LatencyTable, space: SearchSpace, base_onnx: bytes | NetGraph, *, anew: bool = False
    ) -> Self:
        """Fit to a table; its held-out networks judge a first model, then they are learnt from too.

        Args:
            table: What was measured.
            space: The search space; its choices decide what `predict` is fastest at.
            base_onnx: The unpruned network.
            anew: Judge again, whatever cross_validation the table keeps.

        Raises:
            MismatchError: The table's kernels are not those of this network.
        """
        profile = table.provenance["profile"]
        kernels = derive_kernels(
            base_onnx, space, table.fusion, batch=profile["batch"], precision=profile["precision"]
        )
        if table.widths.shape[1] != len(space.genes):
            raise MismatchError(
                "The latency table belongs to another search space.",
                got=f"{table.widths.shape[1]} widths and gates",
                allowed=f"{len(space.genes)}",
            )
        seen = ~table.held_out
        enough = (~seen).sum() >= _MIN_HELD_OUT
        kept = None if anew else CrossValidation.of(table)
        if kept is not None:
            return cls._fit(table, space, kernels, np.ones_like(seen) if enough else seen, kept)
        first = cls._fit(table, space, kernels, seen)
        if not enough:
            return first
        judged_ms = np.column_stack(
            [first.predict(table.widths[~seen]), _measured_ms(table)[~seen]]
        )  # (N, 3)
        return cls._fit(
            table, space, kernels, np.ones_like(seen), replace(first.cross_validation, judged_ms=judged_ms)
        )

    @classmethod
    def _fit(
        cls,
        table: LatencyTable,
        space: SearchSpace,
        kernels: NetworkKernels,
        rows: NDArray[np.bool_],
        judged: CrossValidation | None = None,
    ) -> Self:
        """Fit to some of the networks; without a cross_validation cross-validation makes one."""
        numbers = table.networks["network"].to_numpy()[rows]
        figures_ms = _measured_ms(table)[rows]
        used = table.kernels["network"].isin(numbers).to_numpy()
        part = table.kernels[used]
        error = dict(zip(numbers, figures_ms[:, 1] / figures_ms[:, 0], strict=True))
        model = KernelModel(
            [spec for spec, keep in zip(table.specs(), used, strict=True) if keep],
            part["time_us"].to_numpy(dtype=np.float64),
            part["network"].to_numpy(),
            np.array([error[number] for number in part["network"]]),
            table.provenance.get("regressors"),
            judged,
            REGRESSORS if table.provenance["profile"]["device"] == "cpu" else GPU_REGRESSORS,
        )
        calibration, judged_ms = (
            (judged.calibration, judged.judged_ms)
            if judged
            else _crossed(model, numbers, figures_ms, table.run_ms)
        )
        cross_validation = CrossValidation(model.chosen, model.errors, model.spreads, calibration, judged_ms)
        return cls(kernels, space, model, cross_validation, table.run_ms)

    def scaled(self, factors: Mapping[KernelSlot, float], run: float = 1.0) -> Self:
        """This model with the times of the kernels at some places, and of a run, multiplied."""
        other = type(self)(self.kernels, self.space, self._model, self.cross_validation, run * self.run_ms)
        other._sums = KernelSums(self.kernels, self.space, self._sums.values, factors)
        return other

    def predict(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Latency of networks: widths (N, groups) -> milliseconds (N,).

        Raises:
            MismatchError: A network has a kernel of an operation that the table knows nothing about.
        """
        table = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        return self.calibration(self._sums(table) / 1e3 + self.run_ms)

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


def _measured_ms(table: LatencyTable) -> NDArray[np.float64]:
    """Latency of each network and one standard error of it: (N, 2)."""
    figures: NDArray[np.float64] = table.networks[["latency_ms", "error_ms"]].to_numpy(dtype=np.float64)
    return figures


def _crossed(
    model: KernelModel, numbers: NDArray[np.int64], measured_ms: NDArray[np.float64], run_ms: float
) -> tuple[Calibration, NDArray[np.float64]]:
    """The calibration of networks by kernels that were predicted without having seen them, and what it gives.

    Args:
        model: The kernels' model.
        numbers: The networks, (N,).
        measured_ms: Their latencies and errors, (N, 2).
        run_ms: What a run costs beside its kernels.
    """
    sums_ms = model.unseen_sums_ms(numbers) + run_ms
    calibration, known = Calibration.fit(sums_ms, measured_ms[:, 0]), np.isfinite(sums_ms)
    return calibration, np.column_stack([calibration(sums_ms[known]), measured_ms[known]])
