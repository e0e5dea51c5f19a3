"""Torch-Pruning by magnitude or Taylor; it removes channels, never blocks."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_pruning
from comparison_cases import BUDGETS
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison_setup import Setup

    from hwprune.structure.space import Widths

TAYLOR_BATCHES, TAYLOR_IMAGES = 8, 128
RATIOS = np.linspace(0.02, 0.98, 49)


class TorchPruning:
    """The base network pruned by Torch-Pruning, globally and at once.

    Args:
        setup: Images and latency.
        base: The trained base network.
        kind: `magnitude` or `taylor`.
    """

    def __init__(self, setup: Setup, base: nn.Module, kind: str) -> None:
        self.setup, self.base = setup, copy.deepcopy(base).cpu()
        self.gradients = _gradients(setup, base) if kind == "taylor" else []

    def chosen(self) -> dict[str, Any]:
        """For each budget what its user would take: a ratio, a rounding, and the widths they give."""
        tried = self.tried()
        return {name: gentlest(self.setup, tried, budget) for name, budget in BUDGETS.items()}

    def tried(self) -> list[tuple[float, int, Widths]]:
        """Every ratio with every rounding, and the widths they give."""
        settings = itertools.product(RATIOS.tolist(), self.setup.case.roundings)
        return [(ratio, step, self.network(ratio, step)[1]) for ratio, step in settings]

    def network(self, ratio: float, step: int) -> tuple[nn.Module, Widths]:
        """A pruned copy, by Taylor importance when there are gradients, else by magnitude; and its widths."""
        model = copy.deepcopy(self.base)
        if self.gradients:
            for parameter, gradient in zip(model.parameters(), self.gradients, strict=True):
                parameter.grad = gradient.clone()
        importances = torch_pruning.importance
        magnitude = importances.GroupMagnitudeImportance(p=2)
        pruner = torch_pruning.pruner.BasePruner(
            model,
            torch.zeros(1, *self.setup.space.input_shape[1:]),
            importance=importances.GroupTaylorImportance() if self.gradients else magnitude,
            global_pruning=True,
            pruning_ratio=ratio,
            max_pruning_ratio=0.9,
            ignored_layers=[part for part in model.modules() if isinstance(part, nn.Linear)],
            round_to=step,
        )
        pruner.step()
        model.zero_grad()
        modules, space = dict(model.named_modules()), self.setup.space
        gates = (block.width for block in space.blocks)
        return model, (*(_width(modules[group.name]) for group in space.groups), *gates)


def gentlest(
    setup: Setup, tried: Sequence[tuple[float, int, Widths]], budget: float
) -> dict[str, Any] | None:
    """Of each rounding the lowest ratio that is within the budget, and of these the one of most MACs.

    Higher ratios can have more MACs at that latency, in a few layers that were left wide: networks that
    nobody would take. None if nothing is within the budget.
    """
    shares = setup.shares([widths for _, _, widths in tried])
    lowest: dict[int, tuple[float, int, Widths]] = {}
    for one, share in zip(tried, shares, strict=True):
        if share <= budget and (one[1] not in lowest or one[0] < lowest[one[1]][0]):
            lowest[one[1]] = one
    if not lowest:
        return None
    ratio, step, widths = max(lowest.values(), key=lambda one: int(setup.space.macs(one[2])))
    return {"ratio": ratio, "step": step, "widths": list(widths)}


def _gradients(setup: Setup, base: nn.Module) -> list[torch.Tensor]:
    """Gradients of the loss on a fixed part of the training images, which Taylor importance reads."""
    count = TAYLOR_BATCHES * TAYLOR_IMAGES
    some = setup.train.subset(np.random.default_rng(0).permutation(len(setup.train))[:count])
    base.zero_grad()
    for images, labels in some.batches(TAYLOR_IMAGES):
        scores = base(images.to(setup.device))
        functional.cross_entropy(scores, labels.to(setup.device)).backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in base.parameters()]
    base.zero_grad()
    return [gradient.cpu() for gradient in found]


def _width(module: nn.Module) -> int:
    """Channels that a module puts out; a batch normalisation stands for a depthwise convolution's."""
    return int(module.out_channels if isinstance(module, nn.Conv2d) else module.num_features)
