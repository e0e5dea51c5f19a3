"""Pick the same number, or the same share, of images from each class."""

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
