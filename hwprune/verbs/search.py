"""`hwprune search`: evolve under the budgets, measure what is returned."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune.config import ScoreName
from hwprune.errors import UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.budgets import parse_budgets, resolve
from hwprune.project.epochs import epochs_in, within_epochs
from hwprune.project.folder import Project
from hwprune.project.lock import locked
from hwprune.project.scoring import searcher_of
from hwprune.results import FrontResult, SearchResult
from hwprune.searching.front import Span, search_front, span_of
from hwprune.units import parse_seconds

if TYPE_CHECKING:
    from hwprune.searching.searcher import Searcher


@locked
def search(
    *,
    latency: str | Sequence[str] = (),
    macs: str = "",
    params: str = "",
    size: str = "",
    points: int = 0,
    project: Path = Path("."),
    device: str = "",
    profile: str = "",
    score: ScoreName | None = None,
    generations: int = 0,
    population: int = 0,
    epochs: float = 0.0,
    time: str = "",
    seed: int | None = None,
    reporter: Reporter = QUIET,
) -> SearchResult | FrontResult:
    """Find the best network within all budgets.

    Trains first what it scores with: the unpruned network, if no weights are given, and a PruningNet only
    where the weights of that tell no networks apart.

    Args:
        latency: A budget: 15ms, 800us, 0.015s, or 60% of the unpruned network. For several devices give it
            several times: cpu/cpu-1t=60%, cpu/cpu=8ms (DEVICE/PROFILE; DEVICE alone is its default profile),
            or a latency table's FOLDER=20ms, which is predicted only. A range such as 5ms:20ms asks for a
            front of networks, see --points.
        macs: A budget of multiply-accumulates, such as 300M or 60%.
        params: A budget of parameters, such as 2M or 60%.
        size: A budget of bytes for the ONNX file, such as 4MB or 60%.
        points: Budgets to search within a range of latencies.
        project: The project folder.
        device: cpu or cuda:0, for a budget that names no device; "" takes the project's.
        profile: A target profile for it; "" takes the project's or the device's default.
        score: inherited (the trained network's weights), pruningnet (generated ones), macs (no images
            needed), or auto: the first that tells networks of this budget apart; by default the project's.
        generations: Generations of the evolution; 0 takes the project's.
        population: Networks of one generation; 0 takes the project's.
        epochs: Epochs to spend in all after the unpruned network: scoring, PruningNet if one is needed, and
            the final training, to which `train` gives what is left; 0 takes the project's settings for each.
        time: The same as a time, such as 30m: it is turned into epochs by a few timed steps.
        seed: Seed of the evolution; by default the project's, which always decides the split of the data.
        reporter: Told about progress.

    Returns:
        The network with its predicted and measured figures, or a front of such networks; also written to the
        work folder. Of a front the most accurate is the chosen one until `--point` of train or export takes
        another.

    Raises:
        UsageError: A budget cannot be understood.
        BudgetError: No network keeps them; tells the fastest network's figure.
        ArtifactError: `hwprune profile` has not been run here, or for another model or device.
    """
    texts = (latency,) if isinstance(latency, str) else tuple(latency)
    span, latency = span_of(latency, points)
    asked = parse_budgets(latency, macs, params, size)
    opened = within_epochs(_with_settings(Project(project), score, generations, population), epochs)
    own_seed = opened.config.seed if seed is None else _checked(seed)
    budgets = resolve(opened, asked, device, profile, reporter)
    if time and not epochs:
        epochs = _epochs_of(time, opened, searcher_of(opened, budgets, own_seed, reporter))
        opened = within_epochs(opened, epochs)
    searcher = searcher_of(opened, budgets, own_seed, reporter, epochs)
    limits = {"latency": texts, "macs": macs, "params": params, "size": size, "points": points}
    places = {"device": device, "profile": profile}
    evolution = {"score": score, "generations": generations, "population": population}
    command = _command(**limits, **places, **evolution, epochs=epochs, seed=own_seed)
    return _answer(opened, searcher, span, command)


def _epochs_of(time: str, project: Project, searcher: Searcher) -> float:
    """What `--time` comes to in epochs."""
    project.require_data()
    epochs = epochs_in(project, parse_seconds(time, "--time"), searcher.space, searcher.drawn())
    searcher.reporter.note(f"{time} are about {epochs:g} epochs here.")
    return epochs


def _answer(
    project: Project, searcher: Searcher, span: Span | None, command: str
) -> SearchResult | FrontResult:
    """Search one budget or a range of them, and keep what is found with the command that asked for it."""
    space = searcher.space
    if span is None:
        found = replace(searcher.run(), command=command)
        project.choose(found, space)
        return found
    front = search_front(searcher, span)
    front = replace(front, points=tuple(replace(one, command=command) for one in front.points))
    front.save(project.path("front.json"))
    project.choose(front.points[-1], space)  # the most accurate, until another one is taken
    return front


def _command(**options: object) -> str:
    """The command for these options; those that were not given are left out."""
    parts = ["hwprune", "search"]
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            if one or name == "seed":
                parts += [f"--{name}", str(one)]
    return shlex.join(parts)


def _checked(seed: int) -> int:
    if not 0 <= seed < 2**31:
        raise UsageError("--seed is not a seed.", got=seed, allowed="0 to 2147483647")
    return seed


def _with_settings(opened: Project, score: ScoreName | None, generations: int, population: int) -> Project:
    """The project with the options of the command in place of its settings."""
    for name, value, what in (
        ("--generations", generations, "generations"),
        ("--population", population, "networks"),
    ):
        if value < 0:
            raise UsageError(
                f"{name} is not a number of {what}.", got=value, allowed="1 or more; 0: the project's"
            )
    settings = opened.config.search
    settings = replace(
        settings, score=score or settings.score, generations=generations or settings.generations
    )
    if population:
        half, parents = population // 2, min(settings.parents, population)
        settings = replace(settings, population=population, mutants=half, crossovers=half, parents=parents)
    return opened.with_config(search=settings)
