"""The standard augmentation, with torchvision's v2 kernels and one random draw per image.

v2's own transforms draw once per call, that is once for a whole batch, and from torch's global generator,
which worker threads would share with the training loop. So the draws are made here, from a generator that
the caller seeds, and v2's functional kernels do the work.

- Up to 64 pixels: shift by up to an eighth of the side over a black border, and mirror (He et al., 2016,
  section 4.2).
- Above: a random part of the image, 8 % to 100 % of its area, resized, and mirrored (Szegedy et al., 2015,
  section 6). Evaluation crops the centre, 224 of 256 pixels or in that proportion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision.transforms import v2

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

SMALL_SIDE = 64
_SHIFT = 8  # the side is 8 times the largest shift: 4 pixels at 32x32
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How stored images become those a network sees.

    Attributes:
        image_size: Side of the images for the network.
        flip: Whether to mirror half of the images.
    """

    image_size: int
    flip: bool

    @property
    def small(self) -> bool:
        """Whether images are shifted whole instead of cropped."""
        return self.image_size <= SMALL_SIDE

    @property
    def stored_side(self) -> int:
        """Side of the squares to keep, from which both training and evaluation images can be cut."""
        return self.image_size if self.small else round(self.image_size * 256 / 224)

    def evaluate(self, pixels: Tensor) -> Tensor:
        """The centre: uint8 (B, 3, stored_side, stored_side) -> (B, 3, image_size, image_size)."""
        return pixels if self.small else v2.functional.center_crop(pixels, [self.image_size] * 2)

    def augment(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """A random view of each image.

        uint8 (B, 3, stored_side, stored_side) -> (B, 3, image_size, image_size)
        """
        if self.small:
            views = _shifted(pixels, self.image_size // _SHIFT, rng)
        else:
            size = [self.image_size] * 2
            views = torch.stack(
                [
                    v2.functional.resized_crop(p, *crop_box(p.shape[-2], p.shape[-1], rng), size)
                    for p in pixels
                ]
            )
        return _mirrored(views, rng) if self.flip else views

    def augment_large(self, image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A random view of one image of any size above `SMALL_SIDE`: uint8 (image_size, image_size, 3)."""
        box = crop_box(image.height, image.width, rng)
        view = v2.functional.resized_crop(image, *box, [self.image_size] * 2)
        if self.flip and rng.random() < 0.5:
            view = v2.functional.horizontal_flip(view)
        return np.asarray(view)


def _shifted(pixels: Tensor, shift: int, rng: np.random.Generator) -> Tensor:
    side = pixels.shape[-1]
    padded: Tensor = v2.functional.pad(pixels, [shift])  # (B, 3, side + 2 shift, side + 2 shift)
    windows = padded.unfold(2, side, 1).unfold(
        3, side, 1
    )  # view (B, 3, 2 shift + 1, 2 shift + 1, side, side)
    tops, lefts = torch.from_numpy(rng.integers(0, 2 * shift + 1, (2, len(pixels))))
    return windows[torch.arange(len(pixels)), :, tops, lefts]


def _mirrored(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    chosen = torch.from_numpy(rng.random(len(pixels)) < 0.5)
    return torch.where(chosen[:, None, None, None], v2.functional.horizontal_flip(pixels), pixels)


def crop_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
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
