"""The judge of a search: a trained PruningNet, or the MACs when the project has no images."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from hwprune.api.project import Project, digest
from hwprune.errors import MissingArtifactError, ModelError
from hwprune.pruningnet.settings import PruningNetSettings

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.config import PruningNetConfig
    from hwprune.evolution.problem import AccuracyScore
    from hwprune.progress import Reporter
    from hwprune.pruningnet.net import PruningNet
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.history import History


def score_kind(project: Project) -> str:
    """`pruningnet` or `macs`, as the project says or, on `auto`, as its data allows."""
    kind = project.config.search.score
    if kind == "auto":
        return "pruningnet" if project.config.data.source else "macs"
    if kind == "pruningnet":
        project.require_data()
    return kind


def macs_score(space: SearchSpace) -> AccuracyScore:
    """A stand-in for accuracy without images: the share of the unpruned network's MACs that is kept."""
    full = float(space.macs(space.full()))

    def score(widths: Widths, /) -> float:
        return float(space.macs(widths)) / full

    return score


def recipe(config: PruningNetConfig) -> PruningNetSettings:
    """The training settings, without those that only the project knows."""
    own = set(PruningNetSettings.__dataclass_fields__)
    return PruningNetSettings(**{name: value for name, value in asdict(config).items() if name in own})


def checkpoint_path(project: Project, space: SearchSpace) -> Path:
    """The PruningNet's file; other settings give another file, so nothing trained is ever overwritten."""
    config, kept = project.config.pruningnet, project.config.data.sub_val_per_class
    start = (project.structure(), project.given_weights(), project.config.seed)
    key = digest(config, kept, start, [group.choices for group in space.groups])
    return project.path(f"pruningnet-{key}.safetensors")


def make_pruningnet(project: Project, space: SearchSpace) -> PruningNet:
    """An untrained PruningNet of the project's model."""
    from hwprune.pruningnet.net import PruningNet

    config = project.config.pruningnet
    return PruningNet(project.new_model(), space, config.generator, config.hidden, seed=project.config.seed)


def train_pruningnet(project: Project, space: SearchSpace, reporter: Reporter) -> tuple[PruningNet, History]:
    """Train the PruningNet, or read it when it is trained already."""
    from hwprune.pruningnet.fit import fit

    net = make_pruningnet(project, space)
    with reporter.stage(f"PruningNet ({project.config.pruningnet.generator})", "epochs") as progress:
        history = fit(
            net,
            project.splits.sub_train,
            recipe(project.config.pruningnet),
            checkpoint=checkpoint_path(project, space),
            seed=project.config.seed,
            progress=progress,
        )
    return net, history


def load_pruningnet(project: Project, space: SearchSpace, file_name: str) -> PruningNet:
    """The trained PruningNet that a search used.

    Raises:
        MissingArtifactError: The search used none, or its file is gone.
    """
    from hwprune.pruningnet.fit import fit

    path = project.path(file_name) if file_name else checkpoint_path(project, space)
    if not path.is_file():
        raise MissingArtifactError(
            "There is no trained PruningNet to start from.",
            where=path,
            do="run `hwprune search` with images, or train with --start scratch",
        )
    net = make_pruningnet(project, space)
    settings = recipe(project.config.pruningnet)
    fit(net, project.splits.sub_train, settings, checkpoint=path, seed=project.config.seed)
    return net


def sanity(net: PruningNet, score: AccuracyScore, classes: int) -> None:
    """Refuse a judge that cannot tell networks apart.

    Raises:
        ModelError: At full width it is hardly better than guessing.
    """
    top1 = score(net.space.full())
    if top1 < 1 / classes + 0.1 * (1 - 1 / classes):
        raise ModelError(
            "PruningNet has not learnt enough to judge networks.",
            got=f"{top1:.1%} at full width, guessing gives {1 / classes:.1%}",
            do="train it longer (`epochs` under [pruningnet]) or with another learning rate",
        )


def starts(space: SearchSpace) -> list[Widths]:
    """Networks to try first: uniform widths, which are shrunk into the budget."""
    return [space.uniform(float(ratio)) for ratio in np.linspace(0.3, 1.0, 8)]
