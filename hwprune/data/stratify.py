"""Pick numbers or shares of images from each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def pick(labels: Tensor, counts: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Pick `counts[c]` random images of each class `c`; the seed decides which.

    Args:
        labels: int64 (N,), values below `len(counts)`.
        counts: Images to pick, no more than there are of that class.
        seed: The same seed picks the same images.

    Returns:
        Indices picked and indices left, both ascending.
    """
    rng = np.random.default_rng(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels.numpy() == label)
        chosen[torch.from_numpy(rng.permutation(members)[:count])] = True
    return torch.nonzero(chosen).flatten(), torch.nonzero(~chosen).flatten()


def shares(sizes: Sequence[int], total: int, *, leave: int) -> list[int]:
    """How many images of each class to pick so that the classes are as frequent as they are in all.

    Args:
        sizes: Images of each class.
        total: Images to pick; more, where that is needed for one of each class.
        leave: Images that each class keeps.
    """
    most = np.maximum(np.array(sizes) - leave, 0)
    wanted = total * np.array(sizes) / max(1, sum(sizes))
    counts = np.clip(np.floor(wanted).astype(int), np.minimum(1, most), most)
    while counts.sum() < min(total, most.sum()):
        short = np.where(counts < most, wanted - counts, -np.inf)
        counts[short.argmax()] += 1
    while counts.sum() > total and counts.max() > 1:
        counts[np.where(counts > 1, counts - wanted, -np.inf).argmax()] -= 1
    return [int(count) for count in counts]
