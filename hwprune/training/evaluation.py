"""What a task's metric says of a network, and the recalibration of batch normalisation."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from hwprune.errors import DataError
from hwprune.runtimes.torch_cuda import products_in_tf32
from hwprune.training.batches import TrainImages, as_images
from hwprune.training.precision import Execution, choose_execution
from hwprune.training.task import (
    CLASSIFICATION,
    Task,
    call,
    computed,
    figures_of,
    finite,
    images_in,
    inputs_of,
    loss_of,
    name_of,
    over_a_set,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from torch import nn

    from hwprune.training.settings import PrecisionName, Recipe

_RECALIBRATION_IMAGES = 2000


def evaluate(
    model: nn.Module,
    images: TrainImages | Iterable[Any],
    batch_size: int = 250,
    *,
    task: Task = CLASSIFICATION,
    precision: PrecisionName = "fp32",
) -> float:
    """The metric of `model` in eval mode on `images`: of classification top-1 accuracy, 0 to 1.

    Float32 by default, and no TensorFloat-32 in its place, since this is the figure that is reported and that
    other runtimes must find too.

    Example:
        >>> 0 <= hwprune.evaluate(model, held_out, task=task) <= 1
        True

    Args:
        model: The network.
        images: Images, or a loader of batches.
        batch_size: Images of a batch; a loader decides itself.
        task: Whose metric it is.
        precision: What to compute in.

    Raises:
        DataError: There are no images.
        ModelError: The metric does not give figures, or no finite ones.
    """
    images = as_images(images, task)
    if len(images) == 0:
        raise DataError("There are no images to measure accuracy on.")
    exact = products_in_tf32(False, benchmark=torch.backends.cudnn.benchmark)
    with exact if precision == "fp32" else contextlib.nullcontext():
        execution = choose_execution(model, example(images, task), precision, "auto", gradients=False)
        batches = map(execution.place, images.batches(batch_size))
        return finite(float(figures(model, batches, execution, task).mean(dtype=np.float64)), name_of(task))


def example(images: TrainImages, task: Task, count: int = 2) -> Any:
    """What a network is called with for a batch of a few images."""
    return inputs_of(task, next(images.batches(min(count, len(images)))))


def mean_loss(
    model: nn.Module, images: TrainImages, batch_size: int = 250, *, task: Task = CLASSIFICATION
) -> float:
    """Mean loss of `model` in eval mode on `images`, in float32."""
    execution = choose_execution(model, example(images, task), "fp32", "auto", gradients=False)
    total, seen = 0.0, 0
    with _mode(model, training=False), torch.inference_mode():
        for batch in map(execution.place, images.batches(batch_size)):
            inputs = inputs_of(task, batch)
            total += images_in(inputs) * float(loss_of(task, call(model, inputs), batch))
            seen += images_in(inputs)
    return total / seen


def figures(
    model: nn.Module, batches: Iterable[Any], execution: Execution, task: Task = CLASSIFICATION
) -> NDArray[np.float32]:
    """What a task's metric says of `model` in eval mode on `batches` (already placed).

    In bfloat16, images whose figure rounding may decide (`close` of the task) are looked at again in float32:
    it can shift the accuracy of a network by tenths of a point.

    Returns:
        A figure for each image, (images,); of a metric over a set its one figure, (1,).
    """
    found, close, again = [], [], []
    metric: Any = task.metric
    with _mode(model, training=False), torch.inference_mode():
        if over_a_set(task):
            metric.reset()
        for batch in batches:
            inputs = inputs_of(task, batch)
            with execution.autocast():
                outputs = call(model, inputs)
            if over_a_set(task):
                metric.update(outputs, batch)
                continue
            found.append(figures_of(task, outputs, batch, images_in(inputs)).float())
            if execution.bf16 and hasattr(task, "close"):
                close.append(task.close(outputs))
                again.append(pytree.tree_map(lambda one: one[close[-1]], batch))
        if over_a_set(task):
            return np.array([computed(metric, name_of(task))], dtype=np.float32)
        whole = torch.cat(found)
        if close and (unsure := torch.cat(close)).any():  # a network need not take a batch of no images
            whole[unsure] = _exactly(model, again, len(found[0]), execution, task)
    return whole.cpu().numpy()


def _exactly(model: nn.Module, some: list[Any], size: int, execution: Execution, task: Task) -> torch.Tensor:
    """The figures of some images in float32: (images,)."""
    # Put together: what is left of each batch has a size of its own, and each size has its own kernels.
    whole = execution.place(pytree.tree_map(lambda *parts: torch.cat(parts), *some))
    leaves, form = pytree.tree_flatten(whole)
    found = []
    for parts in zip(*(torch.split(leaf, size) for leaf in leaves), strict=True):
        batch = pytree.tree_unflatten(list(parts), form)
        found.append(figures_of(task, call(model, inputs_of(task, batch)), batch, len(parts[0])).float())
    return torch.cat(found)


def recalibrate(
    model: nn.Module, batches: Iterable[Any], execution: Execution, task: Task = CLASSIFICATION
) -> None:
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
        for batch in batches:
            call(model, inputs_of(task, batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def recalibrate_on(model: nn.Module, images: TrainImages, recipe: Recipe, task: Task) -> None:
    """`recalibrate` on a trained network's own images, unaugmented: some thousands, in batches of its recipe.

    Several workers each look at all of them, and so agree.
    """
    norms = any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())
    size = min(getattr(images, "batch_size", recipe.batch_size), len(images))
    count = min(len(images) // size, -(-_RECALIBRATION_IMAGES // size))
    if norms:
        execution = choose_execution(
            model, example(images, task), "fp32", recipe.channels_last, gradients=False
        )
        batches = itertools.islice(images.batches(size, shuffle_seed=0), count)
        recalibrate(model, map(execution.place, batches), execution, task)


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
