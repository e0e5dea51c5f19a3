"""Loss and gradients of a training step as one CUDA graph.

A small network has hundreds of kernels in a step, each shorter than the time it takes to launch it. A graph
launches them all at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from hwprune.errors import ModelError
from hwprune.training.task import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Pair = tuple[Tensor, Tensor]

_EAGER = 3  # first calls: they pick the kernels, which a graph then keeps


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batch: Any  # what it reads
    found: Pair  # what it writes


class Graphed:
    """What computes loss and gradients, recorded at its fourth call and replayed from then on.

    All calls must be alike: batches of one shape, a network that computes the same for each, parameters whose
    memory is never exchanged, and gradients that are None before the first four calls and the same tensors
    from then on.

    Args:
        gradients: From a batch on a GPU, of any structure, to two scalars; leaves gradients in the
            parameters, and never waits for the GPU.
    """

    def __init__(self, gradients: Callable[[Any], Pair]) -> None:
        self._gradients, self._calls = gradients, 0
        self._stream: torch.cuda.Stream | None = None
        self._recording: _Recording | None = None

    @property
    def recorded(self) -> bool:
        """Whether the gradients are tensors of the graph, which must stay where they are."""
        return self._recording is not None

    def __call__(self, batch: Any) -> Pair:
        """The two scalars of this batch, to be read before the next call.

        Raises:
            ModelError: The step cannot be recorded.
        """
        tensors = tensors_in(batch)
        with torch.cuda.device(tensors[0].device):
            if self._recording is None and self._calls < _EAGER:
                self._calls += 1
                return self._beside(batch)
            if self._recording is None:
                self._recording = self._record(pytree.tree_map(_copied, batch))
            graph, own, found = self._recording
            for kept, new in zip(tensors_in(own), tensors, strict=True):
                kept.copy_(new)
            graph.replay()
            return found

    def _beside(self, batch: Any) -> Pair:
        """On a stream of its own, as the calls before a recording have to be."""
        here = torch.cuda.current_stream()
        self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            found = self._gradients(batch)
        here.wait_stream(self._stream)
        return found

    def _record(self, batch: Any) -> _Recording:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                found = self._gradients(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(
                "A training step of this network cannot be recorded as a CUDA graph.",
                got=str(error).partition("\n")[0],
                allowed="steps that compute the same each time and read nothing back from the GPU",
                do="set cuda_graph = false under [compute]",
            ) from error
        return _Recording(graph, batch, found)


def _copied(leaf: Any) -> Any:
    return leaf.clone() if hasattr(leaf, "clone") else leaf
