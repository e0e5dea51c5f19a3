"""Learning rates as a pure function of the step, so there is no scheduler state to store."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwprune.training.settings import Recipe

_RISE = 0.3  # onecycle: share of the run in which the rate rises
_START = 0.04  # onecycle: rate of the first step, as a share of the highest


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Steps of a whole run, one at least; its last epoch may be a part of one."""
    return max(1, round(recipe.epochs * steps_per_epoch))


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of one step.

    Args:
        recipe: Names the schedule: `cosine` and `linear` fall to 0; `step` divides by 10 at 1/4, 1/2 and
            3/4 of the run (MetaPruning's ResNet-50); `onecycle` rises linearly over the first 30 %, then
            falls as a cosine.
        step: Number of the step from the start of the run, from 0.
        steps_per_epoch: Steps of one epoch.
    """
    total = total_steps(recipe, steps_per_epoch)
    if recipe.schedule == "onecycle":
        return recipe.lr * _one_cycle((step + 1) / total)
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    return recipe.lr * _fall(recipe.schedule, (step - warmup) / max(total - warmup, 1))


def _one_cycle(position: float) -> float:
    if position <= _RISE:
        return _START + (1 - _START) * position / _RISE
    return _fall("cosine", (position - _RISE) / (1 - _RISE))


def _fall(schedule: str, position: float) -> float:
    """Share of the highest rate at `position`, which goes from 0 to 1."""
    if schedule == "cosine":
        return (1 + math.cos(math.pi * position)) / 2
    if schedule == "linear":
        return 1 - position
    return float(0.1 ** min(math.floor(4 * position), 3))
