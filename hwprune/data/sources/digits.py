"""The embedded example: 1797 handwritten digits that come with scikit-learn, real scans of 8x8 pixels."""

from __future__ import annotations

import numpy as np
import torch

from hwprune.data.sources.base import ArraySource, RawData

_WHITE = 16.0  # the scans have 17 levels of grey


def read() -> RawData:
    """Read the digits as RGB; they bring no test part of their own."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255.0 / _WHITE)).astype(np.uint8)  # (N, 8, 8)
    pixels = np.repeat(grey[..., None], 3, axis=3)  # (N, 8, 8, 3)
    labels = torch.as_tensor(digits.target, dtype=torch.int64)
    names = tuple(str(name) for name in digits.target_names)
    return RawData(classes=names, train=ArraySource(pixels, labels, "digits"), test=None, flip=False)
