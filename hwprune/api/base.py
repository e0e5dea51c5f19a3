"""The unpruned network, trained: what `train` compares with, and what a `residual` PruningNet starts from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.api.project import Project, digest
from hwprune.training.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from hwprune.progress import Reporter
    from hwprune.training.history import History


def recipe(project: Project) -> TrainSettings:
    """The recipe of the final network and of the unpruned one."""
    own = set(TrainSettings.__dataclass_fields__)
    config = project.config.training
    return TrainSettings(**{name: value for name, value in asdict(config).items() if name in own})


def checkpoint_path(project: Project) -> Path:
    """The training state of the unpruned network; the same for every budget."""
    key = digest(recipe(project), project.structure(), project.config.seed)
    if given := project.given_weights():
        key = digest(key, given)
    return project.path(f"base-{key}.safetensors")


def fingerprint(project: Project) -> str:
    """Stands for the weights of the unpruned network; before it is trained, for how it will be."""
    path = checkpoint_path(project)
    return project.given_weights() or artifacts.tensors_checksum(path) or path.name


def trained_base(project: Project, reporter: Reporter) -> tuple[nn.Module, History, str]:
    """The unpruned network with the weights given, or trained by the recipe of the pruned one.

    Returns:
        The network in eval mode, the figures of its epochs, and where its weights come from.
    """
    from hwprune.training.devices import compute_device
    from hwprune.training.history import History
    from hwprune.training.loop import train

    model = project.new_model().to(compute_device(project.config.compute.device))
    given = project.given
    if given and not given.anew:
        return model.eval(), History(), given.source
    with reporter.stage("Training the unpruned network", "epochs") as progress:
        history = train(
            model,
            project.dataset.train,
            recipe(project),
            checkpoint=checkpoint_path(project),
            seed=project.config.seed,
            progress=progress,
            compiled=project.config.compute.compile,
            cuda_graph=project.config.compute.cuda_graph,
        )
    trained = "trained by the recipe of the pruned network"
    return model, history, f"{given.source}, {trained}" if given else trained
