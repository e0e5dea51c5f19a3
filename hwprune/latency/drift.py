"""A device that does not behave as its table says any more: kernels of one kind changed more than others.

A machine that is slower as a whole needs one factor. When neighbours take cache, or a runtime was updated,
some kernels slow down and others do not; then the model is refitted to whole networks measured since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprune.latency.model import TableModel

_FEW = 5  # networks, below which nothing but a factor can be told
_SEEN = 2.0  # times the errors of model and measurements that is left after the best factor
_LEAST_ERROR = 0.005  # relative: no measurement of whole networks is believed more closely
_PRIOR = 0.25  # how far a kernel's time is believed to have changed, relatively
_SHARED = 0.5  # the part of it that kernels of one family have in common
_LEAST_FACTOR = 0.2


def drifted(
    model: TableModel,
    networks: NDArray[np.int64],
    measured_ms: NDArray[np.float64],
    error_ms: NDArray[np.float64],
) -> bool:
    """Whether one factor for all networks does not explain what was measured.

    Args:
        model: The latency model.
        networks: Widths of networks measured since it was fitted, (N, groups).
        measured_ms: Their latencies, (N,).
        error_ms: One standard error of each, (N,).
    """
    if len(networks) < _FEW:
        return False
    _, missed, noise = _against(model, networks, measured_ms, error_ms)
    return bool(np.sqrt(np.mean(missed**2)) > _SEEN * np.sqrt(np.mean(noise**2)))


def follow(
    model: TableModel,
    networks: NDArray[np.int64],
    measured_ms: NDArray[np.float64],
    error_ms: NDArray[np.float64],
) -> TableModel:
    """The model with a factor for each kernel, by what was measured of whole networks.

    The best factor for all networks, and departures from it: a Gaussian prior, in which kernels of one family
    depart alike in part, is conditioned on the networks (Bayesian linear regression).

    Args:
        model: The latency model.
        networks: Widths of networks measured since it was fitted, (N, groups).
        measured_ms: Their latencies, (N,).
        error_ms: One standard error of each, (N,).
    """
    factor, missed, noise = _against(model, networks, measured_ms, error_ms)
    slots = model.kernels.slots
    times_us = np.stack([model.kernel_us(slot, networks) for slot in slots], axis=1)
    shares = times_us / (times_us.sum(axis=1, keepdims=True) + 1e3 * model.run_ms)  # (N, slots)
    families = np.array([slot.full.family for slot in slots])
    prior = _PRIOR**2 * np.where(families[:, None] == families, _SHARED, 0.0)
    prior += _PRIOR**2 * (1 - _SHARED) * np.eye(len(slots))
    seen = shares @ prior @ shares.T + np.diag(noise**2)
    departures = prior @ shares.T @ np.linalg.solve(seen, missed)  # (slots,)
    factors = np.maximum(factor * (1 + departures), _LEAST_FACTOR).tolist()
    return model.scaled(dict(zip(slots, factors, strict=True)), run=factor)


def _against(
    model: TableModel,
    networks: NDArray[np.int64],
    measured_ms: NDArray[np.float64],
    error_ms: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The factor that suits most networks; relative, (N,): how far each is off, and what noise explains."""
    ratios = measured_ms / model.predict(networks)
    factor = float(np.median(ratios))
    noise = np.hypot(max(model.relative_error, _LEAST_ERROR), error_ms / measured_ms)
    return factor, ratios / factor - 1, noise
