"""Open a data set by its name: `digits`, `cifar10:ROOT`, `imagefolder:ROOT` or `parquet:DIR`.

Sets that fit are decoded once and kept in memory as uint8; the others are decoded batch by batch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hwprune.data.augment import SMALL_SIDE, Augmentation
from hwprune.data.decode import decode_all
from hwprune.data.images import Images, LazyImages, MemoryImages
from hwprune.data.sources import cifar10, digits, folder, parquet
from hwprune.data.stratify import pick
from hwprune.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hwprune.data.sources.base import RawData, Source

_log = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES = 3 * 2**29  # 1.5 GiB: CIFAR and Tiny ImageNet fit, ImageNet does not
TEST_SHARE = 0.2  # of each class, when the data has no test part
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MEASURED_IMAGES = 5000
_SIZED_IMAGES = 16
_SMALLEST_SIDE, _DEFAULT_SMALL_SIDE, _DEFAULT_LARGE_SIDE = 8, 32, 224

_READERS: dict[str, Callable[[str], RawData]] = {
    "cifar10": cifar10.read,
    "imagefolder": folder.read,
    "parquet": parquet.read,
}
_Channels = tuple[float, float, float]
_FORMS = ("digits", "cifar10:ROOT", "imagefolder:ROOT", "parquet:DIR")


@dataclass(frozen=True)
class Dataset:
    """Images to learn from, images for the final score, and what is known about them.

    Attributes:
        name: As given to `open_data`.
        classes: Name of each class, in the order of the labels.
        image_size: Side in pixels of the images in each batch.
        mean: Mean of each channel that was subtracted, of pixels in 0..1.
        std: Standard deviation of each channel that was divided by.
        train: Images to train and to search on.
        test: Images for the final score alone.
        val: The user's own images to decide on, if there are any beside test.
        val_name: What the data calls them; "" without.
        test_name: What the data calls the test images; "" where they were held out of train.
        unused: What lies beside these parts and is not looked at.
        side: Shorter side in pixels of the images as they are, the median of some.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    mean: _Channels
    std: _Channels
    train: Images
    test: Images
    val: Images | None = None
    val_name: str = ""
    test_name: str = ""
    unused: tuple[str, ...] = ()
    side: int = 0

    def normalised(self, mean: _Channels, std: _Channels) -> Dataset:
        """The same images, normalised by other figures; nothing is decoded again."""
        train, test = self.train.normalised(mean, std), self.test.normalised(mean, std)
        val = None if self.val is None else self.val.normalised(mean, std)
        return replace(self, mean=mean, std=std, train=train, test=test, val=val)


def open_data(spec: str, *, image_size: int | None = None, seed: int = 0) -> Dataset:
    """Open a data set.

    Args:
        spec: `digits` (scikit-learn's, nothing to download), `cifar10:ROOT` (the published files),
            `imagefolder:ROOT` (ROOT/train/CLASS/FILE with ROOT/test, ROOT/val or both, or ROOT/CLASS/FILE),
            `parquet:DIR` (train.parquet, test.parquet and validation.parquet in Hugging Face's image layout).
        image_size: Side in pixels of the images for the network. None takes the side of the images
            themselves up to 64 pixels (at least 32), and 224 for larger ones.
        seed: Decides which fifth of each class is held out as test when the data has no test part, and
            nothing else. All stages of a project must give the same one, or one trains on what another
            scores on.

    Returns:
        The data set. Images up to 64 pixels are normalised by the mean and deviation of train, larger ones by
        ImageNet's. `Dataset.normalised` gives what trained weights expect in place of it.

    Raises:
        UsageError: The spec or the size cannot be understood.
        DataError: The data is missing, damaged, empty or of one class.
    """
    if image_size is not None and image_size < _SMALLEST_SIDE:
        raise UsageError(
            "Images are too small.", where="image size", got=image_size, allowed=f"{_SMALLEST_SIDE} or more"
        )
    raw = _read(spec)
    _check(raw, spec)
    train, test = (raw.train, raw.test) if raw.test is not None else _hold_out(raw, spec, seed)
    side = _typical_side(train)
    augmentation = Augmentation(image_size=image_size or _native_size(side), flip=raw.flip)
    parts = [train, test] if raw.val is None else [train, test, raw.val]
    mean, std, images = _load(parts, augmentation)
    _log.info(
        "%s: %d classes, %d train and %d test images of %d pixels, %s",
        spec,
        len(raw.classes),
        len(train),
        len(test),
        augmentation.image_size,
        "in memory" if isinstance(images[0], MemoryImages) else "decoded on the way",
    )
    return Dataset(
        spec,
        raw.classes,
        augmentation.image_size,
        mean,
        std,
        train=images[0],
        test=images[1],
        val=images[2] if raw.val is not None else None,
        val_name=raw.val_name,
        test_name=raw.test_name,
        unused=raw.unused,
        side=side,
    )


def open_unlabelled(root: Path, image_size: int, mean: _Channels, std: _Channels) -> Images:
    """Images without labels, as a network is shown them when it is used: all of them have label 0.

    Args:
        root: A folder of image files, at any depth.
        image_size: Side in pixels of the images for the network.
        mean: What is subtracted from each channel of pixels in 0..1.
        std: What is then divided by.

    Raises:
        DataError: No such folder, or no image in it.
    """
    return LazyImages(folder.unlabelled(root), Augmentation(image_size=image_size, flip=False), mean, std)


def _read(spec: str) -> RawData:
    kind, separator, root = spec.partition(":")
    if spec == "digits":
        return digits.read()
    if kind in _READERS and root:
        return _READERS[kind](root)
    is_folder = bool(spec) and Path(spec).expanduser().is_dir()
    raise UsageError(
        "That is not a data set." if kind not in _READERS or separator else "That data set needs its folder.",
        where="data",
        got=repr(spec),
        allowed=nearest(kind, ("digits", *_READERS)) + "; written as " + ", ".join(_FORMS),
        do=f"write imagefolder:{spec}" if is_folder else None,
    )


def _check(raw: RawData, spec: str) -> None:
    for part, source in (("train", raw.train), ("test", raw.test), ("validation", raw.val)):
        if source is not None and len(source) == 0:
            raise DataError(f"The {part} part has no images.", where=spec)
    present = torch.unique(raw.train.labels).tolist()
    if len(present) < 2:
        raise DataError(
            "All training images are of one class; there is nothing to tell apart.",
            where=spec,
            got=raw.classes[present[0]],
            allowed="two classes or more",
        )


def _hold_out(raw: RawData, spec: str, seed: int) -> tuple[Source, Source]:
    """A fixed share of each class as test, and the rest as train."""
    sizes = torch.bincount(raw.train.labels, minlength=len(raw.classes)).tolist()
    for name, size in zip(raw.classes, sizes, strict=True):
        if size == 1:
            raise DataError(
                "A class has one image, so none can be held out for the final score.",
                where=f"{spec}, class {name}",
                allowed="2 or more",
            )
    held = [max(1, round(TEST_SHARE * size)) if size else 0 for size in sizes]
    test, train = pick(raw.train.labels, held, seed)
    return raw.train.take(train.tolist()), raw.train.take(test.tolist())


def _typical_side(source: Source) -> int:
    """The median of some images' shorter sides, in pixels."""
    indices = np.linspace(0, len(source) - 1, min(_SIZED_IMAGES, len(source))).astype(int)
    return int(np.median([min(source.image(int(index)).size) for index in indices]))


def _native_size(side: int) -> int:
    """A size that suits the images: their own when they are small, the usual 224 when they are not."""
    return max(side, _DEFAULT_SMALL_SIDE) if side <= SMALL_SIDE else _DEFAULT_LARGE_SIDE


def _load(parts: Sequence[Source], augmentation: Augmentation) -> tuple[_Channels, _Channels, list[Images]]:
    """Decode all parts, train first, when they fit in memory, and find their normalisation."""
    side = augmentation.stored_side
    if sum(map(len, parts)) * 3 * side**2 > MEMORY_LIMIT_BYTES:
        mean, std = _IMAGENET_MEAN, _IMAGENET_STD
        return mean, std, [LazyImages(part, augmentation, mean, std) for part in parts]
    pixels = [decode_all(part, side) for part in parts]
    mean, std = _statistics(pixels[0]) if augmentation.small else (_IMAGENET_MEAN, _IMAGENET_STD)
    held = zip(pixels, parts, strict=True)
    return mean, std, [MemoryImages(some, part.labels, augmentation, mean, std) for some, part in held]


def _statistics(pixels: NDArray[np.uint8]) -> tuple[_Channels, _Channels]:
    """Mean and deviation of each channel over at most 5000 images spread over uint8 (N, 3, S, S)."""
    sample = pixels[:: max(1, len(pixels) // _MEASURED_IMAGES)][:_MEASURED_IMAGES]
    means, deviations = [], []
    values = np.arange(256) / 255
    for channel in range(3):
        counts = np.bincount(sample[:, channel].ravel(), minlength=256)
        mean = float(np.average(values, weights=counts))
        means.append(round(mean, 4))
        deviations.append(round(float(np.average((values - mean) ** 2, weights=counts)) ** 0.5, 4))
    return _three(means), _three([max(deviation, 0.01) for deviation in deviations])


def _three(values: list[float]) -> _Channels:
    red, green, blue = values
    return red, green, blue
