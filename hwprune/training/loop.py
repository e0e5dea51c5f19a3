"""The training loop, and `train` for ordinary networks. PruningNet's `fit` runs the same loop."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from hwprune.errors import DataError, ModelError
from hwprune.progress import silent
from hwprune.training.checkpoint import load_checkpoint, save_checkpoint
from hwprune.training.distill import Objective, cross_entropy, distillation, logits_of
from hwprune.training.history import EpochFigures, History
from hwprune.training.memory import keep_freed_memory
from hwprune.training.optimiser import Optimiser
from hwprune.training.precision import Execution, choose_execution, device_of
from hwprune.training.schedule import learning_rate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from hwprune.progress import Progress
    from hwprune.training.settings import Recipe, TrainSettings

_CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device


class TrainImages(Protocol):
    """What training needs of images; `hwprune.data.Images` has it."""

    def __len__(self) -> int:
        """Number of images."""

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images (B, 3, H, W) and labels (B,)."""


class BeforeStep(Protocol):
    """Called before each step, for instance to draw the widths of the step."""

    def __call__(self, rng: np.random.Generator, /) -> None:
        """Prepare the next step; everything random must come from `rng`."""


def train(
    model: nn.Module,
    train_images: TrainImages,
    settings: TrainSettings,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
    teacher: nn.Module | None = None,
) -> History:
    """Train `model` in place; it ends in eval mode.

    Args:
        model: An ordinary classifier; (N, 3, H, W) -> (N, classes).
        train_images: The images to learn from. No other images are read.
        settings: The recipe.
        checkpoint: File written after each epoch. If it is there, the run goes on from it and ends as an
            unbroken one would have (bit-equal on a CPU with the same number of threads).
        seed: Fixes order, augmentation and dropout.
        progress: Called after each epoch with `loss`, `top1` (0 to 1) and `lr`.
        teacher: A network whose outputs the model shall also learn (knowledge distillation).

    Returns:
        The figures of every epoch.

    Raises:
        DataError: There are no images.
        ModelError: The loss is no longer finite, or the model does not return class scores.
        MismatchError: The checkpoint is of another run.
    """
    objective = cross_entropy(settings)
    if teacher is not None and settings.distill_weight > 0:
        objective = distillation(settings, teacher.to(device_of(model)))
    return run_epochs(
        model, train_images, settings, objective, checkpoint=checkpoint, seed=seed, progress=progress
    )


def run_epochs(
    module: nn.Module,
    images: TrainImages,
    recipe: Recipe,
    objective: Objective,
    *,
    checkpoint: Path | None,
    seed: int,
    progress: Progress,
    before_step: BeforeStep | None = None,
) -> History:
    """The loop behind `train` and PruningNet's `fit`; see `train` for arguments, result and errors."""
    if len(images) == 0:
        raise DataError("There are no images to train on.", do="check the data folder and the splits")
    identity = {"seed": seed, "images": len(images), **recipe.fingerprint()}
    history = History()
    with contextlib.closing(Optimiser(module, recipe)) as optimiser, keep_freed_memory():
        if checkpoint is not None and checkpoint.is_file():
            history = load_checkpoint(checkpoint, module, optimiser, identity)
        epochs = _Epochs(module, images, recipe, objective, optimiser, seed, before_step)
        for epoch in range(len(history.epochs), recipe.epochs):
            history = History((*history.epochs, epochs.run(epoch)))
            if checkpoint is not None:
                save_checkpoint(checkpoint, module, optimiser, history, identity)
            last = history.epochs[-1]
            progress(epoch + 1, recipe.epochs, loss=last.loss, top1=last.top1, lr=last.lr)
    module.eval()
    return history


class _Epochs:
    """Runs single epochs; all that is random in one follows from (seed, epoch)."""

    def __init__(
        self,
        module: nn.Module,
        images: TrainImages,
        recipe: Recipe,
        objective: Objective,
        optimiser: Optimiser,
        seed: int,
        before_step: BeforeStep | None,
    ) -> None:
        self.module, self.images, self.recipe, self.objective = module, images, recipe, objective
        self.optimiser, self.seed, self.before_step = optimiser, seed, before_step
        self.batch_size = min(recipe.batch_size, len(images))
        self.steps = len(images) // self.batch_size
        example, _ = next(images.batches(min(2, len(images))))
        self.execution: Execution = choose_execution(module, example, recipe.precision, recipe.channels_last)

    def run(self, epoch: int) -> EpochFigures:
        """One epoch, numbered from 0."""
        started = time.perf_counter()
        rng = np.random.default_rng((self.seed, epoch))
        device = self.execution.device
        loss_sum = torch.zeros((), device=device)
        right = torch.zeros((), dtype=torch.int64, device=device)
        self.module.train()
        # Dropout and augmentation draw from torch's own generator; the caller's state of it is put back.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(2**62)))
            batches = self.images.batches(
                self.batch_size, augment=True, shuffle_seed=int(rng.integers(2**31)), drop_last=True
            )
            for index, (images, labels) in enumerate(batches):
                loss, hits = self._step(images, labels, rng, self._lr(epoch, index))
                loss_sum += loss
                right += hits
                if index % _CHECK_EVERY == 0:
                    self._check_finite(loss_sum, epoch, index)
        self._check_finite(loss_sum, epoch, self.steps - 1)
        return EpochFigures(
            epoch=epoch + 1,
            loss=loss_sum.item() / self.steps,
            top1=right.item() / (self.steps * self.batch_size),
            lr=self._lr(epoch, self.steps - 1),
            seconds=time.perf_counter() - started,
        )

    def _lr(self, epoch: int, index: int) -> float:
        return learning_rate(self.recipe, epoch * self.steps + index, self.steps)

    def _step(
        self, images: Tensor, labels: Tensor, rng: np.random.Generator, lr: float
    ) -> tuple[Tensor, Tensor]:
        """One step of SGD; returns the loss and the number of images classified rightly."""
        if self.before_step is not None:
            self.before_step(rng)
        images, labels = self.execution.place(images), labels.to(self.execution.device)
        with self.execution.autocast():
            outputs = logits_of(self.module(images))
            loss = self.objective(images, outputs, labels)
        self.optimiser.step(loss, lr)
        return loss.detach(), (outputs.detach().argmax(1) == labels).sum()

    def _check_finite(self, loss: Tensor, epoch: int, index: int) -> None:
        if not math.isfinite(loss.item()):
            raise ModelError(
                "The training diverged: its loss is no longer a finite number.",
                where=f"epoch {epoch + 1} of {self.recipe.epochs}, by step {index + 1} of {self.steps}",
                got=f"lr={self.recipe.lr:g}",
                do=f"run again with a lower learning rate, for instance {self.recipe.lr / 3:.2g}",
            )
