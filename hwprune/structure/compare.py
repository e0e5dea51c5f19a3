"""How far the outputs of two networks, or of one in two runtimes, are from each other. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]


def difference(
    got: Sequence[Array], expected: Sequence[Array], tolerance: float, flips: float | None = None
) -> str:
    """How far outputs differ, relative to the largest; "" within the tolerance.

    Args:
        got: The outputs.
        expected: What they should be.
        tolerance: Of the largest output that is expected, for each tensor.
        flips: Share of the integers, such as classes, that may be others; they count as numbers when None.
    """
    if len(got) != len(expected):
        return f"{len(got)} outputs, not {len(expected)}"
    for mine, its in zip(got, expected, strict=True):
        if mine.shape != its.shape:
            return f"shape {mine.shape}, not {its.shape}"
        if its.size == 0:
            continue
        if flips is not None and its.dtype.kind != "f":
            if (share := float((mine != its).mean())) > flips:
                return f"{share:.0%} of the integers are others"
        elif not (off := distance(mine, its)) <= tolerance:
            return f"off by {off:.1e}"
    return ""


def distance(one: Array, other: Array) -> float:
    """The largest difference of two outputs, relative to the largest of the second."""
    wide = other.astype(np.float64)
    return float(np.abs(one.astype(np.float64) - wide).max()) / max(float(np.abs(wide).max()), 1e-9)


def finite(x: Array) -> bool:
    """Whether all numbers are."""
    return x.dtype.kind != "f" or bool(np.isfinite(x).all())


def mixes_images(runs: Sequence[Sequence[Array]], batches: Sequence[int], tolerance: float) -> bool:
    """Whether the images that two batches begin with give something else in one than in the other.

    Args:
        runs: The outputs at either batch. Those whose first axis does not follow the batch tell nothing.
        batches: The two batches.
        tolerance: As in `difference`.
    """
    shared = min(batches)
    for outputs in zip(*runs, strict=True):
        rows = [len(x) / batch if x.ndim else 0.0 for x, batch in zip(outputs, batches, strict=True)]
        if rows[0] == rows[1] and rows[0].is_integer() and rows[0]:
            mine, its = (np.nan_to_num(x[: int(rows[0]) * shared]) for x in outputs)
            if difference([mine], [its], tolerance, flips=tolerance):
                return True
    return False
