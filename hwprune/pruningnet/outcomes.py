"""What candidates got right, image by image, kept on disk so that no search evaluates a network twice."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from hwprune import artifacts
from hwprune.errors import ArtifactError, MismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hwprune.structure.space import Widths

_KIND, _SCHEMA = "evaluations", 1
_log = logging.getLogger(__name__)


class Outcomes:
    """Which images of sub-val each network classifies rightly, in the order of the `Evaluator`.

    Args:
        stops: The evaluator's: images up to the end of each part. What is known always ends at one of them.
        path: File to read from and write to; None keeps everything in memory. A file that cannot be read, or
            is of other images, is only a lost saving: it is begun anew.
    """

    def __init__(self, stops: Sequence[int], path: Path | None = None) -> None:
        self._stops, self._path = tuple(stops), path
        self._known: dict[Widths, NDArray[np.bool_]] = {}
        self._pace = artifacts.Pace()
        self._dirty = False
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._known)

    def of(self, widths: Sequence[int]) -> NDArray[np.bool_]:
        """Outcomes on the first images, as many as are known: (n,)."""
        return self._known.get(tuple(widths), np.zeros(0, dtype=np.bool_))

    def add(self, widths: Sequence[int], fresh: NDArray[np.bool_]) -> None:
        """Remember the outcomes on the next part."""
        self._known[tuple(widths)] = np.concatenate([self.of(widths), fresh])
        self._dirty = True
        if self._pace.due():
            self.save()

    def save(self) -> None:
        """Write the file, if anything is new.

        Raises:
            StorageError: Full disk, no permission.
        """
        if self._path is None or not self._dirty:
            return
        import torch

        with self._pace:
            right = np.zeros((len(self._known), self._stops[-1]), dtype=np.bool_)
            for row, known in zip(right, self._known.values(), strict=True):
                row[: known.size] = known
            tensors = {
                "widths": torch.tensor(list(self._known), dtype=torch.int32),
                "seen": torch.tensor([known.size for known in self._known.values()], dtype=torch.int32),
                "right": torch.from_numpy(np.packbits(right, axis=1)),
            }
            artifacts.write_tensors(self._path, _KIND, _SCHEMA, tensors, {"stops": self._stops})
        self._dirty = False

    def _read(self, path: Path) -> None:
        try:
            tensors, info = artifacts.read_tensors(path, _KIND, _SCHEMA)
            if tuple(info["stops"]) != self._stops:
                raise ValueError("other parts of sub-val")
            right = np.unpackbits(tensors["right"].numpy(), axis=1, count=self._stops[-1]).astype(np.bool_)
            seen = tensors["seen"].tolist()
            if not set(seen) <= set(self._stops):
                raise ValueError("not whole parts of sub-val")
            for net, count, row in zip(tensors["widths"].tolist(), seen, right, strict=True):
                self._known[tuple(net)] = row[:count].copy()
        except (ArtifactError, MismatchError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s is not used, candidates are evaluated again: %s", path, error)
            self._known.clear()
