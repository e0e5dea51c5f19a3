"""Other ways to begin and to make fronts, on one judge and with the same number of evaluations.

    python benchmarks/search_starts.py --seed 0

The judge is the `residual` PruningNet of `comparison.py --seeds 0`, trained now if need be. First: the
default search against the same search with the optimum of an additive importance (`search_additive.py`) among
its first networks, and that optimum alone; 144 evaluations on 2,500 images at 50 and at 30 % of the latency,
two seeds; what is found is scored on all 10,000 held-out images. Then: a front of 30 to 60 % of the latency
by searches at five budgets against NSGA-II, as `hwprune search --latency 30%:60%` has it, with as many
evaluations; told by the hypervolume of the front of all that was evaluated, over top-1 on all held-out
images. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import finish
from comparison import Comparison
from comparison_cases import BUDGETS, CASES, EVOLUTION
from comparison_setup import DATA, Setup
from search_additive import additive_optimum, worth_of

from hwprune.evolution.pareto import pareto_front
from hwprune.evolution.problem import Constraint, Problem
from hwprune.evolution.search import search
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.searching.initial import initial_population

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.structure.space import Widths

SEEDS, IMAGES = (1, 2), 2500
FRONT = tuple(np.geomspace(0.6, 0.3, 5).tolist())  # shares of the latency
FRONT_EVOLUTION = replace(EVOLUTION, generations=3)
FRONT_EVALUATIONS = len(FRONT) * FRONT_EVOLUTION.population * FRONT_EVOLUTION.generations
MOST_GENERATIONS = 200
IMPORTANCE_BATCHES, BATCH = 8, 64


class Bench:
    """The judge on few images for searching, and on all for the verdict."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison, setup = comparison, comparison.setup
        self.exact = comparison.judge("residual", "starts")
        few = setup.held_out.subset(np.random.default_rng(0).permutation(len(setup.held_out))[:IMAGES])
        evaluator = Evaluator(self.exact.judge.net, setup.train, few, self.exact.judge.settings)
        known = Outcomes(evaluator.stops, comparison.runs.work / "evaluations-starts.jsonl")
        self.score = Racer(evaluator, known, chance=0.0)

    def problem(self, share: float) -> Problem:
        """The networks within a share of the latency."""
        setup = self.comparison.setup
        limit = Constraint(
            name="latency", predict=setup.model.predict, limit=share * setup.base_ms, unit="ms"
        )
        return Problem(space=setup.space, constraints=(limit,), accuracy=self.score)

    def additive(self, kind: Any, problem: Problem) -> Widths:
        """The optimum of an additive importance of the trained base network."""
        setup, base = self.comparison.setup, self.comparison.base()
        some = setup.train.subset(np.arange(IMPORTANCE_BATCHES * BATCH))
        scores = importance(kind, base, setup.space, some.batches(BATCH))
        return additive_optimum(problem, worth_of(setup.space, scores))


def main() -> None:
    """Compare beginnings, then fronts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the comparison whose judge is used")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    bench = Bench(Comparison(Setup(CASES["resnet20_wide"], options.data), options.seed))
    begins = {budget: beginnings(bench, share) for budget, share in BUDGETS.items()}
    fronts = {str(seed): front_figures(bench, seed) for seed in SEEDS}
    finish(
        "search_starts",
        {
            "evaluations": EVOLUTION.population * EVOLUTION.generations,
            "beginnings": begins,
            "front_evaluations": FRONT_EVALUATIONS,
            "fronts": fronts,
        },
    )


def beginnings(bench: Bench, share: float) -> dict[str, Any]:
    """Top-1 on all held-out images of what each beginning leads to."""
    problem = bench.problem(share)
    usual = initial_population(problem)
    optima = {kind: bench.additive(kind, problem) for kind in ("l1", "taylor")}
    ways = {"the default": usual} | {
        f"and the optimum by {kind}": [one, *usual] for kind, one in optima.items()
    }
    found: dict[str, Any] = {
        f"the optimum by {kind} alone": {"top1": [bench.exact(one)]} for kind, one in optima.items()
    }
    for way, begin in ways.items():
        best = [search(problem, EVOLUTION, seed=seed, initial=begin).best.widths for seed in SEEDS]
        found[way] = {"top1": [bench.exact(one) for one in best]}
    for way, row in found.items():
        row["mean_top1"] = round(float(np.mean(row["top1"])), 5)
        print(f"{share:.0%}", way, row, flush=True)
    return found


class Recorder:
    """A score that keeps what it was asked about.

    Attributes:
        seen: Network -> its score on a part of the held-out images.
    """

    def __init__(self, bench: Bench) -> None:
        self._score = bench.score
        self.seen: dict[Widths, float] = {}

    def __call__(self, widths: Widths, /) -> float:
        """Score one network."""
        if widths not in self.seen:
            self.seen[widths] = self._score(widths)
        return self.seen[widths]


def front_figures(bench: Bench, seed: int) -> dict[str, Any]:
    """Hypervolume of the front of all networks that each way evaluated, scored again on all images."""
    ways = {
        "searches at five budgets": by_budgets,
        "searches that share what they evaluated": by_shared_budgets,
        "NSGA-II": by_nsga2,
    }
    found = {}
    for way, make in ways.items():
        seen = Recorder(bench)
        make(bench, seed, seen)
        networks = [*seen.seen]
        shares = [bench.comparison.setup.share(net) for net in networks]
        kept = pareto_front([seen.seen[net] for net in networks], shares).tolist()
        points = [(shares[index], bench.exact(networks[index])) for index in kept]
        found[way] = {
            "evaluated": len(networks),
            "points": sorted(points),
            "hypervolume": round(hypervolume(points), 6),
        }
        print(seed, way, found[way], flush=True)
    return found


def by_budgets(bench: Bench, seed: int, score: Recorder) -> None:
    """Searches from the loosest budget to the tightest, each beginning with what the earlier ones found."""
    found: list[Widths] = []
    for share in FRONT:
        problem = replace(bench.problem(share), accuracy=score)
        begin = [*found[:-4:-1], *initial_population(problem)]
        found.append(search(problem, FRONT_EVOLUTION, seed=seed, initial=begin).best.widths)


def by_shared_budgets(bench: Bench, seed: int, score: Recorder) -> None:
    """The same, but each begins with the best of all networks evaluated so far that are inside its budget.

    These cost nothing, so that there are evaluations left for more generations: the rounds over the budgets
    end with the number that the other ways have.
    """
    for turn in range(MOST_GENERATIONS):
        for share in FRONT:
            if len(score.seen) >= FRONT_EVALUATIONS:
                return
            problem = replace(bench.problem(share), accuracy=score)
            begin = best_inside(problem, score) + (initial_population(problem) if turn == 0 else [])
            evolution = replace(FRONT_EVOLUTION, generations=2)
            search(problem, evolution, seed=seed + 1000 * turn, initial=begin)


def best_inside(problem: Problem, score: Recorder) -> list[Widths]:
    """The best networks evaluated so far within the budget, and the best of all, to be moved into it."""
    ranked = sorted(score.seen, key=lambda net: -score.seen[net])
    if not ranked:
        return []
    inside = problem.feasible(np.array(ranked))
    within = [net for net, ok in zip(ranked, inside, strict=True) if ok]
    return [*within[: FRONT_EVOLUTION.parents], *ranked[:3]]


def by_nsga2(bench: Bench, seed: int, score: Recorder) -> None:
    """One evolution by NSGA-II for all five budgets, as `hwprune search --latency 30%:60%` does."""
    loose = replace(bench.problem(FRONT[0]), accuracy=score)
    levels = [share / FRONT[0] for share in FRONT]
    search(loose, FRONT_EVOLUTION, seed=seed, initial=initial_population(loose), levels=levels)


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Area that (share of latency, top-1) dominate within the range of budgets, above a top-1 of zero."""
    shares, scores = zip(*((max(share, FRONT[-1]), score) for share, score in points), strict=True)
    kept = pareto_front(scores, shares)
    front = sorted((shares[index], scores[index]) for index in kept.tolist())
    ends = [share for share, _ in front[1:]] + [FRONT[0]]
    return sum(max(end - share, 0.0) * score for (share, score), end in zip(front, ends, strict=True))


if __name__ == "__main__":
    main()
