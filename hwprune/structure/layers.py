"""The vocabulary of a search space: channel groups, and the maps from tensor dimensions to them. No torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

FROZEN = -1  # group index of channels that are always kept


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive local channels that follow consecutive channels of one group.

    Attributes:
        group: Index of the group, or `FROZEN`.
        start: The group's channel that the run starts at.
        length: How many of the group's channels it follows.
        repeat: Local channels per group channel (a flattened 7x7 map has 49).
    """

    group: int
    start: int
    length: int
    repeat: int = 1


@dataclass(frozen=True)
class ChannelMap:
    """How the channels of one tensor dimension follow the groups, in local order."""

    runs: tuple[Run, ...]

    @classmethod
    def frozen(cls, size: int) -> ChannelMap:
        """A dimension of `size` channels that is never pruned."""
        return cls((Run(FROZEN, 0, size),))

    @functools.cached_property
    def size(self) -> int:
        """Channels of the unpruned dimension."""
        return sum(run.length * run.repeat for run in self.runs)

    @functools.cached_property
    def groups(self) -> tuple[int, ...]:
        """Groups that this dimension follows, in order of first use."""
        return tuple(dict.fromkeys(run.group for run in self.runs if run.group != FROZEN))

    def count(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Channels kept: widths (..., groups) -> (...)."""
        table = np.asarray(widths, dtype=np.int64)
        total = np.zeros(table.shape[:-1], dtype=np.int64)
        for run in self.runs:
            if run.group == FROZEN:
                total += run.length * run.repeat
            else:
                total += np.clip(table[..., run.group] - run.start, 0, run.length) * run.repeat
        return total

    def kept(self, widths: Sequence[int]) -> NDArray[np.int64]:
        """Indices of the local channels kept at `widths`, ascending: (kept,)."""
        pieces, offset = [], 0
        for run in self.runs:
            keep = (
                run.length if run.group == FROZEN else min(max(widths[run.group] - run.start, 0), run.length)
            )
            pieces.append(np.arange(offset, offset + keep * run.repeat))
            offset += run.length * run.repeat
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that are pruned together.

    Attributes:
        name: Qualified name of the first layer that produces them.
        width: Channels in the unpruned network.
        multiple: Widths must be a multiple of this (grouped convolutions), or `width` itself.
        choices: Allowed widths, ascending; the last one is `width`.
    """

    name: str
    width: int
    multiple: int
    choices: tuple[int, ...]


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
        op: `conv`, `linear`, `norm`, `prelu` or `parameter`.
        inputs: Map of the input channels (`norm`, `prelu`, `parameter`: the same as `outputs`).
        outputs: Map of the output channels.
        kernel: Kernel height and width (1, 1 for all but convolutions).
        stride: Stride of a convolution.
        conv_groups: Groups of a convolution, unpruned.
        positions: Output elements per output channel (H*W, or the product of a linear layer's leading dims);
            0 for a layer that a forward in eval mode does not reach.
        tensors: What it owns.
    """

    name: str
    op: str
    inputs: ChannelMap
    outputs: ChannelMap
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    conv_groups: int = 1
    positions: int = 1
    tensors: tuple[Tensor, ...] = ()

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return self.conv_groups > 1 and self.conv_groups == self.inputs.size

    @property
    def group_inputs(self) -> int:
        """Input channels that one output channel of a grouped convolution reads; it never changes."""
        return self.inputs.size // self.conv_groups
