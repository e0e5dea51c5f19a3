"""Losses: cross-entropy, alone or with knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from hwprune.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.training.settings import Recipe, TrainSettings


class Objective(Protocol):
    """The loss of one batch."""

    def __call__(self, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of `outputs` (N, classes) for `images` (N, C, H, W): a scalar.

        `labels` are those of the images, (N,), or shares of the classes, (N, classes).
        """


def logits_of(output: Any) -> Tensor:
    """The class scores in what a network returned, (N, classes).

    GoogLeNet and Inception return a tuple while training; its first entry is the main classifier's.

    Raises:
        ModelError: The network returned something else.
    """
    found = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ModelError("The model does not return class scores.", got=shape, allowed="(images, classes)")
    return found.float()


def cross_entropy(recipe: Recipe, class_weights: Tensor | None = None) -> Objective:
    """Cross-entropy with the recipe's label smoothing.

    Args:
        recipe: The recipe.
        class_weights: What each class weighs, (classes,), on the device of the outputs; None: all alike.
    """

    def loss(images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs, labels, class_weights, label_smoothing=recipe.label_smoothing
        )

    return loss


def distillation(
    settings: TrainSettings, teacher: nn.Module, class_weights: Tensor | None = None
) -> Objective:
    """Cross-entropy mixed with the divergence from the teacher's outputs (Hinton et al. 2015, section 2).

    The second part is multiplied by the squared temperature, which keeps its gradients at the size of the
    first's.
    """
    hard = cross_entropy(settings, class_weights)
    share, temperature = settings.distill_weight, settings.distill_temperature
    teacher.eval()

    def loss(images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = functional.log_softmax(logits_of(teacher(images)) / temperature, dim=1)
        got = functional.log_softmax(outputs / temperature, dim=1)
        soft = functional.kl_div(got, wanted, reduction="batchmean", log_target=True) * temperature**2
        return (1 - share) * hard(images, outputs, labels) + share * soft

    return loss
