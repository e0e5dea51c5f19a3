"""The judge of a search: the trained network's own weights, a PruningNet's, or the MACs without images."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from hwprune import artifacts
from hwprune.api import base
from hwprune.api.jobs import together
from hwprune.api.project import Project, digest
from hwprune.api.shared_score import SharedScore
from hwprune.errors import HwpruneWarning, MissingArtifactError, ModelError
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure import space_file
from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import nn

    from hwprune.config import Config, PruningNetConfig, ScoreName
    from hwprune.data.images import Images
    from hwprune.evolution.problem import AccuracyScore, Problem
    from hwprune.progress import Reporter
    from hwprune.pruningnet.evaluate import Supernet
    from hwprune.pruningnet.inherited import Inherited
    from hwprune.pruningnet.net import PruningNet
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.history import History

_CHANGE_NO_STEP = ("recompute", "recalibration_images", "eval_batch_size")  # of PruningNet's training
_CLEAR = 4.0  # standard errors above the majority class, for a score that says something
_UNIFORM = 3
_DEPTHS = 11  # shares of the blocks
_IMAGES, _BATCH = 512, 64  # training images that Taylor importance looks at


def score_kind(project: Project) -> ScoreName:
    """What the project is scored by; `auto` stays where its images decide, see `tells_apart`."""
    kind = project.config.search.score
    if kind == "auto":
        return "auto" if project.config.data.source else "macs"
    if kind != "macs":
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
    start: tuple[object, ...] = (project.structure(), project.given_weights(), project.config.seed)
    if config.generator == "residual":
        start = (*start, base.checkpoint_path(project).name)
    trained = {name: value for name, value in asdict(config).items() if name not in _CHANGE_NO_STEP}
    key = digest(trained, kept, start, [gene.choices for gene in space.genes])
    return project.path(f"pruningnet-{key}.safetensors")


def fingerprint(project: Project, space: SearchSpace) -> str:
    """Stands for the judge: its weights and how they are recalibrated; before it is trained, for that."""
    kind = score_kind(project)
    weights = []
    if kind in ("auto", "inherited"):
        own = project.config.pruningnet
        weights += [own.importance, own.repair, base.fingerprint(project)]
    if kind in ("auto", "pruningnet"):
        weights.append(artifacts.tensors_checksum(checkpoint_path(project, space)))
    return digest(kind, weights, project.config.pruningnet.recalibration_images) if weights else kind


def inherited_net(project: Project, space: SearchSpace, reporter: Reporter) -> Inherited:
    """The trained unpruned network, its channels sorted, to be cut to any widths; nothing is generated."""
    from hwprune.pruningnet.inherited import Inherited
    from hwprune.training.devices import compute_device

    model = sorted_base(project, space, reporter).to(compute_device(project.config.compute.device))
    images = _some_images(project).batches(_BATCH) if project.config.pruningnet.repair else ()
    return Inherited(model, space, images)


def make_pruningnet(project: Project, space: SearchSpace, reporter: Reporter) -> PruningNet:
    """An untrained PruningNet of the project's model; `residual` starts from the trained one, sorted."""
    from hwprune.training.devices import compute_device

    model = project.new_model()
    if project.config.pruningnet.generator == "residual":
        model = sorted_base(project, space, reporter)
    return pruningnet_of(project.config, model, space).to(compute_device(project.config.compute.device))


def pruningnet_of(config: Config, model: nn.Module, space: SearchSpace) -> PruningNet:
    """An untrained PruningNet of `model` as the settings describe it."""
    from hwprune.pruningnet.net import PruningNet

    return PruningNet(
        model,
        space,
        config.pruningnet.generator,
        config.pruningnet.hidden,
        seed=config.seed,
        blocks=config.model.blocks,
        hidden_outside=config.pruningnet.hidden_outside,
        recompute=config.pruningnet.recompute,
    )


def sorted_base(project: Project, space: SearchSpace, reporter: Reporter) -> nn.Module:
    """The trained unpruned network, in each group the most important channels first."""
    from hwprune.api.subject import traced
    from hwprune.pruningnet.importance import importance
    from hwprune.structure.rank import sort_channels

    if project.config.model.blocks:
        # Layers that share a width need not share an order: each is sorted by what its channels are worth.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HwpruneWarning)
            space = traced(project, tied=False)
    model, _, _ = base.trained_base(project, reporter)
    some = _some_images(project).batches(_BATCH)
    scores = importance(project.config.pruningnet.importance, model, space, some)
    return sort_channels(model, space, scores).cpu()  # from where all generators start


def _some_images(project: Project) -> Images:
    """Training images that say what channels are worth, and what they have in common."""
    images, rng = project.splits.sub_train, np.random.default_rng(project.config.seed)
    return images.subset(rng.permutation(len(images))[:_IMAGES])


def train_pruningnet(project: Project, space: SearchSpace, reporter: Reporter) -> tuple[PruningNet, History]:
    """Train the PruningNet, or read it when it is trained already; a job of all workers."""
    from hwprune.pruningnet.fit import fit

    with together("pruningnet", space=space_file.to_payload(vars(space))):
        net = make_pruningnet(project, space, reporter)
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


def make(project: Project, space: SearchSpace, kind: str, reporter: Reporter) -> tuple[SharedScore, History]:
    """A score of networks by weights, `inherited` or a `pruningnet`'s; a job of all workers.

    Returns:
        The score, and the epochs of the PruningNet.
    """
    from hwprune.training.history import History

    if kind == "inherited":
        with together("inherited", space=space_file.to_payload(vars(space))):
            return accuracy_score(project, inherited_net(project, space, reporter), kind), History()
    net, history = train_pruningnet(project, space, reporter)
    return accuracy_score(project, net, kind), history


def accuracy_score(project: Project, net: Supernet, kind: str) -> SharedScore:
    """Scores by a network's weights; what was evaluated for an earlier search is not evaluated again."""
    from hwprune.pruningnet.evaluate import Evaluator
    from hwprune.pruningnet.outcomes import Outcomes
    from hwprune.pruningnet.race import CHANCE, Racer

    config, splits = project.config, project.splits
    evaluator = Evaluator(net, splits.sub_train, splits.sub_val, recipe(config.pruningnet), seed=config.seed)
    own = digest(kind, fingerprint(project, net.space), [gene.choices for gene in net.space.genes])
    path = project.path(f"evaluations-{own}.jsonl") if workers.is_main() else None
    chance = CHANCE if config.search.race else 0.0
    of = digest(own, splits.sub_val.labels.tolist())
    return SharedScore(Racer(evaluator, Outcomes(evaluator.stops, path, of), chance=chance))


def load_pruningnet(project: Project, space: SearchSpace, file_name: str, reporter: Reporter) -> PruningNet:
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
    net = make_pruningnet(project, space, reporter)
    settings = recipe(project.config.pruningnet)
    fit(net, project.splits.sub_train, settings, checkpoint=path, seed=project.config.seed)
    return net


def tells_apart(scores: Iterable[float], labels: Sequence[int]) -> bool:
    """Whether a score says more of networks than chance does.

    Args:
        scores: Top-1 of some networks on sub-val, 0 to 1.
        labels: The classes of sub-val's images.

    Returns:
        Whether the best of them is far above naming the most frequent class, and they differ by more than
        the images drawn explain.
    """
    found, count = np.array([*scores]), len(labels)
    majority = float(np.bincount(labels).max()) / count
    noise = float(np.sqrt((found * (1 - found)).mean() / count))
    return bool(found.max() - majority > _CLEAR * max(noise, 1 / count) and found.std() > noise)


def sanity(score: AccuracyScore, space: SearchSpace, labels: Sequence[int]) -> None:
    """Refuse a PruningNet that cannot tell networks apart.

    Raises:
        ModelError: At full width it is hardly better than naming the most frequent class.
    """
    top1, majority = score(space.full()), float(np.bincount(labels).max()) / len(labels)
    if top1 < majority + 0.1 * (1 - majority):
        raise ModelError(
            "PruningNet has not learnt enough to judge networks.",
            got=f"{top1:.1%} at full width, naming the most frequent class gives {majority:.1%}",
            do="train it longer (`epochs` under [pruningnet]) or with another learning rate",
        )


def starts(problem: Problem) -> list[Widths]:
    """Networks to try first, by rules.

    The largest uniform ones in the budget, wider ones, to be shrunk into it, and where blocks may go, for
    each depth the widest uniform one in the budget.
    """
    space = problem.space
    uniform = list(dict.fromkeys(space.uniform(float(ratio)) for ratio in np.linspace(0.1, 1.0, 91)))
    networks = np.array(uniform)
    inside = problem.feasible(networks)
    largest = np.argsort(-np.where(inside, space.macs(networks), -1), kind="stable")
    shrunk = [space.uniform(float(ratio)) for ratio in np.linspace(0.4, 1.0, 5)]
    chosen = [*(uniform[i] for i in largest[: min(_UNIFORM, int(inside.sum()))]), *shrunk]
    pairs = itertools.zip_longest(chosen, _shallow(problem) if space.blocks else [])
    return [one for pair in pairs for one in pair if one is not None]


def _shallow(problem: Problem) -> list[Widths]:
    """The widest uniform network in the budget of each depth, which covers depth alone and both together."""
    space, found = problem.space, []
    ratios = np.linspace(1.0, 0.1, 46).tolist()
    for depth in np.linspace(0.0, 1.0, _DEPTHS).tolist():
        networks = [space.uniform(ratio, depth) for ratio in ratios]
        inside = np.flatnonzero(problem.feasible(np.array(networks)))
        found += [networks[int(inside[0])]] if len(inside) else []
    return list(dict.fromkeys(found))
