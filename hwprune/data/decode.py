"""Decode images with Pillow: into RGB of one size, many at once, with errors that name the image."""

from __future__ import annotations

import contextlib
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import v2

from hwprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hwprune.data.sources.base import Source

WORKERS = min(8, os.cpu_count() or 1)  # Pillow decodes and resizes without holding the interpreter
_PER_TASK = 256


@contextlib.contextmanager
def decoding_errors(where: str) -> Iterator[None]:
    """Turn whatever Pillow raises for a bad image into a `DataError` that names the image."""
    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(where, str(error)) from error
    except UnidentifiedImageError as error:
        raise DataError(
            "A file is not an image that Pillow can read.", where=where, do="repair or delete it"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        # Pillow's format plug-ins raise all of these for damaged files.
        raise DataError(
            "An image cannot be read.", where=where, got=error, do="repair or delete it"
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded copy of `image` as 8-bit RGB; transparency is dropped, 16-bit greys keep their high byte."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    if image.mode.startswith("I"):  # Pillow would clip 16-bit greys at 255 instead of scaling them
        high = np.clip(np.asarray(image) >> 8, 0, 255)  # in its own type: a copy of 64 bits has gigabytes
        image = Image.fromarray(high.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _too_large(where: str, got: str) -> DataError:
    return DataError(
        "An image is far larger than any photograph; decoding it could exhaust the memory.",
        where=where,
        got=got,
        allowed=f"{Image.MAX_IMAGE_PIXELS} pixels, Pillow's limit",
        do="delete it or make it smaller",
    )


def square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """The centre of an RGB image, its short side resized to `side`: uint8 (side, side, 3)."""
    if image.size != (side, side):
        image = v2.functional.center_crop(v2.functional.resize(image, [side]), [side, side])
    return np.asarray(image)


def decode_all(source: Source, side: int) -> NDArray[np.uint8]:
    """All images of a source as squares of `side` pixels: uint8 (N, 3, side, side).

    Raises:
        DataError: An image cannot be decoded; the first such one is named.
    """
    pixels = np.empty((len(source), 3, side, side), dtype=np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _PER_TASK, len(source))):
            pixels[index] = square(source.image(index), side).transpose(2, 0, 1)

    pool = ThreadPoolExecutor(WORKERS)
    try:
        for _ in pool.map(fill, range(0, len(source), _PER_TASK)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels
