"""Top-1 accuracy, and the recalibration of batch normalisation."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
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
    from hwprune.training.settings import PrecisionName

Batch = tuple["Tensor", "Tensor"]


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


def right(model: nn.Module, batches: Iterable[Batch], execution: Execution) -> NDArray[np.bool_]:
    """Which images of `batches` (already placed) `model` classifies rightly in eval mode: (images,)."""
    found = []
    with _mode(model, training=False), torch.inference_mode(), execution.autocast():
        for images, labels in batches:
            found.append(logits_of(model(images)).argmax(1) == labels)
    return torch.cat(found).cpu().numpy()


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
