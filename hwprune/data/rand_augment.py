"""RandAugment (Cubuk et al., 2020) with torchvision's kernels, and draws from a generator that is given.

`torchvision.transforms.v2.RandAugment` draws from torch's global generator, which worker threads would share
with the training loop, and once for a whole batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torchvision.transforms.v2 import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image

STRONGEST = 30
_STEPS = 2  # operations on each image
_SHEAR, _TURN, _MOVE, _CHANGE, _BITS = 0.3, 30.0, 150 / 331, 0.9, 4  # at the strongest, as in the paper

Draw = tuple[tuple[int, float], ...]  # number of the operation and its strength with its sign, for each step


def draw(magnitude: int, rng: np.random.Generator) -> Draw:
    """The operations for one image; their strength is `magnitude` thirtieths of the strongest."""
    strength = magnitude / STRONGEST
    return tuple(
        (int(rng.integers(len(_OPERATIONS))), strength if rng.random() < 0.5 else -strength)
        for _ in range(_STEPS)
    )


def apply(image: Image.Image, operations: Draw) -> Image.Image:
    """An RGB image after the operations."""
    for number, strength in operations:
        image = _OPERATIONS[number](image, strength)
    return image


def _affine(image: Image.Image, shear: tuple[float, float], move: tuple[float, float]) -> Image.Image:
    angles = [math.degrees(math.atan(value)) for value in shear]
    shift = [int(value) for value in move]
    moved: Image.Image = functional.affine(
        image, angle=0.0, translate=shift, scale=1.0, shear=angles, center=[0, 0] if any(angles) else None
    )
    return moved


_OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, strength: image,
    lambda image, strength: _affine(image, (_SHEAR * strength, 0), (0, 0)),
    lambda image, strength: _affine(image, (0, _SHEAR * strength), (0, 0)),
    lambda image, strength: _affine(image, (0, 0), (_MOVE * image.width * strength, 0)),
    lambda image, strength: _affine(image, (0, 0), (0, _MOVE * image.height * strength)),
    lambda image, strength: functional.rotate(image, _TURN * strength),
    lambda image, strength: functional.adjust_brightness(image, 1 + _CHANGE * strength),
    lambda image, strength: functional.adjust_saturation(image, 1 + _CHANGE * strength),
    lambda image, strength: functional.adjust_contrast(image, 1 + _CHANGE * strength),
    lambda image, strength: functional.adjust_sharpness(image, 1 + _CHANGE * strength),
    lambda image, strength: functional.posterize(image, 8 - round(_BITS * abs(strength))),
    lambda image, strength: functional.solarize(image, 255 * (1 - abs(strength))),
    lambda image, strength: functional.autocontrast(image),
    lambda image, strength: functional.equalize(image),
)
