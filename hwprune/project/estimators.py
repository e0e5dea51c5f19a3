"""Scores of networks: by the trained network's own weights, a PruningNet's, or the MACs without images."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune import artifacts
from hwprune.errors import HwpruneWarning, MissingArtifactError, ModelError
from hwprune.payloads import digest
from hwprune.project import base
from hwprune.project.jobs import together
from hwprune.project.own_task import digest_of_val
from hwprune.project.shared_score import SharedScore
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure import space_file
from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import nn

    from hwprune.config import Config, PruningNetConfig, ScoreName
    from hwprune.evolution.problem import AccuracyScore
    from hwprune.progress import Reporter
    from hwprune.project.folder import Project
    from hwprune.pruningnet.evaluate import Supernet
    from hwprune.pruningnet.inherited import Inherited
    from hwprune.pruningnet.net import PruningNet
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.history import History
    from hwprune.training.task import Task

_CHANGE_NO_STEP = ("recompute", "recalibration_images", "eval_batch_size")  # of PruningNet's training
_CLEAR = 4.0  # standard errors above the most frequent class, for a score that says something
_FAIR = 0.2  # of the unpruned network's lead over that class
_IMAGES, _BATCH = 512, 64  # training images that importance and repair look at


def score_kind(project: Project) -> ScoreName:
    """What the project is scored by; `auto` stays where its images decide, see `tells_apart`."""
    kind = project.config.search.score
    if kind == "auto":
        return "auto" if project.config.data.given else "macs"
    if kind != "macs":
        project.require_data()
    return kind


def recipe(config: PruningNetConfig) -> PruningNetSettings:
    """The training settings, without those that only the project knows."""
    own = set(PruningNetSettings.__dataclass_fields__)
    return PruningNetSettings(**{name: value for name, value in asdict(config).items() if name in own})


def checkpoint_path(project: Project, space: SearchSpace, networks: Sequence[Widths] = ()) -> Path:
    """The PruningNet's file; other settings give another file, so nothing trained is ever overwritten."""
    config, kept = project.config.pruningnet, project.config.data.sub_val
    start: tuple[object, ...] = (project.structure(), project.given_weights(), project.config.seed)
    if config.generator == "residual":
        start = (*start, base.checkpoint_path(project).name)
    trained = {name: value for name, value in asdict(config).items() if name not in _CHANGE_NO_STEP}
    key = digest(trained, kept, start, [gene.choices for gene in space.genes], *networks)
    return project.path(f"pruningnet-{key}.safetensors")


def fingerprint(project: Project, space: SearchSpace, networks: Sequence[Widths] = ()) -> str:
    """Stands for the score: its weights, how they are recalibrated; before any are trained, how that goes."""
    kind = score_kind(project)
    weights = []
    if kind in ("auto", "inherited"):
        own = project.config.pruningnet
        weights += [own.importance, own.repair, base.fingerprint(project)]
    if kind in ("auto", "pruningnet"):
        weights.append(artifacts.tensors_claim(checkpoint_path(project, space, networks), "checksum"))
    return digest(kind, weights, project.config.pruningnet.recalibration_images) if weights else kind


def inherited_net(project: Project, space: SearchSpace, reporter: Reporter) -> Inherited:
    """The trained unpruned network, its channels sorted, to be cut to any widths; nothing is generated."""
    from hwprune.pruningnet.inherited import Inherited
    from hwprune.training.devices import compute_device
    from hwprune.training.task import CLASSIFICATION

    model = sorted_base(project, space, reporter).to(compute_device(project.config.compute.device))
    some = _some_batches(project) if project.config.pruningnet.repair else ()
    return Inherited(model, space, some, importance=None, task=project.task or CLASSIFICATION)


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
        tied=config.model.tied,
        hidden_outside=config.pruningnet.hidden_outside,
        recompute=config.pruningnet.recompute,
    )


def sorted_base(project: Project, space: SearchSpace, reporter: Reporter) -> nn.Module:
    """The trained unpruned network, in each group the most important channels first."""
    from hwprune.project.network import traced
    from hwprune.pruningnet.importance import importance
    from hwprune.structure.rank import sort_channels
    from hwprune.training.task import CLASSIFICATION

    if project.config.model.tied:
        # Layers that share a width need not share an order: each is sorted by what its channels are worth.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HwpruneWarning)
            space = traced(project, tied=False)
    model, _, _ = base.trained_base(project, reporter)
    some, task = _some_batches(project), project.task or CLASSIFICATION
    scores = importance(project.config.pruningnet.importance, model, space, some, task)
    return sort_channels(model, space, scores).cpu()  # from where all generators start


def is_tuning(project: Project) -> bool:
    """Whether the PruningNet goes on from the trained network; the paper's begins with nothing."""
    return project.config.pruningnet.generator == "residual"


def _taught(project: Project, reporter: Reporter) -> Task:
    """What a PruningNet is trained for that the unpruned network teaches."""
    from hwprune.training.distill import Distilled
    from hwprune.training.task import Classification

    teacher, _, _ = base.trained_base(project, reporter)
    own = base.recipe(project)
    return Distilled(project.task or Classification.of(own), teacher, own)


def _some_batches(project: Project) -> Iterable[Any]:
    """Batches of training images that say what channels are worth, and what they have in common."""
    if project.own_task:
        return project.own_task.sub_train.some(_IMAGES)
    images, rng = project.splits.sub_train, np.random.default_rng(project.config.seed)
    return images.subset(rng.permutation(len(images))[:_IMAGES]).batches(_BATCH)


def train_pruningnet(
    project: Project, space: SearchSpace, reporter: Reporter, networks: Sequence[Widths] = ()
) -> tuple[PruningNet, History]:
    """Train the PruningNet, or read it when it is trained already; a job of all workers.

    Args:
        project: The project.
        space: Its search space.
        reporter: Told about progress.
        networks: What its steps train; by default any of the space, as in the paper.
    """
    from hwprune.pruningnet.fit import fit

    details = {"networks": networks, "epochs": project.config.pruningnet.epochs}
    with together("pruningnet", space=space_file.to_payload(vars(space)), **details):
        net = make_pruningnet(project, space, reporter)
        with reporter.stage(f"PruningNet ({project.config.pruningnet.generator})", "epochs") as progress:
            history = fit(
                net,
                project.splits.sub_train,
                _taught(project, reporter) if is_tuning(project) else project.task,
                recipe(project.config.pruningnet),
                checkpoint=checkpoint_path(project, space, networks),
                seed=project.config.seed,
                progress=progress,
                networks=networks,
            )
    return net, history


def make(
    project: Project, space: SearchSpace, kind: str, reporter: Reporter, networks: Sequence[Widths] = ()
) -> tuple[SharedScore, History]:
    """A score of networks by weights, `inherited` or a `pruningnet`'s; a job of all workers.

    Args:
        project: The project.
        space: Its search space.
        kind: `inherited` or `pruningnet`.
        reporter: Told about progress.
        networks: As in `train_pruningnet`.

    Returns:
        The score, and the epochs of the PruningNet.
    """
    from hwprune.training.history import History

    if kind == "inherited":
        with together("inherited", space=space_file.to_payload(vars(space))):
            return accuracy_score(project, inherited_net(project, space, reporter), kind), History()
    net, history = train_pruningnet(project, space, reporter, networks)
    return accuracy_score(project, net, kind, networks), history


def accuracy_score(
    project: Project, net: Supernet, kind: str, networks: Sequence[Widths] = ()
) -> SharedScore:
    """Scores by a network's weights; what was evaluated for an earlier search is not evaluated again."""
    from hwprune.pruningnet.evaluate import Evaluator
    from hwprune.pruningnet.outcomes import Outcomes
    from hwprune.pruningnet.race import CHANCE, Racer
    from hwprune.training.task import CLASSIFICATION

    config, splits = project.config, project.splits
    task = project.task or CLASSIFICATION
    own_recipe = recipe(config.pruningnet)
    evaluator = Evaluator(net, splits.sub_train, splits.sub_val, own_recipe, seed=config.seed, task=task)
    own = digest(kind, fingerprint(project, net.space, networks), [gene.choices for gene in net.space.genes])
    path = project.path(f"evaluations-{own}.jsonl") if workers.is_main() else None
    chance = CHANCE if config.search.race else 0.0
    of = digest(own, digest_of_val(project))
    return SharedScore(Racer(evaluator, Outcomes(evaluator.stops, path, of), chance=chance))


def load_pruningnet(project: Project, space: SearchSpace, file_name: str, reporter: Reporter) -> PruningNet:
    """The trained PruningNet that a search used.

    Raises:
        MissingArtifactError: The search used none, or its file is gone.
    """
    from hwprune.training.checkpoint import load_weights

    path = project.path(file_name) if file_name else checkpoint_path(project, space)
    if not path.is_file():
        raise MissingArtifactError(
            "There is no trained PruningNet to start from.",
            where=path,
            do="run `hwprune search` with images, or train with --start scratch",
        )
    net = make_pruningnet(project, space, reporter)
    load_weights(path, net)
    return net.eval()


def tells_apart(scores: Sequence[float], whole: float, floor: float, noise: float, step: float) -> bool:
    """Whether inherited weights still say something of networks, or have collapsed with the cuts.

    Args:
        scores: Of some networks on sub-val.
        whole: That of the unpruned network.
        floor: What is scored without having learnt anything: by naming the most frequent class, or, of a task
            of the user's own, by the untrained network.
        noise: Standard error of a score.
        step: What one image can change of it.

    Returns:
        Whether the best of them keeps a fair part of the unpruned network's lead over the floor, is above
        that beyond doubt, and they differ by more than the images drawn explain.
    """
    found = np.array(scores)
    lead = found.max() - floor
    clear = lead > _CLEAR * max(noise, step) and lead > _FAIR * (whole - floor)
    return bool(clear and found.std() > noise)


def sanity(score: AccuracyScore, space: SearchSpace, floor: float, best: float = 1.0) -> None:
    """Refuse a PruningNet that cannot tell networks apart.

    Args:
        score: The PruningNet's.
        space: Its search space.
        floor: As in `tells_apart`.
        best: The best score that there may be.

    Raises:
        ModelError: At full width it is hardly better than what has learnt nothing.
    """
    found = score(space.full())
    if found < floor + 0.1 * (best - floor):
        raise ModelError(
            "PruningNet has not learnt enough to judge networks.",
            got=f"{found:.1%} at full width, what has learnt nothing gives {floor:.1%}",
            do="train it longer (`epochs` under [pruningnet]) or with another learning rate",
        )


def floor_of(project: Project) -> float:
    """What is scored on sub-val without having learnt anything, see `tells_apart`."""
    from hwprune.training.evaluation import evaluate

    if project.task is not None:
        return evaluate(project.new_model(weights=False), project.splits.sub_val, task=project.task)
    labels = project.splits.sub_val.labels.tolist()
    return float(np.bincount(labels).max()) / len(labels)


def best_of(project: Project, reporter: Reporter) -> float:
    """The best score that there may be: 1, and of a task of the user's own the unpruned network's."""
    from hwprune.training.evaluation import evaluate

    if project.task is None:
        return 1.0
    return evaluate(base.trained_base(project, reporter)[0], project.splits.sub_val, task=project.task)
