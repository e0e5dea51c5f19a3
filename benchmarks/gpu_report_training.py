"""Training and scoring speed for `gpu_report.py`, on random images: only time is looked at, not accuracy."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwprune.models.registry import build, default_image_size
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure.trace import trace
from hwprune.training.optimiser import Optimiser
from hwprune.training.precision import choose_execution
from hwprune.training.task import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

WARM_UP, CANDIDATES = 5, 5
BATCH = {"cpu": 4, "cuda": 128}
SUB_VAL = {"cpu": 16, "cuda": 5000}


class RandomImages:
    """Images that need no data set: what `Evaluator` and the training step ask of images."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def subset(self, indices: Any) -> RandomImages:
        """As many others."""
        return RandomImages(len(indices), self.size)

    def batches(self, batch_size: int, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of noise."""
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.count, batch_size):
            count = min(batch_size, self.count - start)
            images = torch.randn(count, 3, self.size, self.size, generator=generator)
            yield images, torch.zeros(count, dtype=torch.int64)


def pruning_net(model: str, device: torch.device) -> tuple[PruningNet, int]:
    """The paper's PruningNet of a model, and the side of its images."""
    size = default_image_size(model)
    net = build(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = trace(net.eval(), torch.zeros(1, 3, size, size), name=model)
    return PruningNet(net, space, "fc").to(device), size


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_speed(model: str, device: torch.device, steps: int) -> dict[str, Any]:
    """Images per second of PruningNet's training step, at random widths, images on the device."""
    net, size = pruning_net(model, device)
    settings = PruningNetSettings(batch_size=BATCH[device.type], lr=0.01)
    images, labels = next(RandomImages(settings.batch_size, size).batches(settings.batch_size))
    execution = choose_execution(net, images, settings.precision, settings.channels_last)
    images, labels = execution.place(images), labels.to(device)
    optimiser, task, rng = Optimiser(net, settings), Classification.of(settings), np.random.default_rng(0)
    net.train()

    def step() -> None:
        net.set_widths(net.space.sample(rng))
        with execution.autocast():
            loss = task.loss(net(images), (images, labels))
        optimiser.step(loss, 0.01)

    for _ in range(min(WARM_UP, steps)):
        step()
    finish(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # of these steps, not of what ran before
    started = time.perf_counter()
    for _ in range(steps):
        step()
    finish(device)
    seconds = time.perf_counter() - started
    optimiser.close()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return {
        "images_per_second": steps * settings.batch_size / seconds,
        "batch": settings.batch_size,
        "image_size": size,
        "bf16": execution.bf16,
        "channels_last": execution.channels_last,
        "peak_gib": peak / 2**30,
    }


def candidate_seconds(model: str, device: torch.device) -> dict[str, Any]:
    """Seconds to score one candidate: make it, recalibrate it, run it on sub-val, images on the device."""
    net, size = pruning_net(model, device)
    count = SUB_VAL[device.type]
    settings = PruningNetSettings(recalibration_images=min(1000, count), eval_batch_size=min(250, count))
    images = RandomImages(count, size)
    judge = Evaluator(net, images, images, settings)
    rng = np.random.default_rng(0)
    judge(net.space.sample(rng))
    finish(device)
    started = time.perf_counter()
    for _ in range(CANDIDATES):
        judge(net.space.sample(rng))
    finish(device)
    seconds = (time.perf_counter() - started) / CANDIDATES
    return {"seconds_per_candidate": seconds, "images": count, "image_size": size}
