"""The three parts of the data: sub-train, sub-val and test (MetaPruning, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hwprune.data.stratify import pick
from hwprune.errors import DataError, UsageError

if TYPE_CHECKING:
    from hwprune.data.datasets import Dataset
    from hwprune.data.images import Images


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of a data set.

    Attributes:
        sub_train: What PruningNet learns from and BatchNorm is recalibrated on.
        sub_val: What the search scores its candidates on; the same number of images of each class.
        test: What the final score is taken on, once. Nothing that decides anything may read it.
    """

    sub_train: Images
    sub_val: Images
    test: Images


def split(dataset: Dataset, *, per_class: int, seed: int = 0) -> Splits:
    """Take `per_class` training images of each class as sub-val and leave the rest as sub-train.

    Args:
        dataset: The data set; its test part is passed on untouched.
        per_class: Images of each class in sub-val; the paper takes 50 of ImageNet's about 1300.
        seed: The same seed gives the same split.

    Raises:
        DataError: A class has too few images to leave one for sub-train; all such classes are counted.
        UsageError: `per_class` is below 1.
    """
    if per_class < 1:
        raise UsageError(
            "Sub-val needs images of each class.",
            where="images per class",
            got=per_class,
            allowed="1 or more",
        )
    sizes = torch.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist()
    few = [(size, name) for name, size in zip(dataset.classes, sizes, strict=True) if size <= per_class]
    if few:
        size, name = min(few)
        raise DataError(
            "Some classes have too few training images to split off sub-val.",
            where=dataset.name,
            got=f"{len(few)} of {len(sizes)} classes; {name} has {size}",
            allowed=f"{per_class + 1} or more of each class",
            do=f"ask for fewer images per class than {size}"
            if size > 1
            else "add images or remove the class",
        )
    val, train = pick(dataset.train.labels, [per_class] * len(sizes), seed)
    return Splits(dataset.train.subset(train), dataset.train.subset(val), dataset.test)
