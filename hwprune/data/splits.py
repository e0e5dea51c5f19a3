"""The three parts of the data: sub-train, sub-val and test (MetaPruning, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hwprune.data.stratify import pick, shares
from hwprune.errors import DataError

if TYPE_CHECKING:
    from hwprune.data.datasets import Dataset
    from hwprune.data.images import Images

ENOUGH = 2500  # images: one standard error of an accuracy is then 1 point or less
_SHARE = 0.2  # of the training images, at most
_MOST_OWN = 5000  # images of the user's own validation part that candidates are scored on


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of a data set.

    Attributes:
        sub_train: What PruningNet learns from and BatchNorm is recalibrated on.
        sub_val: What the search scores its candidates on.
        test: What the final score is taken on, once. Nothing that decides anything may read it.
        own: Name of the user's own validation part that sub-val is; "" where it was taken from training.
    """

    sub_train: Images
    sub_val: Images
    test: Images
    own: str = ""

    @property
    def error(self) -> float:
        """One standard error of an accuracy on sub-val, 0 to 1, at most: that of an accuracy of a half."""
        return 0.5 / math.sqrt(len(self.sub_val))

    @property
    def told(self) -> str:
        """What sub-val is, and how exact scores on it are."""
        source = self.own or "taken from training"
        return (
            f"Candidates are scored on {len(self.sub_val)} images ({source}); "
            f"one standard error of a score is {100 * self.error:.1f} points at most."
        )


def split(dataset: Dataset, *, images: int = 0, seed: int = 0) -> Splits:
    """Set sub-val apart: the user's own validation part, else a share of the training images.

    Classes are as frequent in it as in what it is taken from. Each of two images or more has one there.

    Args:
        dataset: The data set; its test part is passed on untouched.
        images: Images of sub-val. 0 takes what a score needs to be exact to a point, 2,500, but at most a
            fifth of the training images; of the user's own part up to 5,000.
        seed: The same seed gives the same split.

    Raises:
        DataError: There are too few training images to leave one of each class for sub-train.
    """
    source = dataset.train if dataset.val is None else dataset.val
    sizes = torch.bincount(source.labels, minlength=len(dataset.classes)).tolist()
    if dataset.val is not None:
        wanted = min(images or _MOST_OWN, len(source))
        if wanted == len(source):
            return Splits(dataset.train, source, dataset.test, dataset.val_name)
        val, _ = pick(source.labels, shares(sizes, wanted, leave=0), seed)
        return Splits(dataset.train, source.subset(val), dataset.test, dataset.val_name)
    spare = sum(max(size - 1, 0) for size in sizes)
    wanted = images or max(1, min(ENOUGH, round(_SHARE * len(source))))
    if wanted > spare:
        raise DataError(
            "There are too few training images to split off sub-val.",
            where=dataset.name,
            got=f"{images or 'automatic'} of {len(source)} images",
            allowed=f"1 to {spare}: at least one image of each class is left to train on"
            if spare
            else "two images or more of some class",
            do="set fewer as `sub_val` under [data]" if spare else "add images",
        )
    val, train = pick(source.labels, shares(sizes, wanted, leave=1), seed)
    return Splits(source.subset(train), source.subset(val), dataset.test)
