"""Training of a PruningNet: one random network of the space in every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.progress import silent
from hwprune.training.distill import cross_entropy
from hwprune.training.loop import run_epochs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from hwprune.progress import Progress
    from hwprune.pruningnet.net import PruningNet
    from hwprune.pruningnet.settings import PruningNetSettings
    from hwprune.structure.space import Widths
    from hwprune.training.distill import Objective
    from hwprune.training.history import History
    from hwprune.training.loop import TrainImages


def fit(
    net: PruningNet,
    sub_train: TrainImages,
    settings: PruningNetSettings,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
    objective: Objective | None = None,
    networks: Sequence[Widths] = (),
) -> History:
    """Train `net` in place by stochastic structure sampling; it ends at full width, in eval mode.

    As MetaPruning does: for each mini-batch, draw the width of every group uniformly from its choices and
    take one step of SGD on the network of those widths (or, in `full_share` of them, on the unpruned one).

    Args:
        net: The PruningNet.
        sub_train: The images to learn from; never those that candidates are scored on.
        settings: The recipe.
        checkpoint: File written after each epoch. If it is there, the run goes on from it and ends as an
            unbroken one would have.
        seed: Fixes the drawn widths, the order of images and their augmentation.
        progress: Called after each epoch with `loss`, `top1` (0 to 1, of the drawn networks) and `lr`.
        objective: The loss; cross-entropy by default, as in the paper.
        networks: What to draw from, for example networks within a budget; by default all of the space.

    Returns:
        The figures of every epoch.

    Raises:
        DataError: There are no images.
        ModelError: The loss is no longer finite.
        MismatchError: The checkpoint is of another run.
    """

    def draw(rng: np.random.Generator) -> None:
        full = settings.full_share > 0 and rng.random() < settings.full_share
        drawn = networks[int(rng.integers(len(networks)))] if networks else net.space.sample(rng)
        net.set_widths(net.space.full() if full else drawn)

    history = run_epochs(
        net,
        sub_train,
        settings,
        objective or cross_entropy(settings),
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
        before_step=draw,
    )
    net.set_widths(net.space.full())
    return history
