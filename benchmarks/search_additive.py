"""A start that is no evolution: the best by an additive importance under the latency table, as in HALP.

Each choice of each group is worth the importance of the channels that it keeps; the worth of a network is
the sum (HALP, Shen et al., NeurIPS 2022, equation 4). Latency couples groups that meet in a layer, so the
knapsack is solved through its Lagrangian: for a price of latency, coordinate ascent over the groups; the
price is halved in until the network is just inside the budget. Ascent need not find the very optimum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwprune.evolution.operators import Genome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from hwprune.evolution.problem import Problem
    from hwprune.structure.space import SearchSpace, Widths

_PRICES = 24
_SWEEPS = 30


def worth_of(space: SearchSpace, importance: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """For each group the importance that each of its choices keeps, when the least important go first."""
    worth = []
    for group, scores in zip(space.groups, importance, strict=True):
        kept = np.concatenate([[0.0], np.cumsum(np.sort(scores.double().numpy())[::-1])])
        worth.append(kept[list(group.choices)])
    return worth


def additive_optimum(problem: Problem, worth: Sequence[NDArray[np.float64]]) -> Widths:
    """The most worth network that is found inside the budget."""
    genome = Genome(problem.space)
    low, high = 0.0, 1.0
    while problem.load(_at(genome, _ascend(genome, problem, worth, high)))[0] > 1 and high < 1e12:
        high *= 4
    best = _ascend(genome, problem, worth, high)
    for _ in range(_PRICES):
        price = (low + high) / 2
        found = _ascend(genome, problem, worth, price)
        if problem.feasible(_at(genome, found))[0]:
            best, high = found, price
        else:
            low = price
    return tuple(_at(genome, _filled(genome, problem, worth, best))[0].tolist())


def _at(genome: Genome, row: NDArray[np.int64]) -> NDArray[np.int64]:
    return genome.widths(row[None])


def _moves(genome: Genome, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every network that differs in one group, and which group that is."""
    group = np.repeat(np.arange(len(genome.sizes)), genome.sizes)
    moves = np.repeat(row[None], len(group), axis=0)
    moves[np.arange(len(group)), group] = np.concatenate([np.arange(size) for size in genome.sizes])
    return moves, group


def _value(worth: Sequence[NDArray[np.float64]], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    columns = [choices[rows[:, group]] for group, choices in enumerate(worth)]
    return np.sum(columns, axis=0) / sum(choices[-1] for choices in worth)


def _ascend(
    genome: Genome, problem: Problem, worth: Sequence[NDArray[np.float64]], price: float
) -> NDArray[np.int64]:
    """The best of worth - price x load that single moves lead to, from the unpruned network."""
    row = genome.full.copy()
    for _ in range(_SWEEPS * len(row)):
        moves, _ = _moves(genome, row)
        gains = _value(worth, moves) - price * problem.load(genome.widths(moves))
        best = moves[gains.argmax()]
        if (best == row).all():
            break
        row = best
    return row


def _filled(
    genome: Genome, problem: Problem, worth: Sequence[NDArray[np.float64]], row: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What the last price left of the budget, spent on the most worth single moves."""
    while True:
        moves, _ = _moves(genome, row)
        gains = np.where(problem.feasible(genome.widths(moves)), _value(worth, moves), -1.0)
        if gains.max() <= _value(worth, row[None])[0] + 1e-12:
            return row
        row = moves[gains.argmax()]
