"""What a runtime's profiler adds to each kernel, and what a run costs beside its kernels. No pandas.

A network's latency is what its kernels were reported to take, less what reporting each of them cost, plus
the cost of a run. Where the number of kernels differs between networks, as when blocks are left out, both
show in the latencies of whole networks: without them the kernels of shallow networks look too fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_NETWORKS = 8
_ROUNDS = 5
_MOST_OFF = 0.9  # of a kernel's reported time


@dataclass(frozen=True)
class Overhead:
    """Costs that no kernel has.

    Attributes:
        run_us: Of a run, microseconds.
        kernel_us: Of reporting one kernel, microseconds of reported time.
    """

    run_us: float = 0.0
    kernel_us: float = 0.0

    @classmethod
    def fit(
        cls, reported_us: NDArray[np.float64], kernels: NDArray[np.float64], latency_us: NDArray[np.float64]
    ) -> Self:
        """Fit latency = scale x (reported - kernels x kernel_us) + run_us, robustly, no cost below zero.

        Args:
            reported_us: What all kernels of each network were reported to take, (N,).
            kernels: How many they were, (N,).
            latency_us: The measured latency of each network, (N,).
        """
        if len(latency_us) < _LEAST_NETWORKS:
            return cls()
        columns = np.stack([reported_us, -kernels, np.ones_like(reported_us)], axis=1) / latency_us[:, None]
        trust = np.ones(len(latency_us))
        found = np.array([1.0, 0.0, 0.0])
        for _ in range(_ROUNDS):
            found = _not_below_zero(columns * trust[:, None], trust)
            missed = np.abs(columns @ found - 1)
            trust = 1 / np.sqrt(np.maximum(missed / max(float(np.median(missed)), 1e-6), 1.0))
        return cls(float(found[2]), float(found[1] / max(found[0], 1e-9)))

    def less(self, reported_us: float) -> float:
        """A kernel's reported time without what reporting it cost; some of it is always left."""
        return max(reported_us - self.kernel_us, (1 - _MOST_OFF) * reported_us)


def _not_below_zero(columns: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with coefficients of zero or more, the first above it: the best of all subsets."""
    best, least = np.array([1.0, 0.0, 0.0]), np.inf
    for chosen in ([0], [0, 1], [0, 2], [0, 1, 2]):
        part = np.linalg.lstsq(columns[:, chosen], goal, rcond=None)[0]
        found = np.zeros(3)
        found[chosen] = part
        error = float(np.square(columns @ found - goal).sum())
        if (part >= 0).all() and error < least:
            best, least = found, error
    return best
