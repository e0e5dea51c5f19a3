"""Sums over the kernels of a network, for a million networks: gathers from small tables, no regressor.

A group has few choices, and most kernels follow one or two groups. So each kernel's value is computed once
for every pair of choices; kernels that follow the same pair of groups share one table. What follows more
groups (behind a concatenation) or uses a width that is no choice is computed on demand and remembered. A
kernel in a block counts where the network has the block.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.kernels import NetworkKernels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.kernels import KernelSlot, KernelSpec
    from hwprune.structure.space import SearchSpace

    Values = Callable[[Sequence[KernelSpec]], NDArray[np.float64]]

_Place = tuple[tuple[int, ...], tuple[int, ...]]  # groups that a kernel follows, gates around it

_CHUNK = 8192  # networks at a time: index arrays stay in the cache
_MAX_CELLS = 4_000_000  # a remembered table larger than this is not worth its memory


class KernelSums:
    """Adds up a value over all kernels of a network.

    Args:
        kernels: The kernels of the space's networks.
        space: The space; its choices are prepared for.
        values: The value of each kernel: specs -> (N,).
        factors: What the values at some places of the network are multiplied with.
    """

    def __init__(
        self,
        kernels: NetworkKernels,
        space: SearchSpace,
        values: Values,
        factors: Mapping[KernelSlot, float] = MappingProxyType({}),
    ) -> None:
        self._space, self._kernels, self._factors = space, kernels, factors
        self._specs = _Remembered(values)
        by_groups: dict[_Place, list[KernelSlot]] = {}
        for slot in kernels.slots:
            groups = tuple(sorted({*slot.inputs.groups, *slot.outputs.groups}))
            by_groups.setdefault((groups, slot.gates), []).append(slot)
        empty = {group for block in space.blocks for group in block.groups}  # in networks without these
        self._choices = [(0,) * (i in empty) + group.choices for i, group in enumerate(space.groups)]
        self._position = [
            _positions(group.width, own) for group, own in zip(space.groups, self._choices, strict=True)
        ]
        self._specs.prepare(self._grids(by_groups))
        self._tables = {
            place: self.of(slots, self._grid(place[0]))
            for place, slots in by_groups.items()
            if len(place[0]) <= 2
        }
        rest = tuple(slot for (groups, _), slots in by_groups.items() if len(groups) > 2 for slot in slots)
        self._rest = _Wide(rest, self._specs, factors)

    @property
    def values(self) -> Values:
        """The value of each kernel, without its factor; those that are known already cost nothing."""
        return self._specs

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Widths (N, groups) -> sums (N,)."""
        total = np.empty(len(widths))
        for start in range(0, len(widths), _CHUNK):
            total[start : start + _CHUNK] = self._chunk(widths[start : start + _CHUNK])
        return total

    def _chunk(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        columns = np.ascontiguousarray(widths.T)
        index = [position.take(column) for position, column in zip(self._position, columns, strict=False)]
        total = self._rest(widths)
        for (groups, gates), table in self._tables.items():
            if not groups:
                values = np.broadcast_to(table, len(widths))
            elif len(groups) == 1:
                values = table.take(index[groups[0]], mode="clip")
            else:
                size = len(self._choices[groups[1]])
                values = table.take(index[groups[0]] * size + index[groups[1]], mode="clip")
            for gate in gates:
                values = values * columns[gate]
            total += values
        other = np.zeros(len(widths), dtype=bool)
        for column in index:
            other |= column < 0
        if other.any():
            total[other] = self.of(self._kernels.slots, widths[other])
        return total

    def _grid(self, groups: tuple[int, ...]) -> NDArray[np.int64]:
        """Networks of all blocks with every combination of the choices of `groups`: (combinations, genes)."""
        choices = [self._choices[group] for group in groups]
        if not choices:
            return np.array([self._space.full()])
        mesh = np.meshgrid(*(np.array(options) for options in choices), indexing="ij")
        grid = np.tile(np.array(self._space.full(), dtype=np.int64), (mesh[0].size, 1))
        for group, values in zip(groups, mesh, strict=True):
            grid[:, group] = values.ravel()
        return grid

    def _grids(self, by_groups: dict[_Place, list[KernelSlot]]) -> list[KernelSpec]:
        """All specs that the tables will need."""
        wanted: set[KernelSpec] = set()
        for (groups, _), slots in by_groups.items():
            if len(groups) <= 2:
                grid = self._grid(groups)
                for slot in slots:
                    wanted.update(_slot_specs(slot, grid)[0])
        return list(wanted)

    def of(self, slots: Sequence[KernelSlot], widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """The sum over some slots, spec by spec: slow, but good for any widths."""
        total = np.zeros(len(widths))
        for slot in slots:
            specs, where = _slot_specs(slot, widths)
            total += self._factors.get(slot, 1.0) * self._specs(specs)[where] * slot.present(widths)
        return total


def _positions(width: int, choices: Sequence[int]) -> NDArray[np.int32]:
    """Width -> index of that choice, -1 when it is none: (width + 1,)."""
    position = np.full(width + 1, -1, dtype=np.int32)
    position[list(choices)] = np.arange(len(choices))
    return position


def _slot_specs(slot: KernelSlot, widths: NDArray[np.int64]) -> tuple[list[KernelSpec], NDArray[np.int64]]:
    """The distinct kernels of a slot over networks, and which of them each network has."""
    reads = slot.inputs.count(widths)
    makes = reads if slot.outputs == slot.inputs else slot.outputs.count(widths)
    side = int(makes.max(initial=0)) + 1
    pairs, where = np.unique(reads * side + makes, return_inverse=True)
    return [slot.spec(*divmod(int(pair), side)) for pair in pairs], where


class _Remembered:
    """Values of kernels, each computed once."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._known: dict[KernelSpec, float] = {}

    def prepare(self, specs: Sequence[KernelSpec]) -> None:
        new = [spec for spec in specs if spec not in self._known]
        self._known |= {spec: 0.0 for spec in new if not spec.out_channels}  # of layers that are left out
        new = [spec for spec in new if spec.out_channels]
        if new:
            self._known.update(zip(new, self._values(new).tolist(), strict=True))

    def __call__(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        self.prepare(specs)
        return np.array([self._known[spec] for spec in specs])


class _Wide:
    """Kernels that follow three groups or more: tables over channel counts, filled as they are met."""

    def __init__(
        self, slots: tuple[KernelSlot, ...], specs: _Remembered, factors: Mapping[KernelSlot, float]
    ) -> None:
        self._kernels = NetworkKernels(slots, {}, {})
        self._factors = [factors.get(slot, 1.0) for slot in slots]
        self._specs = specs
        self._tables: dict[int, NDArray[np.float64]] = {}

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        total = np.zeros(len(widths))
        if not self._kernels.slots:
            return total
        inputs, outputs = self._kernels.channels(widths)
        for index, slot in enumerate(self._kernels.slots):
            values = self._slot(index, slot, inputs[:, index], outputs[:, index])
            total += self._factors[index] * values * slot.present(widths)
        return total

    def _slot(
        self, index: int, slot: KernelSlot, reads: NDArray[np.int64], makes: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        same = slot.inputs == slot.outputs
        side = 1 if same else slot.outputs.size + 1
        where = reads if same else reads * side + makes
        if (slot.inputs.size + 1) * side > _MAX_CELLS:
            pairs, back = np.unique(where, return_inverse=True)
            return self._fill(slot, pairs, side)[back]
        if index not in self._tables:
            self._tables[index] = np.full((slot.inputs.size + 1) * side, np.nan)
        table = self._tables[index]
        found = table.take(where)
        if len(missing := np.unique(where[np.isnan(found)])):
            table[missing] = self._fill(slot, missing, side)
            found = table.take(where)
        return found

    def _fill(self, slot: KernelSlot, pairs: NDArray[np.int64], side: int) -> NDArray[np.float64]:
        ends = [(int(pair), int(pair)) if side == 1 else divmod(int(pair), side) for pair in pairs]
        return self._specs([slot.spec(*end) for end in ends])
