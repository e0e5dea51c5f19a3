"""What scores the networks of a search: chosen once for all its budgets."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprune.errors import BudgetError
from hwprune.evolution.algorithm import SearchSettings
from hwprune.evolution.operators import Genome
from hwprune.evolution.sampling import Sampler
from hwprune.project import estimators
from hwprune.project.epochs import PRUNINGNET_FROM, forward_share
from hwprune.project.own_task import remarks_on
from hwprune.project.shared_score import SharedScore
from hwprune.searching.initial import initial_population, macs_score
from hwprune.searching.limits import common_space
from hwprune.searching.searcher import Searcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.evolution.problem import AccuracyScore, Problem
    from hwprune.evolution.search import SearchOutcome
    from hwprune.progress import Reporter
    from hwprune.project.folder import Project
    from hwprune.searching.limits import Budget
    from hwprune.structure.space import SearchSpace, Widths

_DRAWN = 8  # networks that a score must tell apart, where no uniform one is in the budget ...
_LOOKED_AT = 4  # ... and else, of the first ones: the floor, which is scored anyway
_BAND = 512  # networks


class Scoring:
    """The score of a search: by the trained network's weights, a PruningNet's, or MACs.

    Args:
        project: The project.
        space: Its search space.
        seed: Seed of the search.
        reporter: Told about progress.
        epochs: All that may be spent on training after the unpruned network; 0 where nothing was said.

    Attributes:
        problems: What is searched for, with any score: one for each budget, the loosest first. To be set
            before anything else is asked for.
    """

    def __init__(
        self, project: Project, space: SearchSpace, seed: int, reporter: Reporter, epochs: float = 0.0
    ) -> None:
        self.project, self.space, self.seed, self.reporter = project, space, seed, reporter
        self.epochs = epochs
        self.problems: Sequence[Problem] = ()
        self._look: tuple[SharedScore, Sequence[Widths]] | None = None  # at inherited weights, for `auto`

    @property
    def score(self) -> AccuracyScore:
        """Scores one network, or several in a race."""
        return self._chosen[0]

    @property
    def made(self) -> dict[str, Any]:
        """What a result tells about it."""
        return self._chosen[1]

    def figures(self, widths: Widths) -> dict[str, Any]:
        """The score of a network, how close it is, and that of the unpruned one."""
        whole = self.score(self.space.full())
        return {"score": self.score(widths), "score_error": self._error(widths), "base_score": whole}

    def with_ties(self, outcome: SearchOutcome) -> SearchOutcome:
        """The outcome with networks that the images do not tell from the best one ranked by their MACs."""
        if not (ranked := outcome.ranked()):
            return outcome
        best = ranked[0].score
        noise = self._error(ranked[0].widths)
        tied = [one.widths for one in outcome.candidates if one.score >= best - noise]
        capacity = dict(zip(tied, self.space.macs(np.array(tied)).tolist(), strict=True))
        return replace(outcome, noise=noise, capacity=capacity)

    def _error(self, widths: Widths) -> float:
        """Standard error of a score by the number of images; 0 of MACs, and of a metric over a set."""
        return self.score.racer.error(widths) if isinstance(self.score, SharedScore) else 0.0

    def spent(self, outcome: SearchOutcome) -> dict[str, float]:
        """What the search took of the epochs, as epochs of the network that it found."""
        score, images = self.score, 0
        seen = {one.widths for one in outcome.candidates}
        found = {"PruningNet": float(len(self.made.get("pruningnet_history", ())))}
        if self._look is not None:
            look, networks = self._look
            images += look.images(set(networks) - seen if look is score else networks)
        if isinstance(score, SharedScore):
            images += score.images(seen)
        if images:
            found["scoring"] = forward_share(self.project) * images / len(self.project.dataset.train)
        return {name: epochs for name, epochs in found.items() if epochs}

    @functools.cached_property
    def _chosen(self) -> tuple[AccuracyScore, dict[str, Any]]:
        """What scores networks, and what the result tells about it."""
        kind = estimators.score_kind(self.project)
        if kind == "macs":
            return macs_score(self.space), {"score_kind": kind}
        for note in (*remarks_on(self.project), self.project.splits.told):
            self.reporter.note(note)
        if kind != "pruningnet":
            score, _ = estimators.make(self.project, self.space, "inherited", self.reporter)
            if kind == "inherited" or self._tells_apart(score):
                return score, {"score_kind": "inherited"}
            if 0 < self.epochs < PRUNINGNET_FROM:
                self.reporter.note(
                    f"The trained weights do not tell networks of this budget apart; {self.epochs:g} epochs "
                    "are too few for a PruningNet: the network of most MACs is taken."
                )
                return macs_score(self.space), {"score_kind": "macs"}
            self.reporter.note(
                "The trained weights do not tell networks of this budget apart: a PruningNet is trained."
            )
        score, history = estimators.make(self.project, self.space, "pruningnet", self.reporter, self._band)
        best = estimators.best_of(self.project, self.reporter)
        estimators.sanity(score, self.space, estimators.floor_of(self.project), best)
        name = estimators.checkpoint_path(self.project, self.space, self._band).name
        epochs = tuple(history.to_payload())
        return score, {"pruningnet": name, "pruningnet_history": epochs, "score_kind": "pruningnet"}

    def _tells_apart(self, score: SharedScore) -> bool:
        """Whether a score tells the first networks of the tightest budget apart."""
        problem = self.problems[-1]
        inside = [net for net in initial_population(problem) if problem.feasible(np.array([net]))[0]][
            :_LOOKED_AT
        ]
        if len(inside) < 2:
            drawn = Sampler(problem).draw(_DRAWN, np.random.default_rng(self.seed))
            inside = [(*net,) for net in Genome(self.space).widths(drawn).tolist()]
        self._look = score, [*inside, self.space.full()]
        whole = score(self.space.full())
        scores = [score(net) for net in inside]
        noise = math.sqrt(sum(score.racer.error(net) ** 2 for net in inside) / len(inside))
        step = 0.0 if self.project.task else 1 / len(self.project.splits.sub_val)
        floor = estimators.floor_of(self.project)
        return estimators.tells_apart(scores, whole, floor, noise, step)

    @functools.cached_property
    def _band(self) -> tuple[Widths, ...]:
        """Networks just inside the budgets, which PruningNet's steps train where it goes on from a base."""
        if not estimators.is_tuning(self.project):
            return ()
        rng, found = np.random.default_rng(self.seed), []
        for problem in self.problems:
            with contextlib.suppress(BudgetError):  # of a front some points may be impossible
                drawn = Sampler(problem).draw(_BAND // len(self.problems), rng)
                found += Genome(self.space).widths(drawn).tolist()
        return tuple(map(tuple, found))

    def fingerprint(self) -> str:
        """Stands for the score: the weights behind it, once they are trained."""
        networks = self._band if estimators.score_kind(self.project) in ("auto", "pruningnet") else ()
        return estimators.fingerprint(self.project, self.space, networks)


def searcher_of(
    project: Project, budgets: Sequence[Budget], seed: int, reporter: Reporter, epochs: float = 0.0
) -> Searcher:
    """What searches a project's networks.

    Args:
        project: The project.
        budgets: What to keep an eye on; the first is the latency on the first device.
        seed: Seed of the evolution.
        reporter: Told about progress.
        epochs: All that may be spent on training after the unpruned network; 0 where nothing was said.
    """
    config = project.config
    own = {item.name for item in fields(SearchSettings)}
    settings = SearchSettings(**{k: v for k, v in asdict(config.search).items() if k in own})
    space = common_space([one.target.space for one in budgets if one.target is not None])
    facts = {
        "model": config.model.name,
        "images": config.data.given,
        "metric": project.metric,
        "structure": project.structure(),
        "epochs": epochs,
    }
    scoring = Scoring(project, space, seed, reporter, epochs)
    return Searcher(scoring, budgets, settings, seed, project.path(""), facts, reporter)
