"""SGD as the paper uses it, with no more memory than it needs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD

from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from hwprune.training.settings import Recipe

_LARGE = 2**25  # parameters from which their gradients, 128 MB and more, are worth saving


class Optimiser:
    """SGD over the trainable parameters of a network, with the recipe's momentum and weight decay.

    The gradients of a large network (the paper's PruningNet of ResNet-50 has 3.1 GB of them) are never held
    together: each parameter takes its step inside the backward pass, as soon as its gradient is there, and
    the gradient is freed. The steps are the same; smaller networks take them all at once, which costs less
    time. Of several workers, each then hands in the gradient of its part of the loss, and all take the step
    of the sum; in smaller networks `training.parallel` sees to that.

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
        # Sums over the workers under way: one, so that it travels while the next gradient is computed.
        self._sums: deque[tuple[Tensor, Callable[[], object]]] = deque()
        self._most_sums = 1 if workers.world() > 1 else 0
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
        if parameter.grad is not None:  # it is there, for this is called when it is complete
            self._sums.append((parameter, workers.begin_sum(parameter.grad)))
            self._finish_sums(self._most_sums)

    def _finish_sums(self, left: int) -> None:
        while len(self._sums) > left:
            parameter, wait = self._sums.popleft()
            wait()
            part = self._part_of[parameter]
            part.step()
            part.zero_grad()

    def step(self, loss: Tensor, lr: float) -> None:
        """Take one step down the gradient of `loss` at the learning rate `lr`."""
        self._rate(lr)
        loss.backward()  # type: ignore[no-untyped-call]
        self._finish_sums(0)
        if not self.in_backward:
            self.update(lr)

    def update(self, lr: float, *, keep: bool = False) -> None:
        """Take one step down the gradients that are there, at the learning rate `lr`.

        Args:
            lr: The learning rate.
            keep: Leave the gradients where they are; by default they are dropped.
        """
        self._rate(lr)
        for part in self._parts:
            self._begin_momentum(part)
            part.step()
            if not keep:
                part.zero_grad()

    def _begin_momentum(self, part: SGD) -> None:
        """Give parameters that first get a gradient after others did, as in blocks left out, a momentum."""
        if part.state and self._recipe.momentum:
            for parameter in (p for group in part.param_groups for p in group["params"]):
                if parameter.grad is not None and parameter not in part.state:
                    part.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)

    def _rate(self, lr: float) -> None:
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr

    def close(self) -> None:
        """Leave the network alone, and without gradients: others' backward passes take no more steps."""
        for hook in self._hooks:
            hook.remove()
        for part in self._parts:
            part.zero_grad()

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
