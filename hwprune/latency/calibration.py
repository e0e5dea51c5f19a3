"""The correction from a sum of kernels to a network's latency, and the error of predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_NETWORKS = 12  # below, only a factor is learnt
_ROUNDS = 5
_PRIOR = 4.0  # networks' worth of belief that the sum is right as it is


@dataclass(frozen=True)
class Calibration:
    """latency = scale x sum of kernels + offset.

    Attributes:
        scale: Factor on the sum.
        offset_ms: Time of a run that belongs to no kernel.
        spread: Relative spread of what is left, a robust standard deviation.
    """

    scale: float = 1.0
    offset_ms: float = 0.0
    spread: float = 0.0

    def __call__(self, sums_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corrected latencies, milliseconds; never below a tenth of the sum."""
        return np.maximum(self.scale * sums_ms + self.offset_ms, 0.1 * sums_ms)

    @classmethod
    def fit(cls, sums_ms: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Self:
        """Fit relative errors, robustly, with a belief in scale 1 and offset 0.

        Args:
            sums_ms: Sums of predicted kernels of networks that the predictor had not seen; nan is left out.
            measured_ms: Their measured latencies.
        """
        known = np.isfinite(sums_ms)
        sums, measured = sums_ms[known], measured_ms[known]
        if len(sums) < 2:
            return cls()
        terms = np.column_stack([sums, np.full(len(sums), np.median(measured))]) / measured[:, None]
        belief = np.sqrt(_PRIOR) * np.eye(2)
        if len(sums) < _MIN_NETWORKS:
            belief[1, 1] = 1e6
        trust = np.ones(len(sums))
        for _ in range(_ROUNDS):
            rows = np.vstack([terms * trust[:, None], belief])
            goal = np.concatenate([trust, belief @ np.array([1.0, 0.0])])
            scale, offset = np.linalg.lstsq(rows, goal, rcond=None)[0]
            missed = np.abs(terms @ np.array([scale, offset]) - 1)
            trust = 1 / np.sqrt(np.maximum(missed / max(np.median(missed), 1e-6), 1.0))
        left = terms @ np.array([scale, offset]) - 1
        return cls(float(scale), float(offset * np.median(measured)), float(1.4826 * np.median(np.abs(left))))


def mean_error(errors: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Mean of absolute relative errors and its 95 % confidence interval (Student's t; at least 0)."""
    if not len(errors):
        return 1.0, (0.0, 1.0)
    mean = float(errors.mean())
    half = (
        _student(len(errors) - 1) * float(errors.std(ddof=1)) / math.sqrt(len(errors))
        if len(errors) > 1
        else 1.0
    )
    return mean, (max(mean - half, 0.0), mean + half)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by its expansion around the normal one."""
    z, n = 1.959964, degrees
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
