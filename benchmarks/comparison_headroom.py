"""How much a better judge could win: a linear model of what networks reach alone, in place of PruningNet.

    python benchmarks/comparison_headroom.py --seeds 0 1 2

The model is a ridge regression from the logarithms of all widths to the test accuracies of every network that
the comparison trained from random weights. It knows what no judge can know, and far more trainings than a
PruningNet costs: what it finds is no rival, but says whether there is anything to find. Kept in the
comparison's own file, under `headroom/...`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from comparison import Comparison
from comparison_cases import BUDGETS, CASES
from comparison_setup import DATA, Setup
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hwprune.evolution.algorithm import SearchSettings
from hwprune.evolution.problem import Problem
from hwprune.evolution.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwprune.structure.space import Widths

ALONE = re.compile(r"base|alone/.+|(first/|remedy/short/)?scratch/.+")  # by the recipe of `from_scratch`
STRENGTHS = np.logspace(-3, 3, 25)  # of the ridge, chosen by leaving one network out
THOROUGH = SearchSettings(population=200, parents=50, mutants=80, crossovers=80, generations=60)


class Truth:
    """Accuracy of a network of given widths, trained from scratch, as a linear model of trained ones.

    Args:
        comparisons: All seeds, whose records are read; each seed has a level of its own.
    """

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.seeds = len(comparisons)
        trained = [
            (number, run["widths"], run["test_top1"])
            for number, one in enumerate(comparisons)
            for name, run in one.runs.runs.items()
            if ALONE.fullmatch(name)
        ]
        levels, widths, top1 = (np.array(column) for column in zip(*trained, strict=True))
        self.model = make_pipeline(StandardScaler(), RidgeCV(STRENGTHS))
        self.model.fit(self._features(widths, levels), top1)
        self.networks = len(trained)

    def __call__(self, widths: Widths, /) -> float:
        """Top-1 on the first seed."""
        return float(self.model.predict(self._features(np.array([widths]), np.array([0])))[0])

    def _features(self, widths: NDArray[np.int64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.hstack([np.log2(widths), np.eye(self.seeds)[levels]])


def found(setup: Setup, truth: Truth, budget: str) -> dict[str, Any]:
    """The network that the model thinks best within a budget."""
    problem = Problem(space=setup.space, constraints=(setup.latency(budget),), accuracy=truth)
    best = search(problem, THOROUGH, seed=0).best
    return {"widths": list(best.widths), "score": best.score, "networks": truth.networks}


def main() -> None:
    """Find the best network of each budget, and train it on every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, default="resnet20_wide")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    options = parser.parse_args()
    setup = Setup(CASES[options.case], options.data)
    comparisons = [Comparison(setup, seed) for seed in options.seeds]
    truth, first = Truth(comparisons), comparisons[0].runs
    for budget in BUDGETS:
        chosen = first.once(f"headroom/search/{budget}", lambda b=budget: found(setup, truth, b))
        for one in comparisons:
            one.from_scratch(f"headroom/scratch/{budget}", tuple(chosen["widths"]))


if __name__ == "__main__":
    main()
