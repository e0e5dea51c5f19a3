"""MACs of many networks at once, for budgets that are checked thousands of times. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.layers import FROZEN, ChannelMap, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.layers import Layer


class MacCount:
    """Multiply-accumulates of the convolutions and linear layers of a network.

    Those of a layer are the channels it writes times those it reads, both sums of widths, times a constant:
    the total is a quadratic form of the widths, and one small matrix counts any number of layers. A
    dimension that follows a part of a group adds the kept channels of that part to the widths. The counts
    are exact: float64 holds integers to 9e15.

    Args:
        layers: All layers of the space.
        full: Widths of the unpruned network.
    """

    def __init__(self, layers: Sequence[Layer], full: Sequence[int]) -> None:
        counted = [layer for layer in layers if layer.op in ("conv", "linear")]
        outputs, reads = [layer.outputs for layer in counted], [_read(layer) for layer in counted]
        runs = [run for channels in (*outputs, *reads) for run in channels.runs if run.group != FROZEN]
        parts = {_part(run): run for run in runs if run.start > 0 or run.length < full[run.group]}
        self._group = np.array([run.group for run in parts.values()], dtype=np.int64)
        self._start = np.array([run.start for run in parts.values()], dtype=np.int64)
        self._length = np.array([run.length for run in parts.values()], dtype=np.int64)
        places = {part: len(full) + number for number, part in enumerate(parts)}
        sizes = np.array([layer.kernel[0] * layer.kernel[1] * layer.positions for layer in counted])
        form = _sums(outputs, places, len(full)).T @ (sizes[:, None] * _sums(reads, places, len(full)))
        self._products, self._constant = form[:-1, :-1].copy(), form[-1, -1]
        self._terms = form[:-1, -1] + form[-1, :-1]

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Widths up to `full` (..., groups) -> (...)."""
        kept = widths.astype(np.float64)
        if len(self._group):
            parts = np.clip(widths[..., self._group] - self._start, 0, self._length)
            kept = np.concatenate([kept, parts], axis=-1)
        total = np.vecdot(kept @ self._products + self._terms, kept) + self._constant
        return total.astype(np.int64)  # type: ignore[no-any-return]


def _read(layer: Layer) -> ChannelMap:
    """The channels that one output channel reads."""
    return ChannelMap.frozen(layer.group_inputs) if layer.conv_groups > 1 else layer.inputs


def _part(run: Run) -> tuple[int, int, int]:
    return run.group, run.start, run.length


def _sums(
    maps: Sequence[ChannelMap], places: dict[tuple[int, int, int], int], groups: int
) -> NDArray[np.float64]:
    """What each dimension adds up: (dimensions, groups + parts + 1); the last column is always kept."""
    table = np.zeros((len(maps), groups + len(places) + 1))
    for row, channels in zip(table, maps, strict=True):
        for run in channels.runs:
            fixed = run.group == FROZEN
            place = -1 if fixed else places.get(_part(run), run.group)
            row[place] += run.length * run.repeat if fixed else run.repeat
    return table
