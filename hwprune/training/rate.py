"""A learning rate for trained weights, by a short range test."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import ModelError
from hwprune.training.batches import LoaderImages
from hwprune.training.evaluation import mean_loss
from hwprune.training.loop import train
from hwprune.training.task import CLASSIFICATION, Task

if TYPE_CHECKING:
    from torch import nn

    from hwprune.data.images import Images
    from hwprune.training.settings import TrainSettings

RATES = {"sgd": (0.06, 0.02, 0.006), "adamw": (0.002, 0.0006, 0.0002)}
_SHARE = 0.01  # of all steps, that each rate is tried for
_LEAST = 8  # steps
_MOST = 0.15  # of all steps, for all rates together; with fewer than `_LEAST` for each there is no test
_CLOSE = 1.03  # of the lowest loss: among these the highest rate, since short runs favour low ones


def find_rate(
    model: nn.Module,
    images: Images | LoaderImages,
    settings: TrainSettings,
    *,
    seed: int = 0,
    teacher: nn.Module | None = None,
    task: Task | None = None,
    rates: tuple[float, ...] = (),
) -> tuple[float, float]:
    """The highest of some learning rates that lowers the loss about as fast as the best of them.

    Each rate trains a copy of the network for a small share of the run, with the run's own schedule squeezed
    into it; then the loss is taken on other images.

    Args:
        model: The network with its trained weights; it is not modified.
        images: The training images.
        settings: The recipe of the run.
        seed: Fixes the images.
        teacher: As in `train`.
        task: As in `train`.
        rates: What to try, the highest first; by default what suits the optimiser.

    Returns:
        The rate, and what the test cost in epochs: the one in the middle and 0 where the run is too short
        for a test, the lowest where all diverge.
    """
    rates = rates or RATES[settings.optimiser]
    batch = min(getattr(images, "batch_size", settings.batch_size), len(images))
    run = settings.epochs * len(images) / batch  # its steps
    if _MOST * run < _LEAST * len(rates):
        return rates[len(rates) // 2], 0.0
    # An average of few steps lags behind, and measuring the faster precision would take as many steps.
    precision = "fp32" if settings.precision == "auto" else settings.precision
    settings = replace(settings, epochs=1, keep="last", ema=0.0, precision=precision)
    steps = max(_LEAST, round(_SHARE * run))
    steps = min(steps, max(1, len(images) // (2 * batch)))  # half of the images at most
    some, others = _two_parts(images, steps * batch, 4 * batch, seed)
    losses = []
    for rate in rates:
        trial = copy.deepcopy(model)
        try:
            train(trial, some, replace(settings, lr=rate), task=task, seed=seed, teacher=teacher)
            losses.append(mean_loss(trial, others, task=task or CLASSIFICATION))
        except ModelError:  # it diverged
            losses.append(math.inf)
    limit = min(losses) * _CLOSE
    good = [rate for rate, loss in zip(rates, losses, strict=True) if loss <= limit < math.inf]
    chosen = good[0] if good else rates[-1]
    seen = len(rates) * (len(some) + len(others) / 3)  # a forward pass is a third of a step
    return chosen, seen / len(images)


def _two_parts(images: Any, some: int, others: int, seed: int) -> tuple[Any, Any]:
    """Two disjoint parts of the images, of about so many."""
    if isinstance(images, LoaderImages):
        whole, first = images.some(some + others), max(1, some // images.batch_size)
        rest = whole[first:] or whole
        return LoaderImages(whole[:first], images.task), LoaderImages(rest, images.task)
    order = np.random.default_rng((seed, 1)).permutation(len(images))
    return images.subset(order[:some]), images.subset(order[some:][:others])
