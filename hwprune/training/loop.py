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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from hwprune.data.images import Images
from hwprune.errors import DataError, MismatchError, ModelError, UsageError
from hwprune.progress import silent
from hwprune.training import workers
from hwprune.training.batches import LoaderImages, TrainImages, as_images
from hwprune.training.checkpoint import kept_precision, load_checkpoint, save_checkpoint
from hwprune.training.distill import Distilled
from hwprune.training.evaluation import example, recalibrate_on
from hwprune.training.extras import NOTHING, Extras
from hwprune.training.fastest import faster_precision
from hwprune.training.graphed import Graphed
from hwprune.training.history import EpochFigures, History
from hwprune.training.memory import keep_freed_memory
from hwprune.training.optimiser import Optimiser
from hwprune.training.parallel import Step, average_statistics, data_parallel
from hwprune.training.precision import Execution, choose_execution, device_of
from hwprune.training.schedule import learning_rate, total_steps
from hwprune.training.task import Classification, Task, check_task, images_in, inputs_of, name_of, over_a_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from hwprune.progress import Progress
    from hwprune.training.settings import PrecisionName, Recipe, TrainSettings

_log = logging.getLogger(__name__)
_LEAST_PART = 2  # images of a batch on one worker: batch normalisation needs them
_TELL_EVERY_S = 2.0
_TIMED = 3  # steps, after the first one, behind the first word on how long it all takes
_CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device


class BeforeStep(Protocol):
    """Called before each step, for instance to draw the widths of the step."""

    def __call__(self, rng: np.random.Generator, /) -> None:
        """Prepare the next step; everything random must come from `rng`."""


def train(
    model: nn.Module,
    train_images: TrainImages | Iterable[Any],
    settings: TrainSettings,
    *,
    task: Task | None = None,
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
    teacher: nn.Module | None = None,
    compiled: bool = False,
    cuda_graph: bool = False,
    validation: TrainImages | Iterable[Any] | None = None,
) -> History:
    """Train `model` in place; it ends in eval mode.

    Several workers must all call this with the same arguments. Each keeps the batch statistics of its own
    images; the running ones are averaged after each epoch, and worker 0 writes the checkpoint.

    Args:
        model: An ordinary network; without a task a classifier, (N, 3, H, W) -> (N, classes).
        train_images: The images to learn from, or a loader of batches, which then decides on batches, order
            and augmentation. No other images are read.
        settings: The recipe.
        task: What to train for; classification with the recipe's label smoothing by default.
        checkpoint: File written after each epoch. If it is there, the run goes on from it and ends as an
            unbroken one would have (bit-equal on a CPU with the same number of threads).
        seed: Fixes order, augmentation and dropout.
        progress: Called after each epoch with `loss`, the metric by its name, where each image has one, and
            `lr`; every couple of seconds within one, then with a fraction.
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
        ModelError: The loss is no longer finite, loss, metric or outputs are not what the task wants, or
            steps cannot be recorded.
        MismatchError: The checkpoint is of another run.
        UsageError: There are too many workers for the batch, or nothing to find the best epoch with.

    The running statistics of batch normalisation are taken anew from the final weights and unaugmented
    images: those gathered on the way lag behind, by tens of points of accuracy where momentum is small.
    """
    own = task or Classification.of(settings)
    check_task(own)
    images = as_images(train_images, own)
    _check_images(images)
    held_out = None if validation is None else as_images(validation, own)
    extras = Extras.of(model, settings, images, held_out, own)
    if task is None and extras.class_weights is not None:
        own = Classification.of(settings, extras.class_weights)
    taught = own
    if teacher is not None and settings.distill_weight > 0:
        taught = Distilled(own, teacher.to(device_of(model)), settings)
    history = run_epochs(
        model,
        images,
        settings,
        taught,
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
        compiled=compiled,
        cuda_graph=cuda_graph,
        extras=extras,
    )
    recalibrate_on(model, images, settings, own)
    return history


def run_epochs(
    module: nn.Module,
    images: TrainImages,
    recipe: Recipe,
    task: Task,
    *,
    checkpoint: Path | None,
    seed: int,
    progress: Progress,
    before_step: BeforeStep | None = None,
    compiled: bool = False,
    cuda_graph: bool = False,
    extras: Extras = NOTHING,
    about: Mapping[str, Any] | None = None,
) -> History:
    """The loop behind `train` and PruningNet's `fit`; see `train` for arguments, result and errors.

    A checkpoint belongs to what `about` says of the run, too.
    """
    _check_images(images)
    identity = {"seed": seed, "images": len(images), **recipe.fingerprint(), **_learnt(task), **(about or {})}
    if isinstance(images, LoaderImages):
        recipe = _of_loader(images, recipe)
    history = History()
    images = extras.strengthened(images)
    precision = _precision(module, images, recipe, task, checkpoint)
    with contextlib.closing(Optimiser(module, recipe)) as optimiser, keep_freed_memory():
        # Before the checkpoint is read: momentum takes over the layout of its weights in memory.
        few = example(images, task)
        execution = choose_execution(module, few, precision, recipe.channels_last)
        save = functools.partial(save_checkpoint, identity=identity, kept=extras.kept, precision=precision)
        if checkpoint is not None and checkpoint.is_file():
            history = load_checkpoint(checkpoint, module, optimiser, identity, extras.kept)
        elif checkpoint is not None and workers.is_main() and precision != recipe.precision:
            save(checkpoint, module, optimiser, history)  # what was measured counts from now on
        workers.barrier()
        _check_same_start(checkpoint, history)
        step = Step(torch.compile(module) if compiled else module, task)  # type: ignore[arg-type]
        epochs = _Epochs(module, images, recipe, step, optimiser, execution, seed, before_step, extras)
        epochs.progress = progress
        if cuda_graph and not compiled:
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
                    own = {} if last.top1 is None else {name_of(task): last.top1}
                    progress(epoch + 1, total, loss=last.loss, **own, lr=last.lr, **seen)
                workers.barrier()
        finally:
            epochs.graph = None  # it and `epochs` refer to each other, and would keep its memory
    extras.finish()
    module.eval()
    return history


def _learnt(task: Task) -> dict[str, str]:
    """What a checkpoint belongs to beside its recipe: a task that is not classification, and a teacher."""
    own, taught = getattr(task, "task", task), isinstance(task, Distilled)
    named = {} if type(own) is Classification else {"task": f"{type(own).__qualname__} {name_of(own)}"}
    return {**named, **({"teacher": "yes"} if taught else {})}


def _of_loader(images: LoaderImages, recipe: Recipe) -> Recipe:
    """The recipe with the batches that a loader of the user's own gives."""
    if workers.world() > 1:
        raise UsageError(
            "A loader of your own is not shared out among workers.",
            where="torchrun",
            got=f"{workers.world()} workers",
            allowed="1",
            do="start hwprune without torchrun",
        )
    return replace(recipe, batch_size=images.batch_size)


def _check_images(images: TrainImages) -> None:
    if len(images) == 0:
        raise DataError("There are no images to train on.", do="check the data folder and the splits")


def _precision(
    module: nn.Module, images: TrainImages, recipe: Recipe, task: Task, checkpoint: Path | None
) -> PrecisionName:
    """The recipe's precision; on `auto` that of the run that is gone on with, else the faster one."""
    if recipe.precision != "auto":
        return recipe.precision
    known: PrecisionName | None = workers.share(kept_precision(checkpoint))
    if known is not None:
        return known
    part = max(_LEAST_PART, min(recipe.batch_size, len(images)) // workers.world())
    return faster_precision(module, example(images, task, part), recipe.channels_last)


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
        step: Step,
        optimiser: Optimiser,
        execution: Execution,
        seed: int,
        before_step: BeforeStep | None,
        extras: Extras,
    ) -> None:
        self.module, self.recipe = module, recipe
        (self.task,) = step.task
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
        self.step = data_parallel(module, step, in_backward=optimiser.in_backward)
        # DDP takes the mean over the workers, steps inside the backward pass the sum.
        self.loss_scale = 1 if optimiser.in_backward else workers.world()
        self.graph: Graphed | None = None
        self.progress, self.told, self.first = silent, 0.0, True

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
        figures = torch.zeros(2, dtype=torch.float64, device=device)  # their sum, and of how many images
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
            for index, batch in enumerate(itertools.islice(batches, steps)):
                loss, found = self._step(batch, rng, self._lr(epoch, index))
                loss_sum += loss
                figures[0] += found
                figures[1] += images_in(inputs_of(self.task, batch))
                if index % _CHECK_EVERY == 0:
                    self._finite(loss_sum, epoch, index)
                self._tell(epoch, index + 1, loss_sum)
        self.first = False
        average_statistics(self.module)
        return EpochFigures(
            epoch=epoch + 1,
            loss=self._finite(loss_sum, epoch, steps - 1) / steps,
            top1=self._mean(figures),
            lr=self._lr(epoch, steps - 1),
            seconds=time.perf_counter() - started,
        )

    def _tell(self, epoch: int, done: int, loss_sum: Tensor) -> None:
        """Tell of an epoch under way: after the first step, some later, then every couple of seconds."""
        begins, timed = self.first and done == 1, self.first and done == 1 + _TIMED
        due = begins or timed or time.perf_counter() - self.told > _TELL_EVERY_S
        if due and done < self.steps and workers.is_main():
            loss = float(loss_sum) * workers.world() / done  # of this worker's images
            figures = {} if begins else {"loss": loss}
            self.progress(epoch + done / self.steps, math.ceil(self.recipe.epochs), **figures)
            self.told = time.perf_counter()

    def _lr(self, epoch: int, index: int) -> float:
        return learning_rate(self.recipe, epoch * self.steps + index, self.steps)

    def _mean(self, figures: Tensor) -> float | None:
        """The mean figure of all workers' images; None where only a set has one."""
        total, images = workers.summed(figures).tolist()
        return None if over_a_set(self.task) or not math.isfinite(total) else total / images

    def _step(self, batch: Any, rng: np.random.Generator, lr: float) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; returns this worker's part of the loss, and the sum of its figures."""
        if self.before_step is not None:
            self.before_step(rng)
        batch = self.extras.mix(self.execution.place(batch))
        if self.graph is not None:
            loss, figures = self.graph(batch)
            self.optimiser.update(lr, keep=self.graph.recorded)
        else:
            loss, figures = self._loss(batch)
            self.optimiser.step(self.loss_scale * loss, lr)
        self.extras.after_step()
        return loss.detach(), figures

    def _loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        part = 1.0
        if workers.world() > 1:  # alone, each step is of one whole batch
            part = images_in(inputs_of(self.task, batch)) / self.batch_size
        with self.execution.autocast():
            loss, figures = self.step(batch)
        return part * loss, figures

    def _gradients(self, batch: Any) -> tuple[Tensor, Tensor]:
        loss, figures = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), figures

    def _finite(self, loss: Tensor, epoch: int, index: int) -> float:
        """The loss of all workers, which must be a finite number."""
        total = float(workers.summed(loss))
        if not math.isfinite(total):
            at_once = epoch == index == 0
            raise ModelError(
                "The loss is not a finite number."
                if at_once
                else "The training diverged: its loss is no longer a finite number.",
                where=f"epoch {epoch + 1} of {self.recipe.epochs}, by step {index + 1} of {self.steps}",
                got=f"lr={self.recipe.lr:g}",
                do="look for NaN in the images, and for logarithms and divisions in the loss"
                if at_once
                else f"run again with a lower learning rate, for instance {self.recipe.lr / 3:.2g}",
            )
        return total
