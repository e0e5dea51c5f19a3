"""The standard augmentation, with one random draw per image.

It is what `torchvision.transforms.v2` does with `RandomCrop(padding)`, `RandomResizedCrop` and
`RandomHorizontalFlip`, with two differences. The draws come from a generator that the caller seeds, for each
image: v2 draws once per call, that is once for a whole batch, and from torch's global generator, which worker
threads would share with the training loop. And no step starts torch's threads: on a machine that computes
something else, waiting for them made tiny copies 80 times slower (2,000 instead of 160,000 images/s).

- Up to 64 pixels: shift by up to an eighth of the side over a black border, and mirror (He et al., 2016,
  section 4.2). Copied with numpy, bit for bit what v2's kernels give.
- Above: a random part of the image, 8 % to 100 % of its area, resized, and mirrored (Szegedy et al., 2015,
  section 6), with v2's kernels on Pillow's images. Evaluation crops the centre, 224 of 256 pixels or in that
  proportion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torchvision.transforms import v2

from hwprune.data import rand_augment

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL_SIDE = 64
_SHIFT = 8  # the side is 8 times the largest shift: 4 pixels at 32x32
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10
_Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How stored images become those a network sees.

    Attributes:
        image_size: Side of the images for the network.
        flip: Whether to mirror half of the images.
        rand_augment: Strength of RandAugment on each view, of 30; 0 does without.
    """

    image_size: int
    flip: bool
    rand_augment: int = 0

    @property
    def small(self) -> bool:
        """Whether images are shifted whole instead of cropped."""
        return self.image_size <= SMALL_SIDE

    @property
    def stored_side(self) -> int:
        """Side of the squares to keep, from which both training and evaluation images can be cut."""
        return self.image_size if self.small else round(self.image_size * 256 / 224)

    def evaluate(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The centre: (B, 3, stored_side, stored_side) -> (B, 3, image_size, image_size)."""
        start = round((self.stored_side - self.image_size) / 2)
        return pixels[:, :, start : start + self.image_size, start : start + self.image_size]

    def augment(
        self, pixels: NDArray[np.uint8], rng: np.random.Generator, part: slice | None = None, size: int = 0
    ) -> NDArray[np.uint8]:
        """A random view of each: (B, 3, stored_side, stored_side) -> (B, 3, image_size, image_size).

        Args:
            pixels: The images of a whole batch, or of a part of it.
            rng: Draws for the whole batch, so that a part gets the views that it would get in the whole.
            part: Which images of the batch these are; all of them when None.
            size: Images of the whole batch, when these are a part of it.
        """
        part, size = part or slice(None), size or len(pixels)
        if not self.small:
            draws = [self._draw(self.stored_side, self.stored_side, rng) for _ in range(size)][part]
            squares = (Image.fromarray(np.ascontiguousarray(p.transpose(1, 2, 0))) for p in pixels)
            large = [self._view(square, *draw) for square, draw in zip(squares, draws, strict=True)]
            views = np.stack(large).transpose(0, 3, 1, 2)
        else:
            moves, mirrored = self.small_draws(rng, size, part)
            views = _shifted(pixels, moves)
            views[mirrored] = views[mirrored][..., ::-1]
        return self._strengthened(views, rng, part, size) if self.rand_augment else views

    def _strengthened(
        self, views: NDArray[np.uint8], rng: np.random.Generator, part: slice, size: int
    ) -> NDArray[np.uint8]:
        """The views after RandAugment: (B, 3, S, S) -> (B, 3, S, S)."""
        draws = [rand_augment.draw(self.rand_augment, rng) for _ in range(size)][part]
        images = (Image.fromarray(np.ascontiguousarray(view.transpose(1, 2, 0))) for view in views)
        changed = [rand_augment.apply(image, draw) for image, draw in zip(images, draws, strict=True)]
        return np.stack([np.asarray(image) for image in changed]).transpose(0, 3, 1, 2)

    @property
    def largest_shift(self) -> int:
        """How far small images are moved at most, in pixels."""
        return self.image_size // _SHIFT

    def small_draws(
        self, rng: np.random.Generator, size: int, part: slice
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The random views of the images of a part of a batch: moves down and right (B, 2), mirrored (B,)."""
        shift = self.largest_shift
        moves = rng.integers(-shift, shift + 1, (size, 2))[part]
        mirrored = rng.random(size)[part] < 0.5 if self.flip else np.zeros(len(moves), dtype=np.bool_)
        return moves, mirrored

    def augment_large(self, image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A random view of one image, for sizes above `SMALL_SIDE`: (image_size, image_size, 3)."""
        view = self._view(image, *self._draw(image.height, image.width, rng))
        if not self.rand_augment:
            return view
        return np.asarray(
            rand_augment.apply(Image.fromarray(view), rand_augment.draw(self.rand_augment, rng))
        )

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[_Box, bool]:
        """A part of a large image, and whether it is mirrored."""
        return crop_box(height, width, rng), self.flip and bool(rng.random() < 0.5)

    def _view(self, image: Image.Image, box: _Box, mirrored: bool) -> NDArray[np.uint8]:
        view = v2.functional.resized_crop(image, *box, [self.image_size] * 2)
        return np.asarray(v2.functional.horizontal_flip(view) if mirrored else view)


def _shifted(pixels: NDArray[np.uint8], moves: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Each image moved by its own whole number of pixels; what is uncovered is black."""
    side = pixels.shape[-1]
    views = np.zeros_like(pixels)
    for view, image, (down, right) in zip(views, pixels, moves.tolist(), strict=True):
        rows, columns = _overlap(down, side), _overlap(right, side)
        view[:, rows[0], columns[0]] = image[:, rows[1], columns[1]]
    return views


def _overlap(move: int, side: int) -> tuple[slice, slice]:
    """Where the moved pixels go to, and where they come from."""
    return slice(max(0, move), side + min(0, move)), slice(max(0, -move), side - max(0, move))


def crop_box(height: int, width: int, rng: np.random.Generator) -> _Box:
    """Top, left, height and width of a random part, of random area and aspect ratio.

    When ten draws do not fit into the image, it is the largest central part of allowed aspect ratio.
    """
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*_AREA)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = rng.integers(0, height - crop_height + 1), rng.integers(0, width - crop_width + 1)
            return int(top), int(left), crop_height, crop_width
    crop_width = min(width, max(1, round(height * _ASPECT[1])))
    crop_height = min(height, max(1, round(width / _ASPECT[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
