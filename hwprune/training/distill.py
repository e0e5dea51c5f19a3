"""Knowledge distillation: a task whose loss also asks for the outputs of a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hwprune.errors import ModelError
from hwprune.training.task import call, inputs_of, loss_of, soft_targets, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.training.settings import TrainSettings
    from hwprune.training.task import Task


class Distilled:
    """A task mixed with the distance from a teacher's outputs.

    Args:
        task: The task itself.
        teacher: The network to learn from; it is put into eval mode.
        settings: Share of the distance in the loss, and the temperature of the default distance.
    """

    def __init__(self, task: Task, teacher: nn.Module, settings: TrainSettings) -> None:
        self.task, self.teacher = task, teacher.eval()
        self.metric, self.name = task.metric, getattr(task, "name", "")
        self._share, self._temperature = settings.distill_weight, settings.distill_temperature

    def inputs(self, batch: Any, /) -> Any:
        """Those of the task."""
        return inputs_of(self.task, batch)

    def loss(self, outputs: Any, batch: Any, /) -> Tensor:
        """The task's loss and the distance, by their shares."""
        with torch.no_grad():
            wanted = call(self.teacher, self.inputs(batch))
        own = getattr(self.task, "distill", None)
        apart = own(outputs, wanted, batch) if own else distance(outputs, wanted, batch, self._temperature)
        return (1 - self._share) * loss_of(self.task, outputs, batch) + self._share * apart


def distance(outputs: Any, teacher_outputs: Any, batch: Any, temperature: float = 4.0) -> Tensor:
    """How far outputs of any structure are from a teacher's: the mean over their tensors.

    Class scores, of whatever spatial size, by the divergence of softened scores (`soft_targets`): those are
    tensors (N, C, ...) for which the batch holds class numbers, integers (N, ...), as cross-entropy takes
    them. All else, such as regression and heads of detectors, by the mean squared difference, as a share of
    the variance of the teacher's tensor.

    Raises:
        ModelError: The two are not of the same structure, or hold no floats.
    """
    pairs = list(zip(tensors_in(outputs), tensors_in(teacher_outputs), strict=False))
    same = len(tensors_in(outputs)) == len(tensors_in(teacher_outputs))
    if not pairs or not same or any(a.shape != b.shape for a, b in pairs):
        shapes = [[tuple(one.shape) for one in tensors_in(side)] for side in (outputs, teacher_outputs)]
        raise ModelError(
            "The teacher's outputs have another form than the network's.",
            where="distillation",
            got=f"{shapes[1]} for {shapes[0]}",
            do="write `distill(outputs, teacher_outputs, batch)` in the task; teachers are in eval mode",
        )
    found = [
        soft_targets(a.float(), b.float(), temperature) if _are_scores(a, batch) else _apart(a, b)
        for a, b in pairs
        if a.is_floating_point()
    ]
    return torch.stack(found).mean()


def _are_scores(outputs: Tensor, batch: Any) -> bool:
    """Whether the batch holds class numbers for these outputs."""
    wanted = (*outputs.shape[:1], *outputs.shape[2:])
    return outputs.ndim > 1 and any(
        one.dtype == torch.int64 and tuple(one.shape) == wanted for one in tensors_in(batch)
    )


def _apart(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference, as a share of the variance of what is wanted."""
    wanted = wanted.float()
    return (outputs.float() - wanted).square().mean() / wanted.var(correction=0).clamp(min=1e-6)
