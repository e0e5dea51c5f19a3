"""Which class a network names for each image: what accuracies of classes are counted from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

from hwprune.errors import DataError
from hwprune.runtimes.torch_cuda import products_in_tf32
from hwprune.training.precision import choose_execution
from hwprune.training.task import logits_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.training.batches import TrainImages


def predictions(model: nn.Module, images: TrainImages, batch_size: int = 250) -> Tensor:
    """The class that `model`, in eval mode, gives the highest score: int64 (images,), on the CPU.

    In float32, and no TensorFloat-32 in its place: this is what is reported, and what other runtimes find.

    Raises:
        DataError: There are no images.
    """
    if len(images) == 0:
        raise DataError("There are no images to measure accuracy on.")
    example, _ = next(images.batches(min(2, len(images))))
    found = []
    with products_in_tf32(False, benchmark=torch.backends.cudnn.benchmark), torch.inference_mode():
        execution = choose_execution(model, example, "fp32", "auto", gradients=False)
        for batch, _ in images.batches(batch_size):
            found.append(logits_of(model(execution.place(batch))).argmax(1).cpu())
    return torch.cat(found)


def confusion(labels: Tensor, predicted: Tensor) -> tuple[tuple[int, int, int], ...]:
    """(class, class named, images) of all pairs that occur.

    Args:
        labels: Classes, int64 (N,).
        predicted: What a network named, int64 (N,).
    """
    found = Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    return tuple((there, named, images) for (there, named), images in sorted(found.items()))
