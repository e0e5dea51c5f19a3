"""`fit`: train a PruningNet, one random network of the space in every step, or an ordinary network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hwprune.progress import silent
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.training.batches import TrainImages, as_images
from hwprune.training.distill import Distilled
from hwprune.training.loop import run_epochs, train
from hwprune.training.precision import device_of
from hwprune.training.settings import TrainSettings
from hwprune.training.task import Classification, Task, check_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

    from hwprune.progress import Progress
    from hwprune.structure.space import Widths
    from hwprune.training.history import History
    from hwprune.training.settings import Recipe

_ADAMW: dict[str, Any] = {"optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.05}


def fit(
    net: nn.Module,
    loader: TrainImages | Iterable[Any],
    task: Task | None = None,
    settings: Recipe | None = None,
    *,
    epochs: float | None = None,
    lr: float | None = None,
    teacher: nn.Module | None = None,
    validation: TrainImages | Iterable[Any] | None = None,
    networks: Sequence[Widths] = (),
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> History:
    """Train `net` in place; it ends in eval mode.

    A PruningNet is trained by stochastic structure sampling, as MetaPruning does: for each batch, draw the
    width of every group uniformly from its choices and take one step on the network of those widths (or, in
    `full_share` of them, on the unpruned one); it ends at full width. Any other network is trained as it is,
    and batch normalisation takes its statistics anew in the end.

    Example:
        >>> history = hwprune.fit(net, loader, task, epochs=2, teacher=model)
        >>> len(history.epochs)
        2

    Args:
        net: A PruningNet, or an ordinary network.
        loader: Batches to learn from, of any structure, that can be gone through again; never those that
            candidates are scored on. `hwprune.data` has images in another form, which do as well.
        task: What to train for; by default classification with the recipe's label smoothing.
        settings: The recipe, `PruningNetSettings` or `TrainSettings`; by default AdamW at 0.001.
        epochs: Passes over the loader, in place of the recipe's; the last one may be a part of one.
        lr: Highest learning rate, in place of the recipe's.
        teacher: A network whose outputs are learnt too; see `training.distill`.
        validation: Batches that find the best epoch, where the recipe keeps that (`keep="best"`).
        networks: What a PruningNet's steps draw from, for example networks within a budget; by default all
            of the space.
        checkpoint: File written after each epoch. If it is there, the run goes on from it and ends as an
            unbroken one would have (of a loader, if it draws from torch's global generator alone).
        seed: Fixes the drawn widths, the order of images and their augmentation.
        progress: Called after each epoch with `loss`, the metric by its name and `lr`.

    Returns:
        The figures of every epoch.

    Raises:
        DataError: There are no images.
        ModelError: The loss is not finite, or loss, metric or outputs are not what the task wants.
        MismatchError: The checkpoint is of another run.
    """
    given: dict[str, Any] = {
        name: value for name, value in (("epochs", epochs), ("lr", lr)) if value is not None
    }
    run: dict[str, Any] = {"checkpoint": checkpoint, "seed": seed, "progress": progress}
    if not isinstance(net, PruningNet):
        recipe = settings if isinstance(settings, TrainSettings) else TrainSettings(**_ADAMW)
        recipe = replace(recipe, **given)
        return train(net, loader, recipe, task=task, teacher=teacher, validation=validation, **run)
    sampled = settings if isinstance(settings, PruningNetSettings) else PruningNetSettings(**_ADAMW)
    sampled = replace(sampled, **given)
    own = task or Classification.of(sampled)
    check_task(own)
    if teacher is not None:
        own = Distilled(own, teacher.to(device_of(net)), TrainSettings())

    def draw(rng: np.random.Generator) -> None:
        full = sampled.full_share > 0 and rng.random() < sampled.full_share
        drawn = networks[int(rng.integers(len(networks)))] if networks else net.space.sample(rng)
        net.set_widths(net.space.full() if full else drawn)

    history = run_epochs(net, as_images(loader, own), sampled, own, before_step=draw, **run)
    net.set_widths(net.space.full())
    return history
