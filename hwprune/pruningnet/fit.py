"""`fit`: train a PruningNet, one random network of the space in every step, or an ordinary network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hwprune.errors import UsageError
from hwprune.payloads import digest
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

    import numpy as np
    from torch import nn

    from hwprune.progress import Progress
    from hwprune.structure.space import Widths
    from hwprune.training.history import History
    from hwprune.training.settings import Recipe

_T = TypeVar("_T", TrainSettings, PruningNetSettings)
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
    checkpoint: Path | str | None = None,
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
        settings: The recipe, `PruningNetSettings` for a PruningNet, else `TrainSettings`; by default AdamW at
            0.001.
        epochs: Passes over the loader, in place of the recipe's; the last one may be a part of one.
        lr: Highest learning rate, in place of the recipe's.
        teacher: A network whose outputs are learnt too; see `training.distill`.
        validation: Batches that find the best epoch of an ordinary network, where the recipe keeps that
            (`keep="best"`).
        networks: What a PruningNet's steps draw from, for example networks within a budget; by default all
            of the space.
        checkpoint: File written after each epoch. If it is there, the run goes on from it and ends as an
            unbroken one would have (of a loader, if it draws from torch's global generator alone).
        seed: Fixes the drawn widths, the order of images and their augmentation.
        progress: Called after each epoch with `loss`, the metric by its name and `lr`.

    Returns:
        The figures of every epoch.

    Raises:
        UsageError: A recipe of the other kind, or `validation` for a PruningNet.
        DataError: There are no images.
        ModelError: The loss is not finite, or loss, metric or outputs are not what the task wants.
        MismatchError: The checkpoint is of another run.
    """
    given: dict[str, Any] = {
        name: value for name, value in (("epochs", epochs), ("lr", lr)) if value is not None
    }
    kept = None if checkpoint is None else Path(checkpoint)
    run: dict[str, Any] = {"checkpoint": kept, "seed": seed, "progress": progress}
    if not isinstance(net, PruningNet):
        recipe = replace(_recipe(settings, TrainSettings), **given)
        return train(net, loader, recipe, task=task, teacher=teacher, validation=validation, **run)
    if validation is not None:
        raise UsageError(
            "A PruningNet has no best epoch.",
            where="validation",
            do="leave it out; score networks with a `Scorer` on these batches",
        )
    sampled = replace(_recipe(settings, PruningNetSettings), **given)
    own = task or Classification.of(sampled)
    check_task(own)
    if teacher is not None:
        own = Distilled(own, teacher.to(device_of(net)), TrainSettings())

    def draw(rng: np.random.Generator) -> None:
        full = sampled.full_share > 0 and rng.random() < sampled.full_share
        drawn = networks[int(rng.integers(len(networks)))] if networks else net.space.sample(rng)
        net.set_widths(net.space.full() if full else drawn)

    about = {"networks": digest(*networks)} if networks else {}
    history = run_epochs(net, as_images(loader, own), sampled, own, before_step=draw, about=about, **run)
    net.set_widths(net.space.full())
    return history


def _recipe(settings: Recipe | None, wanted: type[_T]) -> _T:
    """The recipe that was given, or AdamW's."""
    if settings is None:
        return wanted(**_ADAMW)
    if not isinstance(settings, wanted):
        raise UsageError(
            "This is not a recipe for such a network.",
            where="settings",
            got=type(settings).__name__,
            allowed=wanted.__name__,
        )
    return settings
