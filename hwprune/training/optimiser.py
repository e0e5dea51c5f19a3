"""SGD as the paper uses it, with no more memory than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim import SGD

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.training.settings import Recipe

_LARGE = 2**25  # parameters from which their gradients, 128 MB and more, are worth saving


class Optimiser:
    """SGD over the trainable parameters of a network, with the recipe's momentum and weight decay.

    The gradients of a large network (the paper's PruningNet of ResNet-50 has 3.1 GB of them) are never held
    together: each parameter takes its step inside the backward pass, as soon as its gradient is there, and
    the gradient is freed. The steps are the same; smaller networks take them all at once, which costs less
    time.

    Args:
        module: The network.
        recipe: Momentum, weight decay, first learning rate.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.in_backward = sum(parameter.numel() for parameter in trainable) >= _LARGE
        self._recipe = recipe
        for parameter in trainable:
            parameter.grad = None  # what somebody else left there is not part of the first step
        parts = [[parameter] for parameter in trainable] if self.in_backward else [trainable]
        self._parts = [self._sgd(part) for part in parts if part]
        self._part_of = {
            parameter: part
            for part in self._parts
            for group in part.param_groups
            for parameter in group["params"]
        }
        hooked = trainable if self.in_backward else []
        self._hooks = [p.register_post_accumulate_grad_hook(self._step_one) for p in hooked]  # type: ignore[no-untyped-call]

    def _sgd(self, parameters: list[nn.Parameter]) -> SGD:
        recipe = self._recipe
        # Biases, normalisation and PReLU slopes are the vectors of a network; its weights have more axes.
        weights = [p for p in parameters if recipe.decay_all or p.ndim > 1]
        vectors = [p for p in parameters if not recipe.decay_all and p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]
        return SGD(
            [group for group in groups if group["params"]],
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
        )

    def _step_one(self, parameter: Tensor) -> None:
        part = self._part_of[parameter]
        part.step()
        part.zero_grad()

    def step(self, loss: Tensor, lr: float) -> None:
        """Take one step down the gradient of `loss` at the learning rate `lr`."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr
        loss.backward()  # type: ignore[no-untyped-call]
        if not self.in_backward:
            for part in self._parts:
                part.step()
                part.zero_grad()

    def close(self) -> None:
        """Leave the network alone: a backward pass of somebody else takes no more steps."""
        for hook in self._hooks:
            hook.remove()

    def momentum(self, parameter: Tensor) -> Tensor | None:
        """The momentum of a parameter; None before its first step."""
        part = self._part_of.get(parameter)
        found: Tensor | None = (
            part.state[parameter].get("momentum_buffer") if part and parameter in part.state else None
        )
        return found

    def set_momentum(self, parameter: Tensor, value: Tensor) -> None:
        """Go on from a momentum that `momentum` gave."""
        self._part_of[parameter].state[parameter]["momentum_buffer"] = value
