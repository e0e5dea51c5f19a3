"""The vocabulary of a search space: channel groups, and the maps from tensor dimensions to them. No torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

FROZEN = -1  # group index of channels that are always kept


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive local channels that follow channels of one group at equal distances.

    Attributes:
        group: Index of the group, or `FROZEN`.
        start: The group's channel that the run starts at.
        length: How many of the group's channels it follows.
        repeat: Local channels per group channel (a flattened 7x7 map has 49).
        step: Distance of the group's channels (the norm groups of a GroupNorm take turns).
    """

    group: int
    start: int
    length: int
    repeat: int = 1
    step: int = 1


def within(path: str, module: str) -> bool:
    """Whether a module is another one or inside it, by their qualified names."""
    return f"{path}.".startswith(f"{module}.")


@dataclass(frozen=True)
class ChannelMap:
    """How the channels of one tensor dimension follow the groups, in local order.

    A local channel that follows channel `i` of a group is kept when the group's width is above `i`.
    """

    runs: tuple[Run, ...]

    @classmethod
    def frozen(cls, size: int) -> ChannelMap:
        """A dimension of `size` channels that is never pruned."""
        return cls((Run(FROZEN, 0, size),))

    @classmethod
    def of(cls, groups: NDArray[np.int64], channels: NDArray[np.int64]) -> ChannelMap:
        """The map of some local channels.

        Args:
            groups: The group that each follows, or `FROZEN`: (size,).
            channels: The channel of that group: (size,).
        """
        return _map_of(groups.astype(np.int64).tobytes(), np.where(groups == FROZEN, 0, channels).tobytes())

    @functools.cached_property
    def size(self) -> int:
        """Channels of the unpruned dimension."""
        return sum(run.length * run.repeat for run in self.runs)

    @functools.cached_property
    def groups(self) -> tuple[int, ...]:
        """Groups that this dimension follows, in order of first use."""
        return tuple(dict.fromkeys(run.group for run in self.runs if run.group != FROZEN))

    @functools.cached_property
    def group_of(self) -> NDArray[np.int64]:
        """Group of each local channel, `FROZEN` where it follows none: (size,)."""
        sizes = [run.length * run.repeat for run in self.runs]
        return np.repeat(np.array([run.group for run in self.runs], dtype=np.int64), sizes)

    @functools.cached_property
    def channel_of(self) -> NDArray[np.int64]:
        """Channel of its group that each local channel follows: (size,)."""
        parts = [
            np.repeat(run.start + run.step * np.arange(run.length, dtype=np.int64), run.repeat)
            for run in self.runs
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    @functools.cached_property
    def _ascending(self) -> Mapping[int, NDArray[np.int64]]:
        """Group -> the channels that are followed, ascending."""
        return {group: np.sort(self.channel_of[self.group_of == group]) for group in self.groups}

    def count(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Channels kept: widths (..., groups) -> (...)."""
        table = np.asarray(widths, dtype=np.int64)
        fixed = sum(run.length * run.repeat for run in self.runs if run.group == FROZEN)
        total = np.full(table.shape[:-1], fixed, dtype=np.int64)
        for group, channels in self._ascending.items():
            total += np.searchsorted(channels, table[..., group])
        return total

    def kept(self, widths: Sequence[int]) -> NDArray[np.int64]:
        """Indices of the local channels kept at `widths`, ascending: (kept,)."""
        return np.flatnonzero(self.keeps(widths))

    def keeps(self, widths: Sequence[int]) -> NDArray[np.bool_]:
        """Which local channels are kept at `widths`: (size,)."""
        limits = np.append(np.asarray(widths, dtype=np.int64), np.iinfo(np.int64).max)
        return np.asarray(self.channel_of < limits[self.group_of])


@functools.lru_cache(maxsize=4096)  # most axes of a network are like another one
def _map_of(groups: bytes, channels: bytes) -> ChannelMap:
    sides = (np.frombuffer(side, dtype=np.int64).tolist() for side in (groups, channels))
    return ChannelMap(tuple(_runs(*sides)))


def _runs(groups: list[int], channels: list[int]) -> list[Run]:
    """Two lists over local channels (group, channel of it) as few runs."""
    runs: list[Run] = []
    local, size = 0, len(groups)
    while local < size:
        group, start = groups[local], channels[local]
        end = local
        while end < size and groups[end] == group and channels[end] == start:
            end += 1
        if group == FROZEN:
            runs.append(Run(FROZEN, 0, end - local))
            local = end
            continue
        repeat, length, step = end - local, 1, 1
        if end < size and groups[end] == group and channels[end] > start:
            step = channels[end] - start
            while _continues(groups, channels, end, group, start + length * step, repeat):
                end, length = end + repeat, length + 1
        runs.append(Run(group, start, length, repeat, step if length > 1 else 1))
        local = end
    return runs


def _continues(
    groups: list[int], channels: list[int], at: int, group: int, channel: int, repeat: int
) -> bool:
    """Whether the next `repeat` local channels, and no more, follow one channel of a group."""
    if at + repeat > len(groups):
        return False
    same = all(groups[at + k] == group and channels[at + k] == channel for k in range(repeat))
    beyond = at + repeat
    return same and not (beyond < len(groups) and groups[beyond] == group and channels[beyond] == channel)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that are pruned together.

    Attributes:
        name: Qualified name of the first layer that produces them.
        width: Channels of that layer in the unpruned network.
        multiple: Widths must be a multiple of this (grouped convolutions, norm groups, halves).
        choices: Allowed widths, ascending; the last one is `width`.
    """

    name: str
    width: int
    multiple: int
    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a network that may go as a whole: its input is then its output, or there is no output.

    Its gate, 1 or 0, is an entry of a network beside the widths of the groups.

    Attributes:
        name: Qualified name of the module.
        input: Tensor of the exported graph that takes the place of its output; "" where nothing does, as the
            output is a part of concatenations.
        output: Tensor of the exported graph that it makes.
        layers: Names of the layers inside.
        products: Indices of the space's products inside.
        groups: Channel groups of its part of a concatenation: without the block they have no channels.
        reads: Tensors of the exported graph that it reads, where that is not `input` alone.
    """

    name: str
    input: str
    output: str
    layers: tuple[str, ...]
    products: tuple[int, ...]
    groups: tuple[int, ...] = ()
    reads: tuple[str, ...] = ()
    width: ClassVar[int] = 1
    multiple: ClassVar[int] = 1
    choices: ClassVar[tuple[int, ...]] = (0, 1)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One parameter or buffer and the maps of its prunable axes.

    Attributes:
        name: Qualified name, as in `state_dict` and in the exported ONNX.
        shape: Unpruned shape.
        axes: (axis, map) for each axis that follows a group.
        buffer: Whether it is a buffer (running statistics), not a parameter.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[tuple[int, ChannelMap], ...]
    buffer: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One module that owns tensors.

    Attributes:
        name: Qualified module name.
        op: `conv`, `deconv`, `linear`, `norm` or `parameter`.
        inputs: Map of the channels that it reads (`norm`, `parameter`: the same as `outputs`).
        outputs: Map of the channels that it makes.
        tensors: What it owns.
    """

    name: str
    op: str
    inputs: ChannelMap
    outputs: ChannelMap
    tensors: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Product:
    """One convolution or matrix product: what its multiply-accumulates depend on.

    Attributes:
        layer: The layer whose weight it uses, "" when it has none.
        outputs: Map of the channels that it makes.
        reads: Map of the channels that each of them reads.
        positions: Multiply-accumulates of one image for each pair of them: kernel area times output
            positions.
    """

    layer: str
    outputs: ChannelMap
    reads: ChannelMap
    positions: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """A size that a module keeps as a number, and its code divides channels by.

    Attributes:
        module: Qualified name of the module.
        name: The attribute.
        index: Position, when the attribute is a list or tuple; -1 otherwise.
        size: Map whose kept channels are its value.
    """

    module: str
    name: str
    index: int
    size: ChannelMap
