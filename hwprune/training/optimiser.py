"""SGD as the paper uses it, and AdamW, with no more memory than they need."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD, AdamW, Optimizer

from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from hwprune.training.settings import Recipe

_SQUARES = 0.999  # AdamW's decay of the mean of squared gradients
_STATE = ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")  # what the optimisers keep of a parameter
_LARGE = 2**25  # parameters from which their gradients, 128 MB and more, are worth saving


class Optimiser:
    """SGD or AdamW over the trainable parameters of a network, with the recipe's momentum and weight decay.

    The gradients of a large network (the paper's PruningNet of ResNet-50 has 3.1 GB of them) are never held
    together: each parameter takes its step inside the backward pass, as soon as its gradient is there, and
    the gradient is freed. The steps are the same; smaller networks take them all at once, which costs less
    time. Of several workers, each then hands in the gradient of its part of the loss, and all take the step
    of the sum; in smaller networks `training.parallel` sees to that. A recipe that clips the norm of all
    gradients needs them all, so they are held then.

    Args:
        module: The network.
        recipe: Which optimiser; momentum, weight decay, first learning rate, norm of the gradients.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        large = sum(parameter.numel() for parameter in trainable) >= _LARGE
        self.in_backward = large and not recipe.clip_norm
        self._recipe, self._trainable = recipe, trainable
        for parameter in trainable:
            parameter.grad = None  # what somebody else left there is not part of the first step
        parts = [[parameter] for parameter in trainable] if self.in_backward else [trainable]
        self._parts = [self._optimiser(part) for part in parts if part]
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

    def _optimiser(self, parameters: list[nn.Parameter]) -> Optimizer:
        recipe = self._recipe
        # Biases, normalisation and PReLU slopes are the vectors of a network; its weights have more axes.
        weights = [p for p in parameters if recipe.decay_all or p.ndim > 1]
        vectors = [p for p in parameters if not recipe.decay_all and p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]
        used = [group for group in groups if group["params"]]
        common: dict[str, Any] = {
            "lr": recipe.lr,
            "weight_decay": recipe.weight_decay,
            "fused": all(p.device.type in ("cpu", "cuda") for p in parameters),
        }
        if recipe.optimiser == "adamw":
            return AdamW(used, betas=(recipe.momentum, _SQUARES), **common)
        return SGD(used, momentum=recipe.momentum, nesterov=recipe.nesterov, **common)

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
        if self._recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._trainable, self._recipe.clip_norm)
        for part in self._parts:
            self._begin_momentum(part)
            part.step()
            if not keep:
                part.zero_grad()

    def _begin_momentum(self, part: Optimizer) -> None:
        """Give parameters that first get a gradient after others did, as in blocks left out, a momentum."""
        if isinstance(part, SGD) and part.state and self._recipe.momentum:
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

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What is kept of a parameter between steps, such as its momentum; empty before its first."""
        part = self._part_of.get(parameter)
        kept = part.state[parameter] if part and parameter in part.state else {}
        return {name: kept[name] for name in _STATE if kept.get(name) is not None}

    def set_state(self, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        kept = self._part_of[parameter].state[parameter]
        for name, value in state.items():
            # In the parameter's own memory layout, else the next steps would not be bit-equal.
            own = parameter if value.ndim else value
            kept[name] = torch.empty_like(own, device=parameter.device, requires_grad=False).copy_(value)
