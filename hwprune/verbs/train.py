"""`hwprune train`: train the chosen network, taught by the unpruned one, and score both on test."""

from __future__ import annotations

import math
from pathlib import Path

from hwprune.config import StartName
from hwprune.errors import UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project
from hwprune.project.lock import locked
from hwprune.project.trainer import Trainer
from hwprune.results import TrainResult


@locked
def train(
    *,
    project: Path = Path("."),
    start: StartName | None = None,
    epochs: float = 0,
    lr: float = 0,
    batch_size: int = 0,
    point: int = 0,
    reporter: Reporter = QUIET,
) -> TrainResult:
    """Train the network that search chose, taught by the unpruned one; a stopped run goes on.

    Args:
        project: The project folder.
        start: inherited (weights of the unpruned network), generated (PruningNet's), scratch (random, the
            paper's protocol), or auto: what the network was chosen with; by default the project's.
        epochs: Epochs of the pruned network; 0 takes what is left of `search --epochs`, else the project's.
        lr: Highest learning rate of the pruned network's training; 0 takes the project's, which from trained
            weights is found by a short test.
        batch_size: Images of one step of it; 0 takes the project's.
        point: Number of a network of the front that was searched for, from 1; 0 keeps the chosen one.
        reporter: Told about progress.

    Returns:
        Test accuracies of both; the only place where the test images are read.

    Raises:
        ArtifactError: `hwprune search` has not been run here.
        UsageError: The front has no such point, or a number below zero.
        DataError: The project has no images.

    Example:
        >>> trained = hwprune.train(project=folder, epochs=1)
        >>> 0 <= trained.top1 <= 1
        True
    """
    if not 0 <= epochs < math.inf:
        raise UsageError(
            "--epochs is not a number of epochs.", got=epochs, allowed="above 0; 0: what is left"
        )
    if not 0 <= lr < math.inf or batch_size < 0:
        raise UsageError(
            "A number is below zero.", got=f"--lr {lr:g} --batch-size {batch_size}", allowed="above 0"
        )
    if point:
        opened = Project(project)
        opened.require_data()
        opened.choose(opened.point(point))
    return Trainer.of(project, start, epochs, reporter, lr=lr, batch_size=batch_size).run()
