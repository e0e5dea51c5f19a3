"""`Scorer`: the score of any network of a space, from weights, a task and a loader."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from hwprune.errors import UsageError
from hwprune.pruningnet.evaluate import Evaluator, Supernet
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import CHANCE, Racer
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.training.batches import as_images
from hwprune.training.task import CLASSIFICATION, Task, check_task, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from hwprune.structure.space import Widths


_RECALIBRATION = 400  # images


class Scorer(Racer):
    """Says how good networks of a space are: what a search raises.

    Each network is made from the weights, its batch normalisation recalibrated, and judged by the task's
    metric on all batches of the loader. What was scored once is remembered. Where each image has a figure,
    networks may be raced: those that will not be among the best are judged on some of the batches.

    Example:
        >>> score = hwprune.Scorer(hwprune.Inherited(model, space, loader), task, held_out)
        >>> score(space.full()) > score(space.smallest())
        True

    Args:
        weights: `Inherited`, or a trained `PruningNet`.
        task: Whose metric is the score; classification by default.
        loader: Batches to score on, which nothing was trained on. Where each image has a figure they should
            lie in a random order, for a race looks at some of them.
        training: Batches of training images, for batch normalisation; None takes those of `loader`, whose
            labels it does not look at.
        settings: How many images batch normalisation takes, and the precision.
        seed: Fixes the order of the batches.
        race: Whether networks may be judged on a part.

    Raises:
        UsageError: The weights are those of an ordinary network, or the task is none.
        DataError: The loader is empty, or has no length.
    """

    def __init__(
        self,
        weights: Supernet,
        task: Task = CLASSIFICATION,
        loader: Iterable[Any] = (),
        *,
        training: Iterable[Any] | None = None,
        settings: PruningNetSettings | None = None,
        seed: int = 0,
        race: bool = True,
    ) -> None:
        check_task(task)
        if not hasattr(weights, "materialise"):
            raise UsageError(
                "These weights make no networks.",
                where="weights",
                got=type(weights).__name__,
                allowed="Inherited or PruningNet",
                do="write Scorer(Inherited(model, space, loader), ...)",
            )
        self._weights: Any = weights
        held_out: Any = as_images(loader, task)
        some: Any = held_out if training is None else as_images(training, task)
        settings = settings or PruningNetSettings(recalibration_images=_RECALIBRATION)
        evaluator = Evaluator(weights, some, held_out, settings, seed=seed, task=task)
        super().__init__(evaluator, Outcomes(evaluator.stops), chance=CHANCE if race else 0.0)

    @property
    def name(self) -> str:
        """What the metric is called."""
        return name_of(self.judge.task)

    def fingerprint(self) -> str:
        """Stands for weights and task: a search that is kept belongs to them."""
        found = hashlib.sha256(f"{type(self.judge.task).__qualname__} {self.name}".encode())
        for name, tensor in self._weights.state_dict().items():
            found.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def network(self, widths: Widths) -> nn.Module:
        """The network of `widths` as it is scored, to be trained on: an ordinary module in eval mode."""
        return self.judge.network(widths)
