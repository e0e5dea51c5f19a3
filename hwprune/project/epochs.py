"""One budget of training: what PruningNet, the scoring of networks and the final training get of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hwprune.errors import UsageError
from hwprune.logbook import Logbook
from hwprune.payloads import digest
from hwprune.project import base

if TYPE_CHECKING:
    from hwprune.project.folder import Project
    from hwprune.structure.space import SearchSpace, Widths

SCORING = 0.1  # of the epochs, at most about
_STEP = 3  # forward passes that a training step costs: one, and a backward pass of twice its work
_TEACHER = 2  # what a teacher's forward pass costs, of twice the size and more
_GENERATIONS = 3  # at least, where networks suffice for as many
PRUNINGNET_FROM = 30  # epochs: with fewer its part is worth more in the final training
_PRUNINGNET = 1 / 3  # of the epochs, where one is trained
_LEAST = 8  # networks of a generation
_TIMED = 4  # steps
_RACED = 0.6  # of sub-val's images that a race looks at, about


def forward_share(project: Project) -> float:
    """What running an image through a network costs, of a training step on it."""
    return 1 / (_STEP + (_TEACHER if project.config.training.distill != "off" else 0))


def within_epochs(project: Project, epochs: float) -> Project:
    """The project with a search and a PruningNet that leave most of `epochs` to the final training.

    Raises:
        UsageError: Not a number of epochs.
    """
    if not 0 <= epochs < math.inf:
        raise UsageError(
            "--epochs is not a number of epochs.", got=epochs, allowed="above 0, such as 10 or 2.5"
        )
    if not epochs:
        return project
    project.require_data()
    search, judge, splits = project.config.search, project.config.pruningnet, project.splits
    seen = judge.recalibration_images + len(splits.sub_val) * (_RACED if search.race else 1.0)
    networks = SCORING * epochs * len(project.dataset.train) / (forward_share(project) * seen)
    population = max(_LEAST, min(search.population, round(networks / _GENERATIONS)))
    share = population / search.population
    search = replace(
        search,
        population=population,
        parents=min(search.parents, max(2, round(search.parents * share))),
        mutants=int(search.mutants * share),
        crossovers=int(search.crossovers * share),
        generations=max(1, min(search.generations, int(networks // population))),
    )
    judge = replace(judge, epochs=max(1, round(_PRUNINGNET * epochs)))
    return project.with_config(search=search, pruningnet=judge)


def epochs_in(project: Project, seconds: float, space: SearchSpace, network: Widths) -> float:
    """How many epochs of training fit into a time, by a few timed steps; kept, so that it is asked once.

    Args:
        project: The project.
        seconds: The time.
        space: Its search space.
        network: One that keeps the budget, for its size.
    """
    book = Logbook(project.path("step-times.jsonl"), "step-times", 1, {})
    key = digest(project.structure(), base.recipe(project), project.config.training.distill, network)
    known = {entry["of"]: entry["seconds"] for entry in book.entries}
    if key not in known:
        known[key] = _seconds_of_an_epoch(project, space, network)
        book.add({"of": key, "seconds": known[key]})
    return float(f"{seconds / known[key]:.2g}")


def _seconds_of_an_epoch(project: Project, space: SearchSpace, network: Widths) -> float:
    from hwprune.structure.prune import prune
    from hwprune.training.devices import compute_device
    from hwprune.training.loop import train

    device = compute_device(project.config.compute.device)
    model = project.new_model().to(device)
    teacher = model if project.config.training.distill != "off" else None
    settings, images = base.recipe(project), project.dataset.train
    some = images.subset(range(min(len(images), _TIMED * settings.batch_size)))
    pruned = prune(model, space, network)
    history = train(pruned, some, replace(settings, epochs=2), teacher=teacher)
    return history.epochs[-1].seconds * len(images) / len(some)
