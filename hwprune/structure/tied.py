"""Tied modules: their inner layers have one width and are generated together, as MetaPruning's blocks.

They are named by a pattern of the module's name, part by part: `layer?.*` names `layer1.0`, `layer1.1`, ...
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hwprune.errors import ModelError
from hwprune.structure.layers import FROZEN, ChannelMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hwprune.structure.layers import Layer
    from hwprune.structure.space import SearchSpace

_NAMED = 6  # modules that a message lists


def tied_modules(space: SearchSpace, patterns: Sequence[str]) -> dict[str, str]:
    """Layer -> the tied module it is in, for the layers that are in one.

    Raises:
        ModelError: A pattern fits no layer.
    """
    found = {}
    for pattern in patterns:
        inside = {layer.name: name for layer in space.layers if (name := _module(layer.name, pattern))}
        if not inside:
            parents = dict.fromkeys(layer.name.rpartition(".")[0] for layer in space.layers)
            named = [name for name in parents if name][:_NAMED]
            raise ModelError(
                "A pattern of tied modules fits no layer.",
                where=space.model,
                got=pattern,
                allowed=f"names of modules with layers inside, such as {', '.join(named) or 'none here'}",
                do="mend `tied` under [model]",
            )
        found.update(inside)
    return found


def _module(layer: str, pattern: str) -> str:
    parts, wanted = layer.split("."), pattern.split(".")
    if len(parts) < len(wanted) or not all(map(fnmatchcase, parts, wanted)):
        return ""
    return ".".join(parts[: len(wanted)])


def seen_groups(space: SearchSpace, home_of: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Layer -> the groups whose widths its weight generator is told.

    Those that the layer writes and reads; in a tied module, those of all its layers (MetaPruning, section
    3.2: the encoding of a block is the width it reads, the widths inside it, and the width it writes).
    """
    own = {layer.name: groups_of(layer) for layer in space.layers}
    shared: dict[str, dict[int, None]] = {}
    for layer, module in home_of.items():
        shared.setdefault(module, {}).update(dict.fromkeys(own[layer]))
    return {layer: tuple(shared[home_of[layer]]) if layer in home_of else seen for layer, seen in own.items()}


def groups_of(layer: Layer) -> tuple[int, ...]:
    """The groups that a layer writes and reads."""
    return tuple(dict.fromkeys((*layer.outputs.groups, *layer.inputs.groups)))


def tie(space: SearchSpace, patterns: Sequence[str]) -> SearchSpace:
    """Give the groups inside a tied module one width, as MetaPruning does in ResNet-50's bottlenecks.

    Groups of equal width that no layer outside their module writes or reads become one group; the widths of a
    bottleneck's two inner layers are then one gene.

    Raises:
        ModelError: A pattern fits no layer.
    """
    home_of = tied_modules(space, patterns)
    homes: dict[int, set[str]] = {}
    for layer in space.layers:
        for seen in groups_of(layer):
            homes.setdefault(seen, set()).add(home_of.get(layer.name, ""))
    first: dict[tuple[str, int, int], int] = {}
    leader = list(range(len(space.groups)))
    for index, group in enumerate(space.groups):
        home = homes.get(index, {""})
        if len(home) == 1 and (module := next(iter(home))):
            leader[index] = first.setdefault((module, group.width, group.multiple), index)
    kept = sorted(set(leader))
    place = {index: kept.index(leader[index]) for index in range(len(leader))} | {FROZEN: FROZEN}
    return replace(
        space,
        groups=tuple(space.groups[index] for index in kept),
        layers=tuple(_renumbered(layer, place) for layer in space.layers),
        products=tuple(
            replace(one, outputs=_moved(one.outputs, place), reads=_moved(one.reads, place))
            for one in space.products
        ),
        attributes=tuple(replace(one, size=_moved(one.size, place)) for one in space.attributes),
        blocks=tuple(
            replace(block, groups=tuple(place[group] for group in block.groups))
            for block in space.blocks
            if all(leader.count(leader[group]) == 1 for group in block.groups)  # others must keep theirs
        ),
    )


def _moved(channels: ChannelMap, place: Mapping[int, int]) -> ChannelMap:
    return ChannelMap(tuple(replace(run, group=place[run.group]) for run in channels.runs))


def _renumbered(layer: Layer, place: Mapping[int, int]) -> Layer:
    tensors = (
        replace(tensor, axes=tuple((axis, _moved(channels, place)) for axis, channels in tensor.axes))
        for tensor in layer.tensors
    )
    inputs, outputs = _moved(layer.inputs, place), _moved(layer.outputs, place)
    return replace(layer, inputs=inputs, outputs=outputs, tensors=tuple(tensors))
