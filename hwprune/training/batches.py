"""Batches to train and to score on: of `hwprune.data.Images`, or of a loader of the user's own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import torch

from hwprune.errors import DataError
from hwprune.training.task import CLASSIFICATION, images_in, inputs_of, tensors_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hwprune.training.task import Task


class TrainImages(Protocol):
    """What training needs of images; `hwprune.data.Images` has it."""

    def __len__(self) -> int:
        """Number of images."""

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Any]:
        """Batches on the CPU; `part` (k, n) is the k-th of n of each batch."""


class LoaderImages:
    """A loader in the form that training and scoring read; it decides on batches, order and augmentation.

    Args:
        loader: Gives batches, over again each time it is gone through, and has a length: a DataLoader, or a
            list of batches.
        task: Says what of a batch are images.

    Attributes:
        loader: As given.
        task: As given.
        batch_size: Images of its first batch.
        example: That batch.

    Raises:
        DataError: It is empty, or has no length.
    """

    def __init__(self, loader: Iterable[Any], task: Task) -> None:
        self.loader, self.task = loader, task
        try:
            self._count = len(loader)  # type: ignore[arg-type]
        except TypeError as error:
            raise DataError(
                "The loader has no length.",
                where="the loader",
                got=type(loader).__name__,
                allowed="batches that can be gone through again, such as a DataLoader or a list",
                do="give its data set or itself a __len__",
            ) from error
        self.example = next(seeded(loader), None)
        if self._count == 0 or self.example is None:
            raise DataError(
                "The loader is empty.",
                where="the loader",
                got=f"{self._count} batches",
                allowed="1 or more",
                do="check the data set and its `batch_size` with `drop_last`",
            )
        self.batch_size = images_in(inputs_of(task, self.example))

    def __len__(self) -> int:
        """Images, if all batches are as large as the first."""
        return self._count * self.batch_size

    def batches(
        self,
        batch_size: int = 0,
        *,
        augment: bool = False,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Any]:
        """The loader's batches, as they are; while training the caller has seeded what they draw from."""
        return iter(self.loader) if augment else seeded(self.loader, shuffle_seed or 0)

    def some(self, images: int) -> list[Any]:
        """The first full batches, until so many images are in them; one batch at least."""
        found: list[Any] = []
        for batch in self.batches(shuffle_seed=0):
            if found and len(found) * self.batch_size >= images:
                break
            if not found or images_in(inputs_of(self.task, batch)) == self.batch_size:
                found.append(batch)
        return found

    @property
    def nbytes(self) -> int:
        """Memory that all batches would take."""
        return self._count * sum(tensor.nbytes for tensor in tensors_in(self.example))


def seeded(loader: Iterable[Any], seed: int = 0) -> Iterator[Any]:
    """Batches whose order depends on the seed alone, if the loader has no generator of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = iter(loader)
        first = list(itertools.islice(batches, 1))  # a sampler draws its order here
    return itertools.chain(first, batches)


def as_images(loader: Any, task: Task = CLASSIFICATION) -> TrainImages:
    """Images as they are; a loader in their form."""
    return loader if hasattr(loader, "batches") else LoaderImages(loader, task)
