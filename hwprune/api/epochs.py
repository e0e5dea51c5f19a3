"""One budget of training: what PruningNet, the scoring of networks and the final training get of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hwprune.errors import UsageError

if TYPE_CHECKING:
    from hwprune.api.project import Project

FORWARD = 1 / 3  # of a training step: a forward pass, beside one and a backward pass of twice its work
SCORING = 0.1  # of the epochs, at most about
_PRUNINGNET = 1 / 3  # of the epochs, where one is trained
_LEAST = 8  # networks of a generation
_RACED = 0.6  # of sub-val's images that a race looks at, about


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
    networks = SCORING * epochs * len(project.dataset.train) / (FORWARD * seen)
    population = max(_LEAST, min(search.population, round(networks)))
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
