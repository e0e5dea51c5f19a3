"""Channels and MACs of many networks at once, for figures that are asked for thousands of times. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.structure.layers import FROZEN, ChannelMap, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.layers import Product


_EXACT = 2**24  # float32 holds integers up to it


class ChannelCounts:
    """Kept channels of many dimensions at once: one product of the widths and a small matrix.

    A dimension that follows a part of a group adds the kept channels of that part to the widths. The counts
    are exact: float64 holds integers to 9e15.

    Args:
        maps: The dimensions.
        full: Widths of the unpruned network, as far as they are known; a part that is a whole group needs
            none of the work that other parts do.

    Attributes:
        table: What each dimension adds up: (dimensions, groups + parts + 1); the last column is always kept.
    """

    def __init__(self, maps: Sequence[ChannelMap], full: Sequence[int]) -> None:
        runs = [run for channels in maps for run in channels.runs if run.group != FROZEN]
        parts = {
            _part(run): run for run in runs if run.start > 0 or run.length < full[run.group] or run.step > 1
        }
        self._group, self._start, self._length, self._step = (
            np.array([getattr(run, name) for run in parts.values()], dtype=np.int64)
            for name in ("group", "start", "length", "step")
        )
        self._groups = len(full)
        exact = max((channels.size for channels in maps), default=0) < _EXACT
        self._kind = np.float32 if exact else np.float64
        places = {part: len(full) + number for number, part in enumerate(parts)}
        self.table = _sums(maps, places, len(full))

    def expanded(self, widths: NDArray[np.int64], kind: type[np.floating[Any]] = np.float64) -> NDArray[Any]:
        """Widths up to `full` (..., groups) -> what `table` adds up, but the last column."""
        kept = widths[..., : self._groups].astype(kind)
        if not len(self._group):
            return kept
        parts = -((self._start - widths[..., self._group]) // self._step)
        return np.concatenate([kept, np.clip(parts, 0, self._length).astype(kind)], axis=-1)

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Widths up to `full` (N, groups) -> (dimensions, N)."""
        table = self.table.astype(self._kind)
        counts = table[:, :-1] @ self.expanded(widths, self._kind).T + table[:, -1:]
        return counts.astype(np.int64)  # type: ignore[no-any-return]


class MacCount:
    """Multiply-accumulates of all convolutions and matrix products of a network.

    Those of a product are the channels it makes times those it reads, both sums of widths, times a constant:
    the total is a quadratic form of the widths, and one small matrix counts any number of products.

    Args:
        products: All products of the space.
        full: Widths of the unpruned network.
    """

    def __init__(self, products: Sequence[Product], full: Sequence[int]) -> None:
        maps = [*(one.outputs for one in products), *(one.reads for one in products)]
        self._counts = ChannelCounts(maps, full)
        outputs, reads = np.split(self._counts.table, 2)
        sizes = np.array([float(one.positions) for one in products])
        form = outputs.T @ (sizes[:, None] * reads)
        self._products, self._constant = form[:-1, :-1].copy(), form[-1, -1]
        self._terms = form[:-1, -1] + form[-1, :-1]

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Widths up to `full` (..., groups) -> (...)."""
        kept = self._counts.expanded(widths)
        total = np.vecdot(kept @ self._products + self._terms, kept) + self._constant
        return total.astype(np.int64)  # type: ignore[no-any-return]


def _part(run: Run) -> tuple[int, int, int, int]:
    return run.group, run.start, run.length, run.step


def _sums(
    maps: Sequence[ChannelMap], places: dict[tuple[int, int, int, int], int], groups: int
) -> NDArray[np.float64]:
    """See `ChannelCounts.table`."""
    table = np.zeros((len(maps), groups + len(places) + 1))
    for row, channels in zip(table, maps, strict=True):
        for run in channels.runs:
            fixed = run.group == FROZEN
            place = -1 if fixed else places.get(_part(run), run.group)
            row[place] += run.length * run.repeat if fixed else run.repeat
    return table
