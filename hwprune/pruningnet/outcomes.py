"""What a metric said of candidates, image by image, kept on disk: no search evaluates a network twice."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ArtifactError, MismatchError
from hwprune.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hwprune.structure.space import Widths

_KIND, _SCHEMA = "evaluations", 4
_log = logging.getLogger(__name__)


class Outcomes:
    """The figure of each network for each image of sub-val, in the order of the `Evaluator`.

    Those of classification are 0 and 1, and kept as bits.

    Args:
        stops: The evaluator's: images up to the end of each part. What is known always ends at one of them.
        path: File to read from and write to; None keeps everything in memory. A file that cannot be read, or
            is of another judge or other images, is only a lost saving: it is begun anew.
        of: Stands for the judge and the images.
    """

    def __init__(self, stops: Sequence[int], path: Path | None = None, of: str = "") -> None:
        self._stops = tuple(stops)
        self._known: dict[Widths, NDArray[np.float32]] = {}
        head = {"stops": list(self._stops), "of": of}
        try:
            self._book = Logbook(path, _KIND, _SCHEMA, head)
            self._read()
        except (ArtifactError, MismatchError, KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("%s is not used, candidates are evaluated again: %s", path, error)
            self._known.clear()
            self._book = Logbook(path, _KIND, _SCHEMA, head, afresh=True)

    def __len__(self) -> int:
        return len(self._known)

    def of(self, widths: Sequence[int]) -> NDArray[np.float32]:
        """Outcomes on the first images, as many as are known: (n,)."""
        return self._known.get(tuple(widths), np.zeros(0, dtype=np.float32))

    def add(self, widths: Sequence[int], fresh: NDArray[np.float32]) -> None:
        """Remember the outcomes on the next part.

        Raises:
            StorageError: Full disk, no permission.
        """
        self._take(tuple(widths), fresh)
        entry = {"network": " ".join(map(str, widths)), "images": fresh.size, "figures": _packed(fresh)}
        self._book.add(entry)

    def told(self, networks: Iterable[Widths]) -> dict[str, list[Any]]:
        """What is known of networks, as JSON-able data for `learn`."""
        return {
            " ".join(map(str, net)): [self.of(net).size, _packed(self.of(net))]
            for net in networks
            if self.of(net).size
        }

    def learn(self, told: Mapping[str, Sequence[Any]]) -> None:
        """Take over what another worker knows; it is kept in memory only."""
        for text, (count, packed) in told.items():
            net = tuple(map(int, text.split()))
            if self.of(net).size < count:
                self._known[net] = _unpacked(packed, count)

    def _take(self, widths: Widths, fresh: NDArray[np.float32]) -> None:
        self._known[widths] = np.concatenate([self.of(widths), fresh])

    def _read(self) -> None:
        for entry in self._book.entries:
            net, count = tuple(map(int, entry["network"].split())), int(entry["images"])
            if self.of(net).size + count not in self._stops:
                raise ValueError("not whole parts of sub-val")
            self._take(net, _unpacked(entry["figures"], count))


def _packed(figures: NDArray[np.float32]) -> str:
    bits = bool(np.isin(figures, (0, 1)).all())
    content = np.packbits(figures.astype(np.bool_)) if bits else figures.astype("<f4")
    return base64.b64encode(content.tobytes()).decode()


def _unpacked(text: str, count: int) -> NDArray[np.float32]:
    content = base64.b64decode(text, validate=True)
    if len(content) == 4 * count:
        figures = np.frombuffer(content, dtype="<f4").astype(np.float32)
        if not np.isfinite(figures).all():
            raise ValueError("figures that are not finite")
        return figures
    packed = np.frombuffer(content, dtype=np.uint8)
    if packed.size != -(-count // 8):
        raise ValueError("another number of images")
    return np.unpackbits(packed, count=count).astype(np.float32)
