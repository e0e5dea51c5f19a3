"""An exponential moving average of the weights, which is what a training gives in the end."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn


class Average:
    """The average of a network's parameters, and of its statistics, over the steps of a training.

    Args:
        module: The network.
        decay: Share of the average that a step keeps; less at the beginning, (1 + n) / (10 + n) after n
            steps, or the untrained weights would count long after.
    """

    prefix = "average/"

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay, self.updates = module, decay, 0

    @functools.cached_property
    def _own(self) -> dict[str, Tensor]:
        """The network's tensors, taken when first needed: a run may lay them out anew at its start."""
        state = self._module.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}

    @functools.cached_property
    def _average(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._own.items()}

    def update(self) -> None:
        """Take the weights after a step into the average."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self._average.values()), list(self._own.values()), None)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Put the average into the network, for as long as this is open."""
        before = {name: value.detach().clone() for name, value in self._own.items()}
        self.put()
        try:
            yield
        finally:
            self._copy(before)

    def put(self) -> None:
        """Put the average into the network."""
        self._copy(self._average)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self._own.items():
            value.copy_(values[name])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {**self._average, "": torch.tensor(self.updates)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self.updates = int(tensors[""])
        for name, value in self._average.items():
            value.copy_(tensors[name])
