"""Which networks to measure: spread over the whole range of latencies, and different from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hwprune.structure.space import SearchSpace, Widths

_NARROWEST = 0.05  # ratio below which every group is at its narrowest choice
# How far the groups of one network lie from the network's own ratio, for the kinds of network in turn.
# Uniformly random widths alone (the last kind) all have nearly the same latency.
_SPREADS = (0.05, 0.2, None)


def draw(space: SearchSpace, rng: np.random.Generator, kind: int | None = None) -> Widths:
    """Draw one network.

    Args:
        space: The search space.
        rng: Source of randomness.
        kind: 0 nearly uniform in its ratio, 1 loosely so, 2 every group on its own; random when None.

    Returns:
        The network. A share of its blocks goes that is drawn uniformly; in every third network none does.
    """
    spread = _SPREADS[(int(rng.integers(len(_SPREADS))) if kind is None else kind) % len(_SPREADS)]
    if spread is None:
        return space.sample(rng)
    ratio = rng.uniform(_NARROWEST, 1.0)
    ratios = np.clip(ratio + rng.normal(0.0, spread, len(space.groups)), 0.0, 1.0)
    widths = [
        min(group.choices, key=lambda choice: abs(choice - wished))
        for group, wished in zip(space.groups, _wished(space, ratios), strict=True)
    ]
    if not space.blocks:
        return tuple(widths)
    share = 1.0 if rng.random() < 1 / 3 else rng.random()
    return space.check([*widths, *(int(rng.random() < share) for _ in space.blocks)])


def _wished(space: SearchSpace, ratios: np.ndarray) -> list[float]:
    return [float(ratio) * group.width for ratio, group in zip(ratios, space.groups, strict=True)]


def planned(space: SearchSpace, index: int, seed: int) -> Widths:
    """The network with a number in the plan of a seed: the same on every machine and after every resume.

    The first ones are the widest, the narrowest and the middle network; where blocks may go, also the widest
    without and the narrowest with all of them.
    """
    anchors = [space.full(), space.smallest(), space.uniform(0.5)]
    if space.blocks:
        anchors += [space.uniform(1.0, depth=0.0), space.uniform(0.0)]
    if index < len(anchors):
        return anchors[index]
    return draw(space, np.random.default_rng([seed, index]), index)


def pool(space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    """Candidates for an adaptive choice: (count, groups)."""
    return np.array([draw(space, rng) for _ in range(count)], dtype=np.int64)
