"""What a user should know of the images before anything long begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwprune.data.datasets import Dataset

_UNEVEN = 10  # times as many images in the largest class as in the smallest
_TINY = 20  # training images of a class below which its accuracy is a matter of luck
_ENLARGED, _SHRUNK = 0.6, 3.0  # side of the images, of that of the network's input
_LEAST_SIDE = 32  # below which networks are seldom fed
_NAMED = 5


def remarks(dataset: Dataset) -> list[str]:
    """What the parts serve as, and what is unusual: uneven or tiny classes, sizes far from the network's."""
    return [*_parts(dataset), *_classes(dataset), *_size(dataset)]


def _parts(dataset: Dataset) -> Iterator[str]:
    name = dataset.test_name
    test = f"Test: {len(dataset.test)} images ({name or 'a fifth of each class, held out'})."
    if name and not name.startswith("test"):
        test += " Without images of its own for test, nothing else is done with this part."
    yield test
    if dataset.unused:
        yield f"Not used: {_some(dataset.unused)}."


def _classes(dataset: Dataset) -> Iterator[str]:
    counts = torch.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist()
    sizes = dict(zip(dataset.classes, counts, strict=True))
    most, least = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    if sizes[most] >= _UNEVEN * max(sizes[least], 1):
        yield (
            f"Classes are uneven: {most} has {sizes[most]} training images, {least} {sizes[least]}. "
            'class_weights = "balanced" under [training] lets rare classes weigh as much.'
        )
    if tiny := [name for name, size in sizes.items() if size < _TINY]:
        words = "1 class has" if len(tiny) == 1 else f"{len(tiny)} classes have"
        luck = "What is scored on them is mostly luck."
        yield f"{words} fewer than {_TINY} training images: {_some(tiny)}. {luck}"
    tested = torch.bincount(dataset.test.labels, minlength=len(dataset.classes)).tolist()
    if untested := [name for name, size in zip(dataset.classes, tested, strict=True) if not size]:
        yield f"Not in test: {_some(untested)}."


def _size(dataset: Dataset) -> Iterator[str]:
    ratio, least = dataset.side / dataset.image_size, max(dataset.side, _LEAST_SIDE)
    if least / dataset.image_size < _ENLARGED:
        yield (
            f"Images of about {dataset.side} pixels are enlarged to {dataset.image_size}: fewer pixels "
            f"(init --image-size {least}) cost less time and lose nothing that was there."
        )
    elif ratio > _SHRUNK:
        yield (
            f"Images of about {dataset.side} pixels are shrunk to {dataset.image_size}: where details "
            "matter, give the network more pixels (init --image-size)."
        )


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
