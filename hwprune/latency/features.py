"""Features of kernels that know the staircase: why 63 channels may cost more than 64.

Runtimes work on blocks of channels and fall back to other code when a count misses their alignment. With
raw channel counts regressors were 7-8 % off on a staircase of blocks of 16, with block counts, remainders
and their products 0.5 %.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.kernels import KernelSpec

BLOCKS = (8, 16, 32)
ALIGNMENTS = (4, 8, 16)
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
FEATURE_NAMES = (
    "in_channels",
    "out_channels",
    *(f"{end}_blocks_{size}" for end in ("in", "out") for size in BLOCKS),
    *(f"block_product_{size}" for size in BLOCKS),
    *(f"{end}_multiple_{size}" for end in ("in", "out") for size in ALIGNMENTS),
    "in_below_16",
    "kernel_area",
    "stride",
    "positions",
    "batch",
    "log_macs",
    "log_padded_macs",
    "log_bytes",
    "intensity",
    "op",
    "activation",
)
_NUMERIC = (
    *("in_channels", "out_channels", "kernel_h", "kernel_w", "stride", "groups"),
    *("height", "width", "batch"),
)


class Vocabulary:
    """Numbers for the operations and activations of a table; the order is that of the names."""

    def __init__(self, specs: Sequence[KernelSpec]) -> None:
        self.ops = {name: index for index, name in enumerate(sorted({spec.op for spec in specs}))}
        names = sorted({spec.activation for spec in specs})
        self.activations = {name: index for index, name in enumerate(names)}


def columns(specs: Sequence[KernelSpec]) -> dict[str, NDArray[np.float64]]:
    """The numeric fields of specs as arrays (N,)."""
    table = np.array([*map(attrgetter(*_NUMERIC), specs)], dtype=np.float64)
    return dict(zip(_NUMERIC, table.reshape(len(specs), len(_NUMERIC)).T, strict=True))


def macs(specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
    """Multiply-accumulates of each kernel (N,); kernels without weights count one per output element."""
    c = columns(specs)
    reads = np.where(_weighted(specs), c["in_channels"] / c["groups"], 1.0)
    return c["batch"] * c["out_channels"] * reads * c["kernel_h"] * c["kernel_w"] * c["height"] * c["width"]


def traffic_bytes(specs: Sequence[KernelSpec]) -> NDArray[np.float64]:
    """Bytes of inputs, weights and outputs of each kernel (N,)."""
    c = columns(specs)
    size = np.array([_BYTES[spec.precision] for spec in specs], dtype=np.float64)
    outputs = c["batch"] * c["out_channels"] * c["height"] * c["width"]
    inputs = c["batch"] * c["in_channels"] * c["height"] * c["width"] * c["stride"] ** 2
    reads = c["in_channels"] / c["groups"]
    weights = np.where(_weighted(specs), c["out_channels"] * reads * c["kernel_h"] * c["kernel_w"], 0.0)
    return size * (inputs + weights + outputs)


def _weighted(specs: Sequence[KernelSpec]) -> NDArray[np.bool_]:
    weighted = {"conv", "dwconv", "groupconv", "deconv", "linear"}
    return np.array([spec.family in weighted for spec in specs], dtype=bool)


def blocks(channels: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """How many blocks of `size` channels hold `channels`."""
    return np.ceil(channels / size)


def features(specs: Sequence[KernelSpec], words: Vocabulary) -> NDArray[np.float64]:
    """The feature matrix of kernels: (N, len(FEATURE_NAMES))."""
    c = columns(specs)
    ends = (c["in_channels"], c["out_channels"])
    counts = [[blocks(end, size) for size in BLOCKS] for end in ends]
    work, moved = macs(specs), traffic_bytes(specs)
    reads = np.where(c["groups"] > 1, 1.0, counts[0][1] * 16)
    padded = work / np.maximum(ends[0] / c["groups"], 1) / ends[1] * reads * counts[1][1] * 16
    parts = [
        *ends,
        *(count for end in counts for count in end),
        *(counts[0][i] * counts[1][i] for i in range(len(BLOCKS))),
        *((end % size == 0).astype(np.float64) for end in ends for size in ALIGNMENTS),
        (ends[0] < 16).astype(np.float64),
        c["kernel_h"] * c["kernel_w"],
        c["stride"],
        c["height"] * c["width"],
        c["batch"],
        np.log2(work),
        np.log2(padded),
        np.log2(moved),
        work / moved,
        np.array([words.ops.get(spec.op, -1) for spec in specs], dtype=np.float64),
        np.array([words.activations.get(spec.activation, -1) for spec in specs], dtype=np.float64),
    ]
    return np.column_stack(parts)
