"""Networks that no other network beats in both accuracy and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def pareto_front(accuracy: ArrayLike, cost: ArrayLike) -> NDArray[np.int64]:
    """Indices of the networks that are not dominated, cheapest first.

    A network is dominated when another is at least as accurate and at most as costly, and better in one of
    the two. Of equal networks the first is kept.

    Args:
        accuracy: Higher is better, (N,).
        cost: Latency or another figure to lower, (N,).
    """
    gain, price = np.asarray(accuracy, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    order = np.lexsort((np.arange(len(gain)), -gain, price))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(gain[order])[:-1])) if len(order) else gain
    front: NDArray[np.int64] = order[gain[order] > best_before]
    return front
