"""What every kind of data gives: labels, and images one at a time or as one array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from hwprune.data.decode import decoding_errors, to_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Source(ABC):
    """Labelled images in the order of the data set.

    Attributes:
        labels: Class of each image, int64 (N,).
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def _where(self, index: int) -> str:
        """The file, or the file and row, of an image: for messages."""

    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB.

        Raises:
            DataError: It cannot be read or decoded, or is far too large; names it.
        """
        with decoding_errors(self._where(index)), self._open(index) as opened:
            return to_rgb(opened)

    @abstractmethod
    def _open(self, index: int) -> Image.Image:
        """Open the image; any of Pillow's exceptions may leave this."""

    @abstractmethod
    def take(self, indices: Sequence[int]) -> Source:
        """The images at `indices`, in that order."""


class ArraySource(Source):
    """Images that are decoded already.

    Args:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,).
        name: The data set, for messages.
    """

    def __init__(self, pixels: NDArray[np.uint8], labels: Tensor, name: str) -> None:
        super().__init__(labels)
        self.pixels = pixels
        self._name = name

    def _where(self, index: int) -> str:
        return f"{self._name}, image {index}"

    def _open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def take(self, indices: Sequence[int]) -> ArraySource:
        """The images at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return ArraySource(self.pixels[rows.numpy()], self.labels[rows], self._name)


@dataclass(frozen=True, kw_only=True)
class RawData:
    """A data set as read from disk.

    Attributes:
        classes: Name of each class, in the order of the labels.
        train: Images to learn from and to search on.
        test: Images for the final score alone, or None when the data has no such part.
        test_name: What the data calls them, such as `val/`; "" without.
        val: The user's own images to decide on, or None when the data has no such part beside test.
        val_name: What the data calls them.
        unused: What lies beside these parts and is not looked at, such as `valid/`.
        flip: Whether an image mirrored left to right still shows the same class.
    """

    classes: tuple[str, ...]
    train: Source
    test: Source | None
    test_name: str = ""
    val: Source | None = None
    val_name: str = ""
    unused: tuple[str, ...] = ()
    flip: bool = True
