"""MACs of many networks at once, for budgets that are checked thousands of times. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwprune.structure.layers import FROZEN, ChannelMap, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.layers import Product


class MacCount:
    """Multiply-accumulates of all convolutions and matrix products of a network.

    Those of a product are the channels it makes times those it reads, both sums of widths, times a constant:
    the total is a quadratic form of the widths, and one small matrix counts any number of products. A
    dimension that follows a part of a group adds the kept channels of that part to the widths. The counts
    are exact: float64 holds integers to 9e15.

    Args:
        products: All products of the space.
        full: Widths of the unpruned network.
    """

    def __init__(self, products: Sequence[Product], full: Sequence[int]) -> None:
        outputs, reads = [one.outputs for one in products], [one.reads for one in products]
        runs = [run for channels in (*outputs, *reads) for run in channels.runs if run.group != FROZEN]
        parts = {
            _part(run): run for run in runs if run.start > 0 or run.length < full[run.group] or run.step > 1
        }
        self._group, self._start, self._length, self._step = (
            np.array([getattr(run, name) for run in parts.values()], dtype=np.int64)
            for name in ("group", "start", "length", "step")
        )
        places = {part: len(full) + number for number, part in enumerate(parts)}
        sizes = np.array([float(one.positions) for one in products])
        form = _sums(outputs, places, len(full)).T @ (sizes[:, None] * _sums(reads, places, len(full)))
        self._products, self._constant = form[:-1, :-1].copy(), form[-1, -1]
        self._terms = form[:-1, -1] + form[-1, :-1]

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Widths up to `full` (..., groups) -> (...)."""
        kept = widths.astype(np.float64)
        if len(self._group):
            parts = -((self._start - widths[..., self._group]) // self._step)
            kept = np.concatenate([kept, np.clip(parts, 0, self._length)], axis=-1)
        total = np.vecdot(kept @ self._products + self._terms, kept) + self._constant
        return total.astype(np.int64)  # type: ignore[no-any-return]


def _part(run: Run) -> tuple[int, int, int, int]:
    return run.group, run.start, run.length, run.step


def _sums(
    maps: Sequence[ChannelMap], places: dict[tuple[int, int, int, int], int], groups: int
) -> NDArray[np.float64]:
    """What each dimension adds up: (dimensions, groups + parts + 1); the last column is always kept."""
    table = np.zeros((len(maps), groups + len(places) + 1))
    for row, channels in zip(table, maps, strict=True):
        for run in channels.runs:
            fixed = run.group == FROZEN
            place = -1 if fixed else places.get(_part(run), run.group)
            row[place] += run.length * run.repeat if fixed else run.repeat
    return table
