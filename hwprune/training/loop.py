"""The training loop, and `train` for ordinary networks. PruningNet's `fit` runs the same loop.

Of several workers (`training.workers`) each runs its part of every batch; all take the same steps.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from hwprune.data.images import Images
from hwprune.errors import DataError, MismatchError, ModelError, UsageError
from hwprune.progress import silent
from hwprune.training import workers
from hwprune.training.checkpoint import kept_precision, load_checkpoint, save_checkpoint
from hwprune.training.distill import Objective, cross_entropy, distillation
from hwprune.training.evaluation import recalibrate_on
from hwprune.training.extras import NOTHING, Extras
from hwprune.training.fastest import faster_precision
from hwprune.training.graphed import Graphed
from hwprune.training.history import EpochFigures, History
from hwprune.training.memory import keep_freed_memory
from hwprune.training.optimiser import Optimiser
from hwprune.training.parallel import average_statistics, data_parallel
from hwprune.training.precision import Execution, choose_execution, device_of
from hwprune.training.schedule import learning_rate, total_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from hwprune.progress import Progress
    from hwprune.training.settings import PrecisionName, Recipe, TrainSettings

_log = logging.getLogger(__name__)
_LEAST_PART = 2  # images of a batch on one worker: batch normalisation needs them
_TELL_EVERY_S = 2.0
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
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images (B, 3, H, W) and labels (B,); `part` (k, n) is the k-th of n of each batch."""


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
    compiled: bool = False,
    cuda_graph: bool = False,
    validation: TrainImages | None = None,
) -> History:
    """Train `model` in place; it ends in eval mode.

    Several workers must all call this with the same arguments. Each keeps the batch statistics of its own
    images; the running ones are averaged after each epoch, and worker 0 writes the checkpoint.

    Args:
        model: An ordinary classifier; (N, 3, H, W) -> (N, classes).
        train_images: The images to learn from. No other images are read.
        settings: The recipe.
        checkpoint: File written after each epoch. If it is there, the run goes on from it and ends as an
            unbroken one would have (bit-equal on a CPU with the same number of threads).
        seed: Fixes order, augmentation and dropout.
        progress: Called after each epoch with `loss`, `top1` (0 to 1) and `lr`, and every couple of seconds
            within one, then with a fraction.
        teacher: A network whose outputs the model shall also learn (knowledge distillation).
        compiled: Whether the steps go through torch.compile.
        cuda_graph: Whether the steps are recorded and replayed on one GPU, where they are not compiled: for
            networks that compute the same in each, without reading anything back.
        validation: Images of which none is among `train_images`, nor ever a test image: where the recipe
            keeps the best epoch, they decide which that is.

    Returns:
        The figures of every epoch.

    Raises:
        DataError: There are no images.
        ModelError: The loss is no longer finite, the model does not return class scores, or its steps cannot
            be recorded.
        MismatchError: The checkpoint is of another run.
        UsageError: There are too many workers for the batch, or nothing to find the best epoch with.

    The running statistics of batch normalisation are taken anew from the final weights and unaugmented
    images: those gathered on the way lag behind, by tens of points of accuracy where momentum is small.
    """
    _check_images(train_images)
    extras = Extras.of(model, settings, train_images, validation)
    weights = extras.class_weights
    objective = cross_entropy(settings, weights)
    if teacher is not None and settings.distill_weight > 0:
        objective = distillation(settings, teacher.to(device_of(model)), weights)
    history = run_epochs(
        model,
        train_images,
        settings,
        objective,
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
        compiled=compiled,
        cuda_graph=cuda_graph,
        extras=extras,
    )
    recalibrate_on(model, train_images, settings)
    return history


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
    compiled: bool = False,
    cuda_graph: bool = False,
    extras: Extras = NOTHING,
) -> History:
    """The loop behind `train` and PruningNet's `fit`; see `train` for arguments, result and errors."""
    _check_images(images)
    identity = {"seed": seed, "images": len(images), **recipe.fingerprint()}
    history = History()
    images = extras.strengthened(images)
    precision = _precision(module, images, recipe, checkpoint)
    with contextlib.closing(Optimiser(module, recipe)) as optimiser, keep_freed_memory():
        # Before the checkpoint is read: momentum takes over the layout of its weights in memory.
        execution = _execution(module, images, recipe, precision)
        save = functools.partial(save_checkpoint, identity=identity, kept=extras.kept, precision=precision)
        if checkpoint is not None and checkpoint.is_file():
            history = load_checkpoint(checkpoint, module, optimiser, identity, extras.kept)
        elif checkpoint is not None and workers.is_main() and precision != recipe.precision:
            save(checkpoint, module, optimiser, history)  # what was measured counts from now on
        workers.barrier()
        _check_same_start(checkpoint, history)
        epochs = _Epochs(module, images, recipe, objective, optimiser, execution, seed, before_step, extras)
        epochs.progress = progress
        if compiled:
            epochs.scores = torch.compile(epochs.scores)  # type: ignore[assignment]
        elif cuda_graph:
            epochs.record()
        try:
            for epoch in range(len(history.epochs), math.ceil(recipe.epochs)):
                history = History((*history.epochs, epochs.run(epoch)))
                seen = extras.look()
                if workers.is_main():
                    if checkpoint is not None:
                        save(checkpoint, module, optimiser, history)
                    last = history.epochs[-1]
                    total = math.ceil(recipe.epochs)
                    progress(epoch + 1, total, loss=last.loss, top1=last.top1, lr=last.lr, **seen)
                workers.barrier()
        finally:
            epochs.graph = None  # it and `epochs` refer to each other, and would keep its memory
    extras.finish()
    module.eval()
    return history


def _check_images(images: TrainImages) -> None:
    if len(images) == 0:
        raise DataError("There are no images to train on.", do="check the data folder and the splits")


def _precision(
    module: nn.Module, images: TrainImages, recipe: Recipe, checkpoint: Path | None
) -> PrecisionName:
    """The recipe's precision; on `auto` that of the run that is gone on with, else the faster one."""
    if recipe.precision != "auto":
        return recipe.precision
    known: PrecisionName | None = workers.share(kept_precision(checkpoint))
    if known is not None:
        return known
    part = max(_LEAST_PART, min(recipe.batch_size, len(images)) // workers.world())
    example, _ = next(images.batches(part))
    return faster_precision(module, example, recipe.channels_last)


def _execution(module: nn.Module, images: TrainImages, recipe: Recipe, precision: PrecisionName) -> Execution:
    """How batches are run through the network, whose weights are laid out for it."""
    example, _ = next(images.batches(min(2, len(images))))
    return choose_execution(module, example, precision, recipe.channels_last)


def _check_same_start(checkpoint: Path | None, history: History) -> None:
    """Refuse a checkpoint that not all workers see: they would wait for each other for ever."""
    first = workers.share(len(history.epochs))
    if first != len(history.epochs):
        raise MismatchError(
            "The workers do not see the same checkpoint.",
            where=checkpoint,
            got=f"{len(history.epochs)} epochs finished on worker {workers.rank()}",
            allowed=f"{first}, as on worker 0",
            do="keep the project in a folder that all machines share",
        )


class _Epochs:
    """Runs single epochs; all that is random in one follows from (seed, epoch)."""

    def __init__(
        self,
        module: nn.Module,
        images: TrainImages,
        recipe: Recipe,
        objective: Objective,
        optimiser: Optimiser,
        execution: Execution,
        seed: int,
        before_step: BeforeStep | None,
        extras: Extras,
    ) -> None:
        self.module, self.recipe, self.objective = module, recipe, objective
        # On a GPU small images lie in its memory, and are shifted, mirrored and normalised there.
        self.images = images.on(execution.device) if isinstance(images, Images) else images
        self.execution, self.extras = execution, extras
        self.optimiser, self.seed, self.before_step = optimiser, seed, before_step
        self.batch_size = min(recipe.batch_size, len(images))
        self.steps = len(images) // self.batch_size
        if self.batch_size < _LEAST_PART * workers.world():
            raise UsageError(
                "There are too few images in a batch for so many workers.",
                got=f"{self.batch_size} images for {workers.world()} workers",
                allowed=f"{_LEAST_PART} or more for each",
                do="start fewer workers, or raise `batch_size`",
            )
        self.scores = data_parallel(module, in_backward=optimiser.in_backward)
        # DDP takes the mean over the workers, steps inside the backward pass the sum.
        self.loss_scale = 1 if optimiser.in_backward else workers.world()
        self.graph: Graphed | None = None
        self.progress, self.told = silent, time.perf_counter()

    def record(self) -> None:
        """Let a CUDA graph compute loss and gradients, where each step is the same on one GPU."""
        hindrances = {
            "there is no GPU": self.execution.device.type != "cuda",
            "there are several workers": workers.world() > 1,
            "its widths change": self.before_step is not None,
            "parameters step inside the backward pass": self.optimiser.in_backward,
        }
        if found := [reason for reason, holds in hindrances.items() if holds]:
            _log.info("the training step is not recorded: %s", ", ".join(found))
        else:
            self.graph = Graphed(self._gradients)

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
            torch.manual_seed(int(rng.integers(2**62)) + workers.rank())
            batches = self.images.batches(
                self.batch_size,
                augment=True,
                shuffle_seed=int(rng.integers(2**31)),
                drop_last=True,
                part=(workers.rank(), workers.world()),
            )
            steps = min(self.steps, total_steps(self.recipe, self.steps) - epoch * self.steps)
            for index, (images, labels) in enumerate(itertools.islice(batches, steps)):
                loss, hits = self._step(images, labels, rng, self._lr(epoch, index))
                loss_sum += loss
                right += hits
                if index % _CHECK_EVERY == 0:
                    self._finite(loss_sum, epoch, index)
                self._tell(epoch, index + 1, loss_sum)
        average_statistics(self.module)
        return EpochFigures(
            epoch=epoch + 1,
            loss=self._finite(loss_sum, epoch, steps - 1) / steps,
            top1=workers.summed(right).item() / (steps * self.batch_size),
            lr=self._lr(epoch, steps - 1),
            seconds=time.perf_counter() - started,
        )

    def _tell(self, epoch: int, done: int, loss_sum: Tensor) -> None:
        """Tell of an epoch under way, every couple of seconds."""
        now = time.perf_counter()
        if now - self.told > _TELL_EVERY_S and done < self.steps and workers.is_main():
            self.told = now
            loss = float(loss_sum) * workers.world() / done  # of this worker's images
            self.progress(epoch + done / self.steps, math.ceil(self.recipe.epochs), loss=loss)

    def _lr(self, epoch: int, index: int) -> float:
        return learning_rate(self.recipe, epoch * self.steps + index, self.steps)

    def _step(
        self, images: Tensor, labels: Tensor, rng: np.random.Generator, lr: float
    ) -> tuple[Tensor, Tensor]:
        """One step of SGD; returns this worker's part of the loss, and of the images classified rightly."""
        if self.before_step is not None:
            self.before_step(rng)
        images, labels = self.execution.place(images), labels.to(self.execution.device)
        images, labels = self.extras.mix(images, labels)
        if self.graph is not None:
            loss, hits = self.graph(images, labels)
            self.optimiser.update(lr, keep=self.graph.recorded)
        else:
            loss, hits = self._loss(images, labels)
            self.optimiser.step(self.loss_scale * loss, lr)
        self.extras.after_step()
        return loss.detach(), hits

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        part = len(labels) / self.batch_size
        with self.execution.autocast():
            outputs = self.scores(images)
            loss = part * self.objective(images, outputs, labels)
        most = labels.argmax(1) if labels.ndim == 2 else labels  # of mixed images
        return loss, (outputs.detach().argmax(1) == most).sum()

    def _gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, hits = self._loss(images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), hits

    def _finite(self, loss: Tensor, epoch: int, index: int) -> float:
        """The loss of all workers, which must be a finite number."""
        total = float(workers.summed(loss))
        if not math.isfinite(total):
            raise ModelError(
                "The training diverged: its loss is no longer a finite number.",
                where=f"epoch {epoch + 1} of {self.recipe.epochs}, by step {index + 1} of {self.steps}",
                got=f"lr={self.recipe.lr:g}",
                do=f"run again with a lower learning rate, for instance {self.recipe.lr / 3:.2g}",
            )
        return total
