"""Scoring one candidate with `Evaluator`, and as published, for `pruningnet_speed.py`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from hwprune.data.datasets import open_data
from hwprune.data.splits import split
from hwprune.models.resnet_cifar import resnet20
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.modules import PrunableBatchNorm2d
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hwprune.structure.space import Widths

RECALIBRATION, RECALIBRATION_BATCH = 2_000, 100
VALIDATION, BATCH = 10_000, 1_000
SCORED = 6


class PerBatch:
    """The published procedure on hwprune's PruningNet.

    The weights are generated for every batch, the images read for every candidate, in float32.

    But for the running statistics: plain averages, as hwprune takes them. The published momentum of 0.1 keeps
    a tenth of the initial values after 20 batches.
    """

    def __init__(self, net: PruningNet, recalibration: Any, validation: Any) -> None:
        self.net, self.recalibration, self.validation = net, recalibration, validation
        self.norms = [m for m in net.modules() if isinstance(m, PrunableBatchNorm2d)]
        self.momentum = 1.0
        for norm in self.norms:
            norm.forward = self._running(norm)  # type: ignore[method-assign]

    @torch.no_grad()
    def __call__(self, widths: Widths) -> float:
        """Top-1 of the network of `widths`."""
        self.net.set_widths(widths)
        self.net.train()
        for number, (images, _) in enumerate(self.recalibration.batches(RECALIBRATION_BATCH)):
            self.momentum = 1 / (number + 1)
            self.net(images)
        self.net.eval()
        right = 0
        for images, labels in self.validation.batches(BATCH):
            right += int((self.net(images).argmax(1) == labels).sum())
        return right / len(self.validation)

    def _running(self, norm: PrunableBatchNorm2d) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            mean, variance = norm.optional("running_mean"), norm.optional("running_var")
            weight, bias = norm.optional("weight"), norm.optional("bias")
            training = norm.training
            return functional.batch_norm(x, mean, variance, weight, bias, training, self.momentum, norm.eps)

        return forward


def scored_as_published(data: Path) -> dict[str, Any]:
    """Seconds to score one candidate of ResNet-20 on CIFAR-10, both ways, in turns; and their accuracies."""
    dataset = open_data(f"parquet:{data}")
    splits = split(dataset, images=VALIDATION)
    model = resnet20(10)
    space = trace(model, torch.zeros(1, 3, 32, 32))
    settings = PruningNetSettings(epochs=1, recalibration_images=RECALIBRATION, lr=0.1)
    nets = []
    for _ in range(2):  # two of the same, for one of them gets other batch norms
        torch.manual_seed(0)
        net = PruningNet(model, space, "fc")
        fit(net, splits.sub_train.subset(range(12_800)), None, settings)
        nets.append(net)
    ours = Evaluator(nets[0], splits.sub_train, splits.sub_val, settings)
    drawn = np.random.default_rng(0).permutation(len(splits.sub_train))[:RECALIBRATION]
    theirs = PerBatch(nets[1], splits.sub_train.subset(np.sort(drawn)), splits.sub_val)
    exact = Evaluator(nets[0], splits.sub_train, splits.sub_val, replace(settings, precision="fp32"))
    scores: dict[str, Callable[[Widths], float]] = {
        "hwprune": ours,
        "hwprune_fp32": exact,
        "published": theirs,
    }
    times: dict[str, list[float]] = {name: [] for name in scores}
    found: dict[str, list[float]] = {name: [] for name in scores}
    rng = np.random.default_rng(1)
    for number in range(SCORED + 1):
        widths = space.sample(rng)
        for name, score in scores.items():
            started = time.perf_counter()
            found[name].append(score(widths))
            if number:
                times[name].append(time.perf_counter() - started)
    each = {name: float(np.median(spent)) for name, spent in times.items()}
    truth = np.array(found.pop("published"))
    return {
        "candidate_seconds": {name: round(spent, 3) for name, spent in each.items()},
        "candidate_ratio": {name: round(each["published"] / each[name], 2) for name in found},
        "candidate_points_apart": {
            name: np.round(100 * (np.array(top1) - truth), 2).tolist() for name, top1 in found.items()
        },
    }
