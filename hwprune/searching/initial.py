"""The initial population of a search: networks by rules. The first are the floor that it must beat."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.evolution.problem import AccuracyScore, Problem
    from hwprune.structure.space import SearchSpace, Widths

_RATIOS = tuple(np.linspace(1.0, 0.1, 91).tolist())  # shares of the widths
_DEPTHS = tuple(np.linspace(0.0, 1.0, 11).tolist())  # shares of the blocks
_FINE = tuple(np.linspace(0.0, 1.0, 101).tolist())
_SHRUNK = (0.4, 0.55, 0.7, 0.85, 1.0)
_UNIFORM = 3  # largest uniform ones


def macs_score(space: SearchSpace) -> AccuracyScore:
    """A stand-in for accuracy without images: the share of the unpruned network's MACs that is kept."""
    full = float(space.macs(space.full()))

    def score(widths: Widths, /) -> float:
        return float(space.macs(widths)) / full

    return score


def initial_population(problem: Problem) -> list[Widths]:
    """Networks to try first, by rules; the floor, which a search must beat, comes first.

    The floor is the largest uniform network in the budget by widths, by depth (blocks dropped evenly, or the
    last ones), and by both. Then come wider ones, to be shrunk into the budget, and the largest ones of more
    depths and widths.
    """
    space = problem.space
    by_width = [space.uniform(ratio) for ratio in _RATIOS]
    rules = [by_width]
    both: list[Widths] = []
    if space.blocks:
        rules += [[space.uniform(1.0, depth, spread=spread) for depth in _FINE] for spread in (True, False)]
        each = [_largest(problem, [space.uniform(ratio, depth) for ratio in _RATIOS]) for depth in _DEPTHS]
        both = [net for one in each for net in one[:1]]
        both.sort(key=lambda net: -int(space.macs(net)))
    floor = [net for rule in rules for net in _largest(problem, rule)[:1]] + both[:1]
    shrunk = [space.uniform(ratio) for ratio in _SHRUNK]
    more = [*_largest(problem, by_width)[1:_UNIFORM], *shrunk]
    pairs = itertools.zip_longest(more, both[1:])
    return list(dict.fromkeys([*floor, *(net for pair in pairs for net in pair if net is not None)]))


def _largest(problem: Problem, networks: Sequence[Widths]) -> list[Widths]:
    """Those of some networks that are in the budget, the one of most MACs first."""
    unique = list(dict.fromkeys(networks))
    inside = problem.feasible(np.array(unique))
    found = [net for net, fits in zip(unique, inside, strict=True) if fits]
    return sorted(found, key=lambda net: -int(problem.space.macs(net)))
