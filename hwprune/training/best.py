"""The weights of the epoch that scored best on images which nothing was trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from hwprune.training import workers
from hwprune.training.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from hwprune.training.batches import TrainImages
    from hwprune.training.task import Task


class Best:
    """Keeps the best weights of a training; of equal ones the first.

    Args:
        module: The network.
        images: The images to score on: never test, never what is trained on.
        task: Whose metric is the score.
    """

    prefix = "best/"

    def __init__(self, module: nn.Module, images: TrainImages, task: Task) -> None:
        self._module, self._images, self._task = module, images, task
        self.score, self._weights = -math.inf, self._copied()

    def look(self) -> float:
        """Score the network as it is, and keep its weights if they are the best so far."""
        score = float(workers.share(evaluate(self._module, self._images, task=self._task)))
        if score > self.score:
            self.score, self._weights = score, self._copied()
        return score

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._module.state_dict().items()}

    def put(self) -> None:
        """Put the best weights into the network."""
        self._module.load_state_dict(self._weights)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {**self._weights, "": torch.tensor(self.score, dtype=torch.float64)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self.score = float(tensors[""])
        own = self._module.state_dict()
        self._weights = {name: tensors[name].to(value.device) for name, value in own.items()}
