"""One network on several workers: each runs its part of a batch, and their gradients are averaged."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hwprune.training import workers
from hwprune.training.distill import logits_of

if TYPE_CHECKING:
    from torch import Tensor

_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC = "forward_sync_buffers" if _RENAMED else "broadcast_buffers"  # the name in torch 2.14, and earlier


class Scores(nn.Module):
    """The class scores of a network alone: further outputs get no gradient, and DDP would wait for it.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Scores: (N, C, H, W) -> (N, classes)."""
        return logits_of(self.net(images))


def data_parallel(module: nn.Module, *, in_backward: bool) -> nn.Module:
    """Make `module` the same on all workers, and what a training step calls on each.

    Args:
        module: The network.
        in_backward: Whether the optimiser steps inside the backward pass. Then it also sums the gradients:
            `DistributedDataParallel` would keep all of them in its buckets, and have them averaged only at
            the end of the pass, which is the memory that these steps are there to save.

    Returns:
        A module from images to class scores, which shares all tensors of `module`.
    """
    scores = Scores(module)
    if workers.world() == 1:
        return scores
    if in_backward:
        _copy_from_first(module)
        return scores
    # Not all networks use all parameters in each step; those that do pay little for the question. Running
    # statistics stay each worker's own until `average_statistics`.
    options: dict[str, Any] = {_SYNC: False, "find_unused_parameters": True, "gradient_as_bucket_view": True}
    return DistributedDataParallel(scores, **options)


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
