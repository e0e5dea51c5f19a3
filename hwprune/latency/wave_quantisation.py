"""`Tiled`: a GPU computes a convolution in tiles, as many at a time as it has room for, in waves.

An output of M positions by N channels is cut into tiles; a wave of them takes as long when it is nearly empty
as when it is full, in proportion to the depth of the sum, which tensor cores take in eights of channels. So
latency over the channels is a staircase whose steps are not where those of a CPU are. Neither the size of the
tiles nor the number of them in a wave is known: both are found by what fits the table best.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from hwprune.latency.features import columns
from hwprune.latency.regressors import MIN_KIND_ROWS, REGRESSORS, Shaped, by_kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.latency.regressors import Regressor
    from hwprune.structure.kernels import KernelSpec

TILES = tuple(itertools.product((32, 64, 128, 256), (16, 32, 64, 128, 256)))  # positions, channels
WAVES = tuple(range(4, 300, 4))  # tiles in one wave: the multiprocessors of a GPU, or twice as many
EIGHT = 8
_USUAL = (64, 64)


class Tiled(Shaped):
    """A line in waves of tiles for each kind of kernel, and trees for what is left.

    Attributes:
        wave_: Tiles in one wave, the same for all kernels.
        tiles_: Kind of kernel -> the tile that fits it best (positions, channels).
    """

    name = "tiled"

    def _learn_shape(
        self, specs: Sequence[KernelSpec], time_us: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        kinds = {kind: rows for kind, rows in by_kind(specs).items() if len(rows) >= MIN_KIND_ROWS}
        # Squared errors of a line in the work of each wave: (tiles, waves, kinds)
        missed = np.array([_missed(specs, time_us, weights, kinds, tile) for tile in TILES])
        best = int(missed.min(axis=0).sum(axis=1).argmin())
        self.wave_ = WAVES[best]
        chosen = missed[:, best].argmin(axis=0)
        self.tiles_ = {kind: TILES[index] for kind, index in zip(kinds, chosen.tolist(), strict=True)}

    def _terms(self, specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
        """Waves and tiles times the depth of their sums, and what misses the eights: (N, terms)."""
        c, depth = columns(specs), _depth(specs)
        sizes = np.array([self.tiles_.get(kind_of(spec), _USUAL) for spec in specs]).reshape(-1, 2)
        tiles = _tiles(specs, sizes[:, 0], sizes[:, 1])
        waves = np.ceil(tiles / self.wave_)
        reads, makes = c["in_channels"], c["out_channels"]
        ragged_in, ragged_out = (end % EIGHT != 0 for end in (reads, makes))
        return np.column_stack(
            [
                np.ones_like(reads),
                *(waves, waves * depth, waves * depth * ragged_in, waves * depth * ragged_out),
                *(tiles, tiles * depth),
                *(reads, makes, reads * makes),
                *(ragged_in * reads, ragged_out * makes),
            ]
        )


GPU_REGRESSORS: dict[str, type[Regressor]] = {**REGRESSORS, Tiled.name: Tiled}


def _depth(specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
    """Products in one element of the output, channels in whole eights: (N,)."""
    c = columns(specs)
    reads = np.where(c["groups"] > 1, c["in_channels"] / c["groups"], c["in_channels"])
    return np.ceil(reads / EIGHT) * EIGHT * c["kernel_h"] * c["kernel_w"]


def _tiles(
    specs: Sequence[KernelSpec], rows: NDArray[np.int64] | int, channels: NDArray[np.int64] | int
) -> NDArray[np.float64]:
    """Tiles that the output of each kernel is cut into: (N,)."""
    c = columns(specs)
    positions = c["batch"] * c["height"] * c["width"]
    return np.asarray(np.ceil(positions / rows) * np.ceil(c["out_channels"] / channels))


def _missed(
    specs: Sequence[KernelSpec],
    time_us: NDArray[np.float64],
    weights: NDArray[np.float64],
    kinds: dict[KernelSpec, NDArray[np.int64]],
    tile: tuple[int, int],
) -> NDArray[np.float64]:
    """Relative squared errors of the best line a + b * waves * depth, none negative: (waves, kinds)."""
    found = np.empty((len(WAVES), len(kinds)))
    tiles, depth = _tiles(specs, *tile), _depth(specs)
    for place, rows in enumerate(kinds.values()):
        time, weight = time_us[rows], weights[rows] / weights.mean() / time_us[rows] ** 2
        work = np.ceil(tiles[rows] / np.array(WAVES)[:, None]) * depth[rows]  # (waves, rows)
        centre_x, centre_t = (np.average(part, weights=weight, axis=-1) for part in (work, time))
        away = work - centre_x[:, None]
        spread = (weight * away**2).sum(axis=1)
        slope = np.maximum((weight * away * (time - centre_t)).sum(axis=1), 0) / np.maximum(spread, 1e-12)
        slope = np.minimum(slope, centre_t / np.maximum(centre_x, 1e-12))  # else it would cross zero above 0
        line = centre_t + slope[:, None] * away
        found[:, place] = (weight * (time - line) ** 2).sum(axis=1)
    return found
