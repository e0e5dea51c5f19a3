"""Scoring candidates with a trained PruningNet."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hwprune.errors import DataError
from hwprune.pruningnet.fuse import conv_norm_pairs, fold
from hwprune.training.evaluation import recalibrate, right
from hwprune.training.loop import TrainImages
from hwprune.training.precision import choose_execution, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from hwprune.pruningnet.settings import PruningNetSettings
    from hwprune.structure.space import SearchSpace
    from hwprune.training.evaluation import Batch
    from hwprune.training.precision import Execution

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)  # of sub-val, after which a candidate may be dropped
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

    def __iter__(self) -> Iterator[Batch]:
        for x, y in self._images.batches(self._batch_size):
            yield self._execution.place(x), y.to(self._execution.device)


class Evaluator:
    """Gives the accuracy of any widths: an `AccuracyScore` for the search.

    A candidate's weights are generated once, into a dense module; its batch-norm statistics are taken from
    sub-train images; then it is scored on sub-val. The images are decoded and normalised once, here, unless
    they are too many to be kept, and every candidate sees the same ones in the same batches: the same widths
    give the same accuracy. Sub-val comes in parts, in an order of its own, so that a candidate can be judged
    on some of it.

    Args:
        net: A trained PruningNet, or inherited weights.
        sub_train: Where `settings.recalibration_images` of the images are drawn from.
        sub_val: The images to score on.
        settings: Number of images, batch size, precision.
        seed: Fixes the draw and the order of sub-val.

    Attributes:
        stops: Images of sub-val up to the end of each part; the last is all of them.

    Raises:
        DataError: One of the splits is empty.
    """

    def __init__(
        self,
        net: Supernet,
        sub_train: EvalImages,
        sub_val: EvalImages,
        settings: PruningNetSettings,
        seed: int = 0,
    ) -> None:
        if len(sub_train) == 0 or len(sub_val) == 0:
            raise DataError("Candidates cannot be scored: a split of the images is empty.")
        self.net, self.settings = net, settings
        narrow = net.materialise(net.space.uniform(0.0))  # with all blocks
        example, _ = next(sub_val.batches(2))
        self.execution = choose_execution(
            narrow, example, settings.precision, settings.channels_last, gradients=False
        )
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(len(sub_train))[: settings.recalibration_images]
        size = settings.eval_batch_size
        self._recalibration = self._batches(sub_train.subset(np.sort(drawn)), size)
        order = rng.permutation(len(sub_val))
        self.stops = _stops(len(sub_val), size)
        if self.execution.device.type == "cuda":
            size = max(size, _GPU_BYTES // example[:1].nbytes)
        self._parts = [
            self._batches(sub_val.subset(order[first:stop]), size, len(sub_val))
            for first, stop in itertools.pairwise((0, *self.stops))
        ]
        self._pairs = conv_norm_pairs(narrow)

    def _batches(self, images: TrainImages, size: int, of: int = 0) -> Iterable[Batch]:
        # Batches of one size: recalibration gives each the same weight.
        count = math.ceil(len(images) / size)
        placed = _Placed(images, math.ceil(len(images) / count), self.execution)
        example, _ = next(images.batches(1))
        return list(placed) if max(len(images), of) * example.nbytes <= _KEPT_BYTES else placed

    def network(self, widths: Sequence[int]) -> nn.Module:
        """The dense network of `widths` with recalibrated batch normalisation, in eval mode."""
        dense = self.net.materialise(widths).eval()
        lay_out(dense, self.execution)
        recalibrate(dense, self._recalibration, self.execution)
        return dense

    def folded(self, widths: Sequence[int]) -> nn.Module:
        """The same network as `network` gives, with its batch normalisation folded away, for `right`."""
        network = self.network(widths)
        fold(network, self._pairs)
        return network

    def right(self, folded: nn.Module, part: int) -> NDArray[np.bool_]:
        """Which images of one part of sub-val a network classifies rightly: (images of the part,)."""
        return right(folded, self._parts[part], self.execution)

    def __call__(self, widths: Sequence[int]) -> float:
        """Top-1 accuracy on sub-val of the network of `widths`, 0 to 1."""
        network = self.folded(widths)
        found = sum(int(self.right(network, part).sum()) for part in range(len(self.stops)))
        return found / self.stops[-1]


def _stops(images: int, batch_size: int) -> tuple[int, ...]:
    """Ends of the parts of sub-val: each about doubles what was seen, in whole batches."""
    batches = math.ceil(images / batch_size)
    ends = sorted({math.ceil(share * batches) for share in _SHARES})
    return (*(end * batch_size for end in ends[:-1]), images)
