"""Networks that a rule chooses in place of a search: of all it gives, the one of most MACs in the budget.

`uniform_width` keeps one share of the channels of every layer, `uniform_depth` one share of the blocks of
every stage, and drops the last ones; `compound` does both, with any pair of shares.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comparison_setup import Setup

    from hwprune.structure.space import SearchSpace, Widths

BOTH_WAYS = 4  # of a network's full widths, the narrowest first, are rounded up and down
_AT_ONCE = 20_000  # networks predicted at a time
_WAYS = (np.floor, np.ceil)


def uniform_width(setup: Setup, budget: float) -> Widths | None:
    """The uniform network with all blocks; None if no such network is within the budget.

    All groups of one full width get one width: the same share of it, rounded to a step of the device. The
    narrow ones may each round up or down (`BOTH_WAYS`), and the best of all combinations and steps is taken;
    one rule of rounding would leave more of the budget unused.
    """
    gates = tuple(block.width for block in setup.space.blocks)
    narrowest = setup.space.smallest()[: len(setup.space.groups)]
    return _largest(setup, ((*widths, *gates) for widths in {*_widths(setup), narrowest}), budget)


def uniform_depth(setup: Setup, budget: float) -> Widths | None:
    """The network of full width without the last blocks of each stage; None if none is within the budget."""
    widths = setup.space.full()[: len(setup.space.groups)]
    return _largest(setup, ((*widths, *gates) for gates in _depths(setup.space)), budget)


def compound(setup: Setup, budget: float) -> Widths | None:
    """The network of one share of the channels and another of the blocks; None if none is in the budget."""
    pairs = itertools.product({*_widths(setup)}, _depths(setup.space))
    return _largest(setup, ((*widths, *gates) for widths, gates in pairs), budget)


def _largest(setup: Setup, networks: Iterator[Widths], budget: float) -> Widths | None:
    """Of the networks within the budget that of most MACs; of equals, to a thousandth, of most latency."""
    best: tuple[float, float, Widths] | None = None
    space, full = setup.space, float(setup.space.macs(setup.space.full()))
    while some := list(itertools.islice(networks, _AT_ONCE)):
        table = space.canonical(some)
        rows = zip(np.round(space.macs(table) / full, 3), setup.shares(table), table.tolist(), strict=True)
        within = [(float(macs), float(share), tuple(net)) for macs, share, net in rows if share <= budget]
        best = max([*([best] if best else []), *within], default=None)
    return best[2] if best else None


def _widths(setup: Setup) -> Iterator[Widths]:
    """Widths of the groups for one share of all channels each, rounded in several ways."""
    groups = setup.space.groups
    own = {group.width: step for group, step in zip(groups, setup.steps, strict=False)}
    fulls = sorted(own)
    ways = [_WAYS if number < BOTH_WAYS else (np.round,) for number in range(len(fulls))]
    for steps in (own, *(dict.fromkeys(fulls, step) for step in setup.case.roundings)):
        for ratio, rounded in itertools.product(np.linspace(0.1, 1.0, 91), itertools.product(*ways)):
            counts = {
                full: int(way(ratio * full / steps[full])) for full, way in zip(fulls, rounded, strict=True)
            }
            kept = {full: min(full, steps[full] * max(1, count)) for full, count in counts.items()}
            yield tuple(kept[group.width] for group in groups)


def _depths(space: SearchSpace) -> list[Widths]:
    """Gates of the blocks for one share of each stage each, rounded up and down in each stage."""
    stages = _stages(space)
    found: set[Widths] = set()
    for ratio in np.linspace(0.0, 1.0, 101).tolist():
        for ways in itertools.product(_WAYS, repeat=len(stages)):
            gates = [0] * len(space.blocks)
            for places, way in zip(stages, ways, strict=True):
                for place in places[: int(way(round(ratio * len(places), 9)))]:
                    gates[place] = 1
            found.add(tuple(gates))
    return sorted(found)


def _stages(space: SearchSpace) -> list[list[int]]:
    """Places of the blocks of each stage: parts of one module that write the same channels."""
    layers = {layer.name: layer for layer in space.layers}
    stages: dict[object, list[int]] = {}
    for place, block in enumerate(space.blocks):
        last = next(name for name in reversed(layers) if name in set(block.layers))
        stages.setdefault((block.name.rpartition(".")[0], layers[last].outputs), []).append(place)
    return list(stages.values())
