"""One network on several workers: each runs its part of a batch, and their gradients are averaged."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hwprune.training import workers
from hwprune.training.task import Task, call, figures_of, images_in, inputs_of, loss_of, over_a_set

if TYPE_CHECKING:
    from torch import Tensor

_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC = "forward_sync_buffers" if _RENAMED else "broadcast_buffers"  # the name in torch 2.14, and earlier


class Step(nn.Module):
    """What a training step computes of a batch: its loss, and the sum of its figures.

    Both are made in here, for DDP would wait for the gradients of outputs that the loss does not use.

    Args:
        net: The network.
        task: What it is trained for.
    """

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net = net
        self.task = (task,)  # in a tuple: a teacher in it is no part of this module

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the sum of the images' figures, 0 of a metric over a set: two scalars."""
        (task,) = self.task
        inputs = inputs_of(task, batch)
        outputs = call(self.net, inputs)
        loss = loss_of(task, outputs, batch)
        if over_a_set(task):
            return loss, torch.zeros((), dtype=torch.float64, device=loss.device)
        with torch.no_grad():
            return loss, figures_of(task, outputs, batch, images_in(inputs)).sum(dtype=torch.float64)


def data_parallel(module: nn.Module, step: Step, *, in_backward: bool) -> nn.Module:
    """Make `module` the same on all workers, and what a training step calls on each.

    Args:
        module: The network.
        step: What is computed with it.
        in_backward: Whether the optimiser steps inside the backward pass. Then it also sums the gradients:
            `DistributedDataParallel` would keep all of them in its buckets, and have them averaged only at
            the end of the pass, which is the memory that these steps are there to save.

    Returns:
        A module that computes `step`.
    """
    if workers.world() == 1:
        return step
    if in_backward:
        _copy_from_first(module)
        return step
    # Not all networks use all parameters in each step; those that do pay little for the question. Running
    # statistics stay each worker's own until `average_statistics`.
    options: dict[str, Any] = {_SYNC: False, "find_unused_parameters": True, "gradient_as_bucket_view": True}
    return DistributedDataParallel(step, **options)


@torch.no_grad()
def _copy_from_first(module: nn.Module) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor, 0)


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Give all workers the mean of their running statistics, each of which saw a part of the images."""
    if workers.world() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(workers.summed(buffer) / workers.world())
