"""Ways to search, on the same judge and with the same number of evaluations.

    python benchmarks/search_alternatives.py --seed 0

The judge is the `residual` PruningNet of `comparison.py --seeds 0`, which must have been trained. Each way
looks for the best network of 144 evaluations on 2,500 images, at 50 and at 30 % of the latency, with two
seeds; what it found is then scored on all 10,000 held-out images. Also compared: racing against scoring
everything in full. What one search has evaluated is not evaluated again for another, but counts for it.
Prints one JSON line last.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import finish
from comparison import Comparison
from comparison_cases import BUDGETS, CASES, EVOLUTION
from comparison_setup import DATA, Setup

from hwprune.evolution.problem import Problem
from hwprune.evolution.search import search
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.searching.initial import initial_population

SEEDS, IMAGES = (1, 2), 2500
PAPER = replace(EVOLUTION, fit_children=False)
FULL = 0.0  # chance of catching up below which a race drops a candidate: none, all are scored in full
WAYS = {  # settings, whether uniform networks are among the first, chance
    "the paper's operators": (PAPER, False, FULL),
    "uniform initial, children at the edge of the budget": (EVOLUTION, True, FULL),
    "edge of the budget, racing at 5 %": (EVOLUTION, True, 0.05),
    "edge of the budget, racing at 25 %": (EVOLUTION, True, 0.25),
    "edge of the budget, racing at 40 %": (EVOLUTION, True, 0.40),
}


def main() -> None:
    """Search in every way, and say what each found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the comparison whose judge is used")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    comparison = Comparison(Setup(CASES["resnet20_wide"], options.data), options.seed)
    exact = comparison.judge("residual", "alternatives")
    evaluator = Evaluator(
        exact.judge.net,
        comparison.setup.train,
        comparison.setup.held_out.subset(np.random.default_rng(0).permutation(10_000)[:IMAGES]),
        exact.judge.settings,
    )
    known = Outcomes(evaluator.stops, comparison.runs.work / "evaluations-alternatives.jsonl")
    judge = Racer(evaluator, known)
    found: dict[str, Any] = {}
    for way, (settings, uniform, chance) in WAYS.items():
        found[way] = {}
        for budget in BUDGETS:
            runs = [
                one_search(comparison, judge, exact, settings, uniform, chance, budget, seed)
                for seed in SEEDS
            ]
            found[way][budget] = {
                "top1": [one["top1"] for one in runs],
                "top1_of_the_search": [one["score"] for one in runs],
                "mean_top1": round(float(np.mean([one["top1"] for one in runs])), 5),
                "images_share": round(float(np.mean([one["images_share"] for one in runs])), 4),
            }
            print(way, budget, found[way][budget], flush=True)
    finish(
        "search_alternatives", {"evaluations": EVOLUTION.population * EVOLUTION.generations, "ways": found}
    )


def one_search(
    comparison: Comparison,
    judge: Racer,
    exact: Racer,
    settings: Any,
    uniform: bool,
    chance: float,
    budget: str,
    seed: int,
) -> dict[str, float]:
    """The winner's accuracy on the search's images and on all, and the share of images that were needed."""
    meter = Racer(Known(judge), Outcomes(judge.judge.stops), chance=chance)
    problem = Problem(
        space=comparison.setup.space, constraints=(comparison.setup.latency(budget),), accuracy=meter
    )
    begin = initial_population(problem) if uniform else ()
    outcome = search(problem, settings, seed=seed, initial=begin)
    total = judge.judge.stops[-1] * len(outcome.candidates)
    exact_top1 = exact(outcome.best.widths)
    return {"top1": exact_top1, "score": outcome.best.score, "images_share": meter.images / total}


class Known:
    """Stands in for the evaluator of a racer: outcomes come from those known to all searches."""

    def __init__(self, racer: Racer) -> None:
        self.racer, self.stops = racer, racer.judge.stops

    def folded(self, widths: Any) -> Any:
        """Nothing is made before it is needed."""
        return tuple(widths)

    def figures(self, widths: Any, part: int) -> Any:
        """Outcomes of one part."""
        before = self.stops[part - 1] if part else 0
        return self.racer.figures(widths, self.stops[part])[before:]


if __name__ == "__main__":
    main()
