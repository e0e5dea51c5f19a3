"""The judge of a search: a trained PruningNet, or the MACs when the project has no images."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune import artifacts
from hwprune.api import base
from hwprune.api.jobs import together
from hwprune.api.project import Project, digest
from hwprune.errors import HwpruneWarning, MissingArtifactError, ModelError
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure import space_file
from hwprune.training import workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from hwprune.config import Config, PruningNetConfig
    from hwprune.evolution.problem import AccuracyScore, Problem
    from hwprune.progress import Reporter
    from hwprune.pruningnet.net import PruningNet
    from hwprune.pruningnet.race import Racer
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.history import History

_CHANGE_NO_STEP = ("recompute", "recalibration_images", "eval_batch_size")  # of PruningNet's training
_UNIFORM = 3
_DEPTHS = 11  # shares of the blocks
_AT_ONCE = 4  # networks that each worker scores before worker 0 keeps what all found
_IMAGES, _BATCH = 512, 64  # training images that Taylor importance looks at


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
    start: tuple[object, ...] = (project.structure(), project.given_weights(), project.config.seed)
    if config.generator == "residual":
        start = (*start, base.checkpoint_path(project).name)
    trained = {name: value for name, value in asdict(config).items() if name not in _CHANGE_NO_STEP}
    key = digest(trained, kept, start, [gene.choices for gene in space.genes])
    return project.path(f"pruningnet-{key}.safetensors")


def fingerprint(project: Project, space: SearchSpace) -> str:
    """Stands for the judge: the trained weights and how they are recalibrated; "" before it is trained."""
    weights = artifacts.tensors_checksum(checkpoint_path(project, space))
    return weights and digest(weights, project.config.pruningnet.recalibration_images)


def make_pruningnet(project: Project, space: SearchSpace, reporter: Reporter) -> PruningNet:
    """An untrained PruningNet of the project's model; `residual` starts from the trained one, sorted."""
    from hwprune.training.devices import compute_device

    model = project.new_model()
    if project.config.pruningnet.generator == "residual":
        model = _sorted_base(project, space, reporter)
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


def _sorted_base(project: Project, space: SearchSpace, reporter: Reporter) -> nn.Module:
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
    images = project.splits.sub_train
    some = images.subset(np.random.default_rng(project.config.seed).permutation(len(images))[:_IMAGES])
    scores = importance(project.config.pruningnet.importance, model, space, some.batches(_BATCH))
    return sort_channels(model, space, scores).cpu()  # from where all generators start


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


def accuracy_score(project: Project, net: PruningNet) -> SharedScore:
    """Scores by a trained PruningNet; what was evaluated for an earlier search is not evaluated again."""
    from hwprune.pruningnet.evaluate import Evaluator
    from hwprune.pruningnet.outcomes import Outcomes
    from hwprune.pruningnet.race import CHANCE, Racer

    config, splits = project.config, project.splits
    evaluator = Evaluator(net, splits.sub_train, splits.sub_val, recipe(config.pruningnet), seed=config.seed)
    name = checkpoint_path(project, net.space).stem.replace("pruningnet", "evaluations")
    path = project.path(f"{name}.jsonl") if workers.is_main() else None
    of = digest(fingerprint(project, net.space), splits.sub_val.labels.tolist())
    chance = CHANCE if config.search.race else 0.0
    return SharedScore(Racer(evaluator, Outcomes(evaluator.stops, path, of), chance=chance))


class SharedScore:
    """A score whose networks all workers share out; one worker alone scores all of them itself.

    Args:
        racer: This worker's own score.
    """

    def __init__(self, racer: Racer) -> None:
        self.racer = racer

    def __call__(self, widths: Widths, /) -> float:
        """Score one network, on this worker."""
        return self.racer(widths)

    def race(self, networks: Sequence[Widths], bar: Widths | None, /) -> Iterator[float]:
        """Score networks; see `evolution.problem.RacingScore`."""
        if workers.world() == 1:
            yield from self.racer.race(networks, bar)
            return
        step = _AT_ONCE * workers.world()
        for first in range(0, len(networks), step):  # what a kill can lose
            part = networks[first : first + step]
            known = self.racer.outcomes.told([*part, *([bar] if bar else [])])
            with together("scores", networks=part, bar=bar, known=known):
                scores = self.share(part, bar, known)
            yield from scores

    def share(
        self, networks: Sequence[Widths], bar: Widths | None, known: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """This worker's part of a `race`, which all workers take part in; worker 0 learns all outcomes.

        Args:
            networks: What all of them score.
            bar: As in `race`.
            known: What worker 0 knows of these networks.
        """
        outcomes, own = self.racer.outcomes, workers.mine(networks)
        outcomes.learn(known)
        scores = workers.gather(list(self.racer.race(own, bar)), len(networks))
        rows = [(1 + outcomes.of(net)).astype(np.uint8).tobytes() for net in own]  # 0: not looked at
        images = self.racer.judge.stops[-1]
        for net, row in zip(networks, workers.gather_bytes(rows, len(networks), images), strict=True):
            found = np.frombuffer(row.rstrip(b"\0"), dtype=np.uint8) == 2
            if workers.is_main() and found.size > (seen := outcomes.of(net).size):
                outcomes.add(net, found[seen:])
        return scores


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
