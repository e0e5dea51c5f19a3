"""`Images`: labelled images that come in batches, from memory or decoded on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from hwprune.data.decode import WORKERS, square
from hwprune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor

    from hwprune.data.augment import Augmentation
    from hwprune.data.sources.base import Source

_AHEAD = 2  # batches that are being decoded while one is used
_Pixels = tuple[float, float, float]


class _Batch(NamedTuple):
    """Some images of a batch."""

    rows: Tensor  # their positions
    part: slice  # where they stand in the batch
    size: int  # images of the whole batch

    @classmethod
    def of(cls, rows: Tensor, number: int, parts: int) -> _Batch:
        """Part `number` of a batch of which all `rows` are given."""
        part = slice(len(rows) * number // parts, len(rows) * (number + 1) // parts)
        return cls(rows[part], part, len(rows))


class Images(ABC):
    """Labelled images of one size, normalised when they are read.

    The same arguments give the same batches, bit for bit, augmentation included; torch's and numpy's global
    random generators are neither used nor changed.

    Args:
        labels: Class of each image, int64 (N,).
        augmentation: How stored images become those a network sees.
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel.
    """

    def __init__(self, labels: Tensor, augmentation: Augmentation, mean: _Pixels, std: _Pixels) -> None:
        self.labels = labels
        self._augmentation, self._mean, self._std = augmentation, mean, std
        # numpy rather than torch: see augment.py on threads
        self._shift = 255 * np.array(mean, dtype=np.float32)[:, None, None]  # (3, 1, 1)
        self._scale = 1 / (255 * np.array(std, dtype=np.float32)[:, None, None])

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Tensor | NDArray[np.int64] | Sequence[int]) -> Images:
        """The images at `indices`, in that order; nothing is decoded or copied for it."""

    @abstractmethod
    def strengthened(self, rand_augment: int) -> Images:
        """The same images, with RandAugment of that strength, of 30, on each random view."""

    @abstractmethod
    def normalised(self, mean: _Pixels, std: _Pixels) -> Images:
        """The same images, normalised by other figures; nothing is decoded or copied for it."""

    @abstractmethod
    def _load(self, batches: Sequence[_Batch], augment_seed: int | None) -> Iterator[NDArray[np.uint8]]:
        """For each batch uint8 pixels (B, 3, H, W), augmented when there is a seed."""

    def _seen(
        self, pixels: NDArray[np.uint8], batch: _Batch, number: int, augment_seed: int | None
    ) -> NDArray[np.uint8]:
        """Stored images as a network sees them; `number` is the batch's."""
        if augment_seed is None:
            return self._augmentation.evaluate(pixels)
        rng = np.random.default_rng((augment_seed, number))
        return self._augmentation.augment(pixels, rng, batch.part, batch.size)

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through all images once.

        Args:
            batch_size: Images per batch; the last batch has what is left.
            augment: Give random views of the images (for training) instead of their centres.
            shuffle_seed: Decides the order and the random views; give another one in each epoch. None keeps
                the order, and draws the views from seed 0.
            drop_last: Leave out the last batch when it is not full.
            part: (k, n) gives the k-th of n parts of each batch, the same images and views as in the whole;
                the other parts are not decoded.

        Returns:
            Images float32 (B, 3, H, W), normalised and contiguous, and labels int64 (B,).

        Raises:
            UsageError: `batch_size` is below 1 or the seed below 0.
            DataError: While iterating: an image that was not decoded before cannot be; names it.
        """
        if batch_size < 1:
            raise UsageError("A batch has at least one image.", where="batch size", got=batch_size)
        if shuffle_seed is not None and shuffle_seed < 0:
            raise UsageError("A seed is not negative.", where="shuffle_seed", got=shuffle_seed)
        order = torch.arange(len(self))
        if shuffle_seed is not None:
            order = torch.from_numpy(np.random.default_rng(shuffle_seed).permutation(len(self)))
        batches = [
            _Batch.of(rows, *part)
            for rows in torch.split(order, batch_size)
            if len(rows) == batch_size or not drop_last
        ]
        return self._batches(batches, (shuffle_seed or 0) if augment else None)

    def _batches(
        self, batches: Sequence[_Batch], augment_seed: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if len(self) == 0:
            return
        for batch, pixels in zip(batches, self._load(batches, augment_seed), strict=True):
            yield self._normalised(pixels), self.labels[batch.rows]

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        images = pixels.astype(np.float32, order="C")
        images -= self._shift
        images *= self._scale
        return torch.from_numpy(images)

    def on(self, device: torch.device) -> Images:
        """The same images with batches made on a device, where that is possible; else these."""
        return self

    def tensor(self) -> Tensor:
        """All images as `batches` gives them without augmentation: float32 (N, 3, H, W).

        For small subsets that are read many times: a thousand images of 224x224 pixels take 0.6 GB.
        """
        size = self._augmentation.image_size
        images = np.empty((len(self), 3, size, size), dtype=np.float32)
        start = 0
        for batch, _ in self.batches(256):
            images[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        return torch.from_numpy(images)


class MemoryImages(Images):
    """Images that were decoded once and lie in memory; subsets share it.

    Args:
        pixels: uint8 (M, 3, S, S), with S the augmentation's `stored_side`.
        labels: int64 (N,), of the images at `rows`.
        augmentation: How stored images become those a network sees.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        rows: Which of the pixels these images are, int64 (N,); all of them when None.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: Tensor,
        augmentation: Augmentation,
        mean: _Pixels,
        std: _Pixels,
        rows: Tensor | None = None,
    ) -> None:
        super().__init__(labels, augmentation, mean, std)
        self._pixels = pixels
        self._rows = torch.arange(len(labels)) if rows is None else rows

    def subset(self, indices: Tensor | NDArray[np.int64] | Sequence[int]) -> MemoryImages:
        """The images at `indices`, sharing the memory."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return MemoryImages(
            self._pixels, self.labels[rows], self._augmentation, self._mean, self._std, self._rows[rows]
        )

    def normalised(self, mean: _Pixels, std: _Pixels) -> MemoryImages:
        """The same images, sharing the memory."""
        return MemoryImages(self._pixels, self.labels, self._augmentation, mean, std, self._rows)

    def strengthened(self, rand_augment: int) -> MemoryImages:
        """The same images, sharing the memory."""
        augmentation = replace(self._augmentation, rand_augment=rand_augment)
        return MemoryImages(self._pixels, self.labels, augmentation, self._mean, self._std, self._rows)

    def on(self, device: torch.device) -> Images:
        """On a GPU, small images kept there: the same batches, without a copy for each."""
        if device.type == "cpu" or not self._augmentation.small or self._augmentation.rand_augment:
            return self
        return DeviceImages(self._chosen(), self.labels, self._augmentation, self._mean, self._std, device)

    def _chosen(self) -> Tensor:
        return torch.from_numpy(self._pixels)[self._rows]

    def _load(self, batches: Sequence[_Batch], augment_seed: int | None) -> Iterator[NDArray[np.uint8]]:
        for number, batch in enumerate(batches):
            pixels = self._pixels[self._rows[batch.rows].numpy()]
            yield self._seen(pixels, batch, number, augment_seed)


class DeviceImages(Images):
    """Small images in the memory of a device; batches are cut, mirrored and normalised there.

    Args:
        pixels: uint8 (N, 3, S, S).
        labels: int64 (N,).
        augmentation: How they become those a network sees; of small images.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        device: Where they lie.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        augmentation: Augmentation,
        mean: _Pixels,
        std: _Pixels,
        device: torch.device,
    ) -> None:
        super().__init__(labels.to(device), augmentation, mean, std)
        self._device, self._pixels = device, pixels.to(device)
        self._moments = [torch.from_numpy(part).to(device) for part in (self._shift, self._scale)]

    def subset(self, indices: Tensor | NDArray[np.int64] | Sequence[int]) -> DeviceImages:
        """The images at `indices`, copied on the device."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self._device)
        own = (self._augmentation, self._mean, self._std, self._device)
        return DeviceImages(self._pixels[rows], self.labels[rows], *own)

    def normalised(self, mean: _Pixels, std: _Pixels) -> DeviceImages:
        """The same images on the device."""
        return DeviceImages(self._pixels, self.labels, self._augmentation, mean, std, self._device)

    def strengthened(self, rand_augment: int) -> Images:
        """Not on a device: RandAugment works on images of Pillow."""
        raise NotImplementedError("strengthen the images before they are brought to the device")

    def _batches(
        self, batches: Sequence[_Batch], augment_seed: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        shift, scale = self._moments
        for number, batch in enumerate(batches):
            rows = batch.rows.to(self._device)
            pixels = self._pixels[rows]
            if augment_seed is not None:
                rng = np.random.default_rng((augment_seed, number))
                pixels = self._views(pixels, *self._augmentation.small_draws(rng, batch.size, batch.part))
            yield (pixels.float() - shift) * scale, self.labels[rows]

    def _views(self, pixels: Tensor, moves: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
        """Each image moved and mirrored, as `Augmentation.augment` does: (B, 3, S, S)."""
        border, side = self._augmentation.largest_shift, pixels.shape[-1]
        places = np.arange(side)
        rows = places - moves[:, :1] + border  # (B, S), in the image with its black border
        columns = np.where(mirrored[:, None], places[::-1], places) - moves[:, 1:] + border
        down, right = (torch.from_numpy(part).to(self._device) for part in (rows, columns))
        bordered = torch.nn.functional.pad(pixels, [border] * 4)
        image, channel = (torch.arange(n, device=self._device) for n in pixels.shape[:2])
        chosen = (image[:, None, None, None], channel[:, None, None])
        return bordered[(*chosen, down[:, None, :, None], right[:, None, None, :])]

    def _load(self, batches: Sequence[_Batch], augment_seed: int | None) -> Iterator[NDArray[np.uint8]]:
        raise NotImplementedError("batches are made on the device")


class LazyImages(Images):
    """Images that are decoded by worker threads, a few batches ahead of their use.

    Args:
        source: The images and their labels.
        augmentation: How decoded images become those a network sees.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    def __init__(self, source: Source, augmentation: Augmentation, mean: _Pixels, std: _Pixels) -> None:
        super().__init__(source.labels, augmentation, mean, std)
        self._source = source

    def subset(self, indices: Tensor | NDArray[np.int64] | Sequence[int]) -> LazyImages:
        """The images at `indices`, still undecoded."""
        rows = torch.as_tensor(indices, dtype=torch.int64).tolist()
        return LazyImages(self._source.take(rows), self._augmentation, self._mean, self._std)

    def normalised(self, mean: _Pixels, std: _Pixels) -> LazyImages:
        """The same images, still undecoded."""
        return LazyImages(self._source, self._augmentation, mean, std)

    def strengthened(self, rand_augment: int) -> LazyImages:
        """The same images, still undecoded."""
        augmentation = replace(self._augmentation, rand_augment=rand_augment)
        return LazyImages(self._source, augmentation, self._mean, self._std)

    def _load(self, batches: Sequence[_Batch], augment_seed: int | None) -> Iterator[NDArray[np.uint8]]:
        pool = ThreadPoolExecutor(WORKERS)
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        try:
            for number in range(len(batches) + _AHEAD):
                if number < len(batches):
                    rows = batches[number].rows.tolist()
                    waiting.append([pool.submit(self._view, row, augment_seed) for row in rows])
                if number >= _AHEAD:
                    decoded = np.stack([future.result() for future in waiting.popleft()])
                    pixels = decoded.transpose(0, 3, 1, 2)  # (B, 3, S, S)
                    done = number - _AHEAD
                    augmented = augment_seed is not None and not self._augmentation.small
                    yield pixels if augmented else self._seen(pixels, batches[done], done, augment_seed)
        finally:
            pool.shutdown(cancel_futures=True)

    def _view(self, row: int, augment_seed: int | None) -> NDArray[np.uint8]:
        """One image, decoded and, where that is done image by image, augmented: uint8 (S, S, 3)."""
        image = self._source.image(row)
        if augment_seed is None or self._augmentation.small:
            return square(image, self._augmentation.stored_side)
        return self._augmentation.augment_large(image, np.random.default_rng((augment_seed, row)))
