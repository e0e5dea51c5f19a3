"""Channel counts of many dimensions at once, for budgets that are checked thousands of times. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.layers import FROZEN, ChannelMap, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.layers import Layer


class Counts:
    """`ChannelMap.count` of several dimensions in a few array operations.

    Args:
        maps: The dimensions.
    """

    def __init__(self, maps: Sequence[ChannelMap]) -> None:
        # A dimension without groups gets a run of no length: every sum below needs something to add up.
        runs = [[run for run in channels.runs if run.group != FROZEN] for channels in maps]
        flat = [run for own in runs for run in own or [Run(0, 0, 0)]]
        self._group = np.array([run.group for run in flat], dtype=np.int64)
        self._start = np.array([run.start for run in flat], dtype=np.int64)
        self._length = np.array([run.length for run in flat], dtype=np.int64)
        self._repeat = np.array([run.repeat for run in flat], dtype=np.int64)
        self._first = np.cumsum([0, *(max(1, len(own)) for own in runs)][:-1])
        self._fixed = np.array(
            [sum(run.length * run.repeat for run in m.runs if run.group == FROZEN) for m in maps],
            dtype=np.int64,
        )

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Channels kept: widths (..., groups) -> (..., dimensions)."""
        if not len(self._first) or not widths.shape[-1]:
            return np.broadcast_to(self._fixed, (*widths.shape[:-1], len(self._fixed))).copy()
        kept = widths[..., self._group] - self._start
        np.maximum(kept, 0, out=kept)
        np.minimum(kept, self._length, out=kept)
        kept *= self._repeat
        total: NDArray[np.int64] = np.add.reduceat(kept, self._first, axis=-1)
        total += self._fixed
        return total


class MacCount:
    """Multiply-accumulates of the convolutions and linear layers of a network.

    Args:
        layers: All layers of the space.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        counted = [layer for layer in layers if layer.op in ("conv", "linear")]
        self._outputs = Counts([layer.outputs for layer in counted])
        self._reads = Counts([_read(layer) for layer in counted])
        sizes = [layer.kernel[0] * layer.kernel[1] * layer.positions for layer in counted]
        self._sizes = np.array(sizes, dtype=np.int64)

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Widths (..., groups) -> (...)."""
        products = self._outputs(widths)
        products *= self._reads(widths)
        total: NDArray[np.int64] = products @ self._sizes
        return total


def _read(layer: Layer) -> ChannelMap:
    """The channels that one output channel reads."""
    return ChannelMap.frozen(layer.group_inputs) if layer.conv_groups > 1 else layer.inputs
