"""Scoring networks of a space: by their weights, recalibrated, and the metric of a task."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hwprune.errors import DataError
from hwprune.pruningnet.fuse import conv_norm_pairs, fold
from hwprune.training.batches import LoaderImages, TrainImages
from hwprune.training.evaluation import example, figures, recalibrate
from hwprune.training.precision import choose_execution, lay_out
from hwprune.training.task import (
    CLASSIFICATION,
    Task,
    finite,
    images_in,
    inputs_of,
    name_of,
    over_a_set,
    tensors_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from hwprune.pruningnet.settings import PruningNetSettings
    from hwprune.structure.space import SearchSpace
    from hwprune.training.precision import Execution

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)  # of sub-val, after which a candidate may be dropped
_LEAST = 32  # images of the first part of a loader's
_GPU_BYTES = 8 * 2**20  # of images that a GPU scores at once or more: in small batches it waits for kernels
_KEPT_BYTES = 4 * 2**30  # of each part; the paper's sub-val of 50,000 images at 224 pixels would take 30 GB


class EvalImages(TrainImages, Protocol):
    """What scoring needs of images; `hwprune.data.Images` has it."""

    def subset(self, indices: NDArray[np.int64], /) -> EvalImages:
        """The images at `indices`."""


class Supernet(Protocol):
    """What scoring needs of weights for all networks of a space; `PruningNet` and `Inherited` have it."""

    space: SearchSpace

    def materialise(self, widths: Sequence[int], /) -> nn.Module:
        """The dense network of `widths`."""


class _Placed:
    """Images in batches, decoded and placed on the device each time they are gone through."""

    def __init__(self, images: TrainImages, batch_size: int, execution: Execution) -> None:
        self._images, self._batch_size, self._execution = images, batch_size, execution

    def __iter__(self) -> Iterator[Any]:
        return map(self._execution.place, self._images.batches(self._batch_size))


class _Joined:
    """Parts in one, each gone through anew each time."""

    def __init__(self, parts: Sequence[Iterable[Any]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self._parts)


class Evaluator:
    """Gives the score of any widths: an `AccuracyScore` for the search.

    A candidate's weights are generated once, into a dense module; its batch-norm statistics are taken from
    sub-train images; then it is scored on sub-val. The images are decoded and normalised once, here, unless
    they are too many to be kept, and every candidate sees the same ones in the same batches: the same widths
    give the same score. Sub-val comes in parts, in an order of its own, so that a candidate can be judged on
    some of it; of a loader's the batches are drawn. Where the metric is one of a whole set, or a loader's
    batches are too many to be kept, there is one part.

    Args:
        net: A trained PruningNet, or inherited weights.
        sub_train: Where `settings.recalibration_images` of the images are drawn from; a loader's first.
        sub_val: The images to score on.
        settings: Number of images, batch size, precision.
        seed: Fixes the draw and the order of sub-val.
        task: Whose metric is the score.

    Attributes:
        stops: Figures of sub-val up to the end of each part; the last is all of them.
        images: Images of sub-val.

    Raises:
        DataError: One of the splits is empty.
    """

    def __init__(
        self,
        net: Supernet,
        sub_train: EvalImages | LoaderImages,
        sub_val: EvalImages | LoaderImages,
        settings: PruningNetSettings,
        seed: int = 0,
        task: Task = CLASSIFICATION,
    ) -> None:
        if len(sub_train) == 0 or len(sub_val) == 0:
            raise DataError("Candidates cannot be scored: a split of the images is empty.")
        self.net, self.settings, self.task = net, settings, task
        narrow = net.materialise(net.space.uniform(0.0))  # with all blocks
        # without `close` nothing tells what rounding decides
        precision = settings.precision if hasattr(task, "close") else "fp32"
        self.execution = choose_execution(
            narrow, example(sub_val, task), precision, settings.channels_last, gradients=False
        )
        rng = np.random.default_rng(seed)
        if isinstance(sub_train, LoaderImages):
            some = sub_train.some(settings.recalibration_images)
            self._recalibration: Iterable[Any] = [self.execution.place(batch) for batch in some]
        else:
            drawn = rng.permutation(len(sub_train))[: settings.recalibration_images]
            self._recalibration = self._batches(sub_train.subset(np.sort(drawn)), settings.eval_batch_size)
        if isinstance(sub_val, LoaderImages):
            self.stops, self._parts = self._of_loader(sub_val, rng)
        else:
            self.stops, self._parts = self._of_images(sub_val, rng)
        self.images = self.stops[-1]
        if over_a_set(task):
            self.stops, self._parts = (1,), [_Joined(self._parts)]
        self._pairs = conv_norm_pairs(narrow)

    def _of_images(
        self, sub_val: EvalImages, rng: np.random.Generator
    ) -> tuple[tuple[int, ...], list[Iterable[Any]]]:
        """Ends of the parts of sub-val, and their batches."""
        size = self.settings.eval_batch_size
        order = rng.permutation(len(sub_val))
        stops = _stops(len(sub_val), size)
        if self.execution.device.type == "cuda":
            size = max(size, _GPU_BYTES // _bytes_of_one(sub_val))
        parts = itertools.pairwise((0, *stops))
        return stops, [self._batches(sub_val.subset(order[a:b]), size, len(sub_val)) for a, b in parts]

    def _of_loader(
        self, sub_val: LoaderImages, rng: np.random.Generator
    ) -> tuple[tuple[int, ...], list[Iterable[Any]]]:
        """The same of a loader's batches."""
        placed = _Placed(sub_val, 0, self.execution)
        if sub_val.nbytes > _KEPT_BYTES:
            return (sum(images_in(inputs_of(self.task, batch)) for batch in sub_val.batches()),), [placed]
        batches = list(placed)
        batches = [batches[place] for place in rng.permutation(len(batches))]
        seen = list(itertools.accumulate(images_in(inputs_of(self.task, batch)) for batch in batches))
        ends = sorted({math.ceil(share * len(batches)) for share in _SHARES})
        ends = [end for end in ends if seen[end - 1] >= _LEAST or end == len(batches)]
        parts: list[Iterable[Any]] = [batches[first:end] for first, end in itertools.pairwise((0, *ends))]
        return tuple(seen[end - 1] for end in ends), parts

    def _batches(self, images: TrainImages, size: int, of: int = 0) -> Iterable[Any]:
        # Batches of one size: recalibration gives each the same weight.
        count = math.ceil(len(images) / size)
        placed = _Placed(images, math.ceil(len(images) / count), self.execution)
        return list(placed) if max(len(images), of) * _bytes_of_one(images) <= _KEPT_BYTES else placed

    def network(self, widths: Sequence[int]) -> nn.Module:
        """The dense network of `widths` with recalibrated batch normalisation, in eval mode."""
        dense = self.net.materialise(widths).eval()
        lay_out(dense, self.execution)
        recalibrate(dense, self._recalibration, self.execution, self.task)
        return dense

    def folded(self, widths: Sequence[int]) -> nn.Module:
        """The same network as `network` gives, with its batch normalisation folded away, for `figures`."""
        network = self.network(widths)
        fold(network, self._pairs)
        return network

    def figures(self, folded: nn.Module, part: int) -> NDArray[np.float32]:
        """What the metric says of a network for each image of one part of sub-val: (images of the part,).

        Raises:
            ModelError: Something that is not a finite number.
        """
        found = figures(folded, self._parts[part], self.execution, self.task)
        finite(float(found.sum()), name_of(self.task))
        return found

    def __call__(self, widths: Sequence[int]) -> float:
        """The score of the network of `widths` on sub-val: of classification top-1 accuracy, 0 to 1."""
        network = self.folded(widths)
        found = [self.figures(network, part) for part in range(len(self.stops))]
        return float(np.concatenate(found).mean(dtype=np.float64))


def _bytes_of_one(images: TrainImages) -> int:
    return tensors_in(next(images.batches(1)))[0].nbytes


def _stops(images: int, batch_size: int) -> tuple[int, ...]:
    """Ends of the parts of sub-val: each about doubles what was seen, in whole batches."""
    batches = math.ceil(images / batch_size)
    ends = sorted({math.ceil(share * batches) for share in _SHARES})
    return (*(end * batch_size for end in ends[:-1]), images)
