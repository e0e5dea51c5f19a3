"""SGD as the paper uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim import SGD

if TYPE_CHECKING:
    from torch import nn

    from hwprune.training.settings import Recipe


def make_sgd(module: nn.Module, recipe: Recipe) -> SGD:
    """SGD over the trainable parameters of `module`, with the recipe's momentum and weight decay."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # Biases, normalisation and PReLU slopes are the vectors of a network; its weights have more axes.
    weights = [p for p in trainable if recipe.decay_all or p.ndim > 1]
    vectors = [p for p in trainable if not recipe.decay_all and p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]
    return SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=all(p.device.type in ("cpu", "cuda") for p in trainable),
    )


def set_learning_rate(optimiser: SGD, lr: float) -> None:
    """Give every parameter group the rate `lr`."""
    for group in optimiser.param_groups:
        group["lr"] = lr
