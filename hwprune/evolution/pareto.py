"""Networks that no other network beats in both accuracy and latency, and how NSGA-II orders the others."""

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


def ranks(accuracy: ArrayLike, cost: ArrayLike) -> NDArray[np.int64]:
    """0 for networks that are not dominated, 1 for those that only these dominate, and so on: (N,).

    Args:
        accuracy: Higher is better, (N,).
        cost: Latency or another figure to lower, (N,).
    """
    gain, price = np.asarray(accuracy, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    rank, left = np.zeros(len(gain), dtype=np.int64), np.arange(len(gain))
    for number in range(len(gain)):
        if not len(left):
            break
        front = pareto_front(gain[left], price[left])
        rank[left[front]] = number
        left = np.delete(left, front)
    return rank


def crowding(accuracy: ArrayLike, cost: ArrayLike, rank: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far apart each network's neighbours of the same rank are: (N,); infinitely, at the ends.

    Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002), section III-B.

    Args:
        accuracy: As in `ranks`.
        cost: As in `ranks`.
        rank: What `ranks` gives.
    """
    distance = np.zeros(len(rank))
    if not len(rank):
        return distance
    for figures in (np.asarray(accuracy, dtype=np.float64), np.asarray(cost, dtype=np.float64)):
        span = np.ptp(figures) or 1.0
        for number in range(int(rank.max(initial=-1)) + 1):
            own = np.flatnonzero(rank == number)
            own = own[np.argsort(figures[own], kind="stable")]
            distance[own[[0, -1]]] = np.inf
            distance[own[1:-1]] += (figures[own[2:]] - figures[own[:-2]]) / span
    return distance
