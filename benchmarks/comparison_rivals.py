"""What people would do in place of a search: uniform widths, and Torch-Pruning by magnitude or Taylor."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch_pruning
from torch.nn import functional

if TYPE_CHECKING:
    from comparison_setup import Setup
    from torch import nn

    from hwprune.structure.space import Widths

ROUNDINGS = (16, 8)  # channel steps of the device: with AVX-512, and half of it
TAYLOR_BATCHES, TAYLOR_IMAGES = 8, 128
RATIOS = np.linspace(0.02, 0.98, 49)


def uniform(setup: Setup, budget: float) -> Widths:
    """The uniform network of most MACs within the budget.

    All groups of one full width get one width: the same share of it, rounded to a step of the device. Each
    may round up or down, and the best of all combinations is taken; one rule of rounding would leave a part
    of the budget unused.
    """
    best: Widths = setup.space.smallest()
    fulls = sorted({group.width for group in setup.space.groups})
    for ratio, step in itertools.product(np.linspace(0.1, 1.0, 91), ROUNDINGS):
        for up in itertools.product((False, True), repeat=len(fulls)):
            kept = {f: _rounded(f, ratio, step, high) for f, high in zip(fulls, up, strict=True)}
            widths = tuple(kept[group.width] for group in setup.space.groups)
            if setup.share(widths) <= budget and setup.space.macs(widths) > setup.space.macs(best):
                best = widths
    return best


def _rounded(full: int, ratio: float, step: int, up: bool) -> int:
    steps = ratio * full / step
    return min(full, max(step, step * int(np.ceil(steps) if up else np.floor(steps))))


def torch_pruning_network(
    setup: Setup, base: nn.Module, budget: float, kind: str
) -> tuple[nn.Module, Widths]:
    """The base network pruned by Torch-Pruning, globally and at once, to the most MACs within the budget.

    Args:
        setup: Images and latency.
        base: The trained base network.
        budget: Share of its latency.
        kind: `magnitude` or `taylor`.
    """
    gradients = _gradients(setup, base) if kind == "taylor" else []
    found = []
    for ratio, step in itertools.product(RATIOS, ROUNDINGS):
        widths = _widths(setup, _pruned(setup, base, float(ratio), step, gradients))
        if setup.share(widths) <= budget:
            found.append((int(setup.space.macs(widths)), -float(ratio), step, widths))
    _, negative, step, widths = max(found)
    return _pruned(setup, base, -negative, step, gradients), widths


def _pruned(
    setup: Setup, base: nn.Module, ratio: float, step: int, gradients: list[torch.Tensor]
) -> nn.Module:
    """A pruned copy: by Taylor importance when there are gradients, else by magnitude."""
    model = copy.deepcopy(base)
    if gradients:
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
    importances = torch_pruning.importance
    magnitude = importances.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, *setup.space.input_shape[1:]),
        importance=importances.GroupTaylorImportance() if gradients else magnitude,
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        ignored_layers=[model.fc],
        round_to=step,
    )
    pruner.step()
    model.zero_grad()
    return model


def _gradients(setup: Setup, base: nn.Module) -> list[torch.Tensor]:
    """Gradients of the loss on a fixed part of the training images, which Taylor importance reads."""
    count = TAYLOR_BATCHES * TAYLOR_IMAGES
    some = setup.train.subset(np.random.default_rng(0).permutation(len(setup.train))[:count])
    base.zero_grad()
    for images, labels in some.batches(TAYLOR_IMAGES):
        functional.cross_entropy(base(images), labels).backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in base.parameters()]
    base.zero_grad()
    return found


def _widths(setup: Setup, model: nn.Module) -> Widths:
    """Widths of a pruned network, one for each channel group."""
    modules = dict(model.named_modules())
    return tuple(int(modules[group.name].out_channels) for group in setup.space.groups)
