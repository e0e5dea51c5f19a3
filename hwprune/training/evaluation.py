"""Top-1 accuracy, and the recalibration of batch normalisation."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hwprune.errors import DataError
from hwprune.runtimes.torch_cuda import products_in_tf32
from hwprune.training.distill import logits_of
from hwprune.training.precision import Execution, choose_execution

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from hwprune.training.loop import TrainImages
    from hwprune.training.settings import PrecisionName, Recipe

Batch = tuple["Tensor", "Tensor"]
_RECALIBRATION_IMAGES = 2000
_CLOSE = 0.03  # of the standard deviation of an image's scores; what bfloat16 changes is nearly always closer


def accuracy(
    model: nn.Module, images: TrainImages, batch_size: int = 250, *, precision: PrecisionName = "fp32"
) -> float:
    """Top-1 accuracy of `model` in eval mode on `images`, 0 to 1.

    Float32 by default, and no TensorFloat-32 in its place, since this is the figure that is reported and that
    other runtimes must find too.

    Raises:
        DataError: There are no images.
    """
    if len(images) == 0:
        raise DataError("There are no images to measure accuracy on.")
    example, _ = next(images.batches(2))
    exact = products_in_tf32(False, benchmark=torch.backends.cudnn.benchmark)
    with exact if precision == "fp32" else contextlib.nullcontext():
        execution = choose_execution(model, example, precision, "auto", gradients=False)
        batches = ((execution.place(x), y.to(execution.device)) for x, y in images.batches(batch_size))
        return float(right(model, batches, execution).mean())


def mean_loss(model: nn.Module, images: TrainImages, batch_size: int = 250) -> float:
    """Mean cross-entropy of `model` in eval mode on `images`, in float32."""
    example, _ = next(images.batches(2))
    execution = choose_execution(model, example, "fp32", "auto", gradients=False)
    total = 0.0
    with _mode(model, training=False), torch.inference_mode():
        for x, y in images.batches(batch_size):
            scores = logits_of(model(execution.place(x)))
            total += float(functional.cross_entropy(scores, y.to(scores.device), reduction="sum"))
    return total / len(images)


def right(model: nn.Module, batches: Iterable[Batch], execution: Execution) -> NDArray[np.bool_]:
    """Which images of `batches` (already placed) `model` classifies rightly in eval mode: (images,).

    In bfloat16, images whose two highest scores are close are looked at again in float32: rounding decides
    about them, and can shift the accuracy of a network by tenths of a point.
    """
    hits, close, again = [], [], []
    with _mode(model, training=False), torch.inference_mode():
        for images, labels in batches:
            with execution.autocast():
                scores = logits_of(model(images))
            hits.append(scores.argmax(1) == labels)
            if execution.bf16:
                close.append(_close(scores))
                again.append((images[close[-1]], labels[close[-1]]))
        found = torch.cat(hits)
        if close and (unsure := torch.cat(close)).any():  # a network need not take a batch of no images
            found[unsure] = _exactly_right(model, again, len(hits[0]), execution)
    return found.cpu().numpy()


def _close(scores: Tensor) -> Tensor:
    """Of which images (N,) the two highest scores (N, classes) are close."""
    highest = scores.topk(min(2, scores.shape[1]), dim=1).values
    return highest[:, 0] - highest[:, -1] < _CLOSE * scores.std(1)


def _exactly_right(model: nn.Module, some: list[Batch], size: int, execution: Execution) -> Tensor:
    """Which images are classified rightly in float32: (images,)."""
    # Put together: what is left of each batch has a size of its own, and each size has its own kernels.
    images, labels = (torch.cat(part) for part in zip(*some, strict=True))
    parts = zip(torch.split(execution.place(images), size), torch.split(labels, size), strict=True)
    return torch.cat([logits_of(model(x)).argmax(1) == y for x, y in parts])


def recalibrate(model: nn.Module, batches: Iterable[Batch], execution: Execution) -> None:
    """Replace the running statistics of every batch normalisation by those of `batches` (already placed).

    As MetaPruning does for each candidate: statistics that were gathered with other widths are useless. The
    new ones are plain averages over the batches, which should be of one size; dropout stays off.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with _mode(model, training=False), torch.no_grad(), execution.autocast():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
            norm.train()
        for images, _ in batches:
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def recalibrate_on(model: nn.Module, images: TrainImages, recipe: Recipe) -> None:
    """`recalibrate` on a trained network's own images, unaugmented: some thousands, in batches of its recipe.

    Several workers each look at all of them, and so agree.
    """
    norms = any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())
    size = min(recipe.batch_size, len(images))
    count = min(len(images) // size, -(-_RECALIBRATION_IMAGES // size))
    if norms:
        example, _ = next(images.batches(2))
        execution = choose_execution(model, example, "fp32", recipe.channels_last, gradients=False)
        batches = itertools.islice(images.batches(size, shuffle_seed=0), count)
        recalibrate(model, ((execution.place(x), y) for x, y in batches), execution)


@contextlib.contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put `model` into one mode and each of its parts back into its own afterwards."""
    before = [(part, part.training) for part in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode
