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

from hwprune.structure.counting import ChannelCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from hwprune.structure.kernels import KernelSlot, KernelSpec, NetworkKernels
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
        rest = [slot for (groups, _), slots in by_groups.items() if len(groups) > 2 for slot in slots]
        self._rest = _Wide(rest, space.full()[: len(space.groups)], self._specs, factors)

    @property
    def values(self) -> Values:
        """The value of each kernel, without its factor; those that are known already cost nothing."""
        return self._specs

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Widths (N, groups) -> sums (N,)."""
        total = np.empty(len(widths))
        starts = list(range(0, len(widths), _CHUNK))
        for _ in range(2):  # once more where kernels were met that were not known
            for start in starts:
                total[start : start + _CHUNK] = self._chunk(widths[start : start + _CHUNK])
            starts = [start for start in starts if np.isnan(total[start : start + _CHUNK]).any()]
            if not starts:
                break
            self._rest.fill()
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
    """Kernels that follow three groups or more: tables over channel counts, filled as they are met.

    Args:
        slots: The kernels.
        full: Widths of the unpruned network.
        specs: Values of kernels.
        factors: What the values of some of them are multiplied with.
    """

    def __init__(
        self,
        slots: Sequence[KernelSlot],
        full: Sequence[int],
        specs: _Remembered,
        factors: Mapping[KernelSlot, float],
    ) -> None:
        maps = list(dict.fromkeys(end for slot in slots for end in (slot.inputs, slot.outputs)))
        row = {channels: index for index, channels in enumerate(maps)}
        self._counts = ChannelCounts(maps, full)
        self._specs = specs
        self._slots = [
            _WideSlot(slot, row[slot.inputs], row[slot.outputs], factors.get(slot, 1.0), specs)
            for slot in slots
        ]

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Widths (N, groups) -> sums (N,), not a number where `fill` has to be called before."""
        total = np.zeros(len(widths))
        if not self._slots:
            return total
        counts = self._counts(widths)
        for slot in self._slots:
            total += slot(counts, widths)
        return total

    def fill(self) -> None:
        """Compute the values of all kernels that were met and not known, in one go."""
        wanted = [slot.wanted() for slot in self._slots]
        met = zip(self._slots, wanted, strict=True)
        values = self._specs([spec for slot, cells in met for spec in slot.specs(cells)])
        ends = np.cumsum([len(cells) for cells in wanted])[:-1]
        for slot, cells, found in zip(self._slots, wanted, np.split(values, ends), strict=True):
            slot.table[cells] = found
            slot.met[:] = False


class _WideSlot:
    """One kernel of `_Wide`.

    Attributes:
        table: Its values over channel counts.
        met: Which of them were asked for while they were not known.
    """

    def __init__(self, slot: KernelSlot, reads: int, makes: int, factor: float, values: _Remembered) -> None:
        self._slot, self._reads, self._makes, self._factor = slot, reads, makes, factor
        self._values = values
        self._side = 1 if reads == makes else slot.outputs.size + 1
        cells = (slot.inputs.size + 1) * self._side
        self.table = np.full(cells if cells <= _MAX_CELLS else 0, np.nan)
        self.met = np.zeros(len(self.table), dtype=bool)

    def __call__(self, counts: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.float64]:
        where = counts[self._reads]
        if self._side > 1:
            where = where * self._side + counts[self._makes]
        found = self._known(where)
        if self._factor != 1.0:
            found *= self._factor
        # Where a block is left out, its kernels are not made: their values do not count, known or not.
        return np.where(self._slot.present(widths), found, 0.0) if self._slot.gates else found

    def _known(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the table has for some cells; not a number, and noted, where it has nothing yet."""
        if not len(self.table):
            pairs, back = np.unique(cells, return_inverse=True)
            return self._values(self.specs(pairs))[back]
        found = self.table.take(cells)
        unknown = np.isnan(found)
        if unknown.any():
            self.met[cells[unknown]] = True
        return found

    def wanted(self) -> NDArray[np.int64]:
        """The cells of the table that are asked for."""
        return np.flatnonzero(self.met)

    def specs(self, cells: NDArray[np.int64]) -> list[KernelSpec]:
        """The kernels of some cells."""
        ends = (cells, cells) if self._side == 1 else np.divmod(cells, self._side)
        pairs = zip(*(end.tolist() for end in ends), strict=True)
        return [self._slot.spec(reads, makes) for reads, makes in pairs]
