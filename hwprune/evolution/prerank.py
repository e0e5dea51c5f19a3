"""A guess at scores from those already known, to choose among children before any is evaluated.

The model is additive: each group contributes by its own width. It is wrong in detail, as any additive
importance is, and good enough to tell which of many children deserve an evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.space import Widths

_SHRINK = 1.0  # ridge penalty, in networks' worth of belief that a group does not matter


class AdditiveGuess:
    """Scores as a sum over groups of a straight and a logarithmic part in the width, by ridge regression.

    Args:
        full: Widths of the unpruned network.
        widths: Networks with known scores.
        scores: Their scores, (N,).
    """

    def __init__(self, full: Widths, widths: Sequence[Widths], scores: Sequence[float]) -> None:
        self._full = np.array(full, dtype=np.float64)
        features, known = self._features(np.array(widths)), np.asarray(scores, dtype=np.float64)
        self._centre, self._spread = features.mean(axis=0), features.std(axis=0) + 1e-9
        table = (features - self._centre) / self._spread
        gram = table.T @ table + _SHRINK * np.eye(table.shape[1])
        self._weights = np.linalg.solve(gram, table.T @ (known - known.mean()))
        self._mean = float(known.mean())

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Guessed scores: widths (N, groups) -> (N,)."""
        table = (self._features(widths) - self._centre) / self._spread
        guessed: NDArray[np.float64] = self._mean + table @ self._weights
        return guessed

    def _features(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        share = np.asarray(widths, dtype=np.float64) / self._full
        return np.concatenate([share, np.log(share)], axis=1)
