"""Loss and gradients of a training step as one CUDA graph.

A small network has hundreds of kernels in a step, each shorter than the time it takes to launch it. A graph
launches them all at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_EAGER = 3  # first calls: they pick the kernels, which a graph then keeps


class Graphed:
    """What computes loss and gradients, recorded at its fourth call and replayed from then on.

    All calls must be alike: batches of one shape, a network that computes the same for each, and gradients
    that are None before the first four calls and the same tensors from then on.

    Args:
        gradients: From images (N, C, H, W) and labels (N,), both on a GPU, to two scalars; leaves gradients
            in the parameters, and never waits for the GPU.
    """

    def __init__(self, gradients: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        self._gradients, self._calls = gradients, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def recorded(self) -> bool:
        """Whether the gradients are tensors of the graph, which must stay where they are."""
        return self._graph is not None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The two scalars of this batch, to be read before the next call."""
        if self._graph is None and self._calls < _EAGER:
            self._calls += 1
            return self._beside(images, labels)
        if self._graph is None:
            self._graph = self._recorded(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._found

    def _beside(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """On a stream of its own, as the calls before a recording have to be."""
        here, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            found = self._gradients(images, labels)
        here.wait_stream(stream)
        return found

    def _recorded(self, images: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph:
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._found = self._gradients(self._images, self._labels)
        return graph
