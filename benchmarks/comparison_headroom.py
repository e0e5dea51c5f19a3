"""What a judge that has seen the truth finds: a linear model of what networks reach alone.

    python benchmarks/comparison_headroom.py --seeds 0 1 2

The model is a ridge regression from the logarithms of all widths to the test accuracies of the networks that
the comparison trained from random weights (`TRAINED`). It costs far more trainings than a PruningNet, and its
networks are chosen by test accuracies of others on the images that they are tested on: what it finds is no
rival, but tells what a search could find that orders networks as well as the model does, which stands beside
it. Kept in the comparison's own file, under `headroom/...`.
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
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hwprune.evolution.algorithm import SearchSettings
from hwprune.evolution.problem import Problem
from hwprune.evolution.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from hwprune.structure.space import Widths

TRAINED = re.compile(r"base|alone/.+|(first/|remedy/short/)?scratch/.+")
STRENGTHS = np.logspace(-3, 3, 25)  # of the ridge, chosen by leaving one network out
THOROUGH = SearchSettings(population=200, parents=50, mutants=80, crossovers=80, generations=60)


class LinearModel:
    """Accuracy of a network, trained from scratch, as far as it is linear in the logarithms of its widths.

    Args:
        comparisons: All seeds, whose records are read; each seed has a level of its own.
    """

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.seeds = len(comparisons)
        trained = [
            (name, seed, run["widths"], run["test_top1"])
            for seed, one in enumerate(comparisons)
            for name, run in one.runs.runs.items()
            if TRAINED.fullmatch(name)
        ]
        self.names, seeds, widths, top1 = (np.array(column) for column in zip(*trained, strict=True))
        self.features, self.top1 = self._features(widths, seeds), top1
        self.fitted = _regression().fit(self.features, self.top1)

    def __call__(self, widths: Widths, /) -> float:
        """Top-1 on the first seed."""
        return float(self.fitted.predict(self._features(np.array([widths]), np.array([0])))[0])

    def worth(self) -> dict[str, Any]:
        """How well it tells networks that it was not fitted on: root mean square error in points, and tau."""
        foretold = cross_val_predict(_regression(), self.features, self.top1, cv=LeaveOneOut())
        alone = np.char.startswith(self.names, "alone/")
        return {
            "trainings": len(self.top1),
            "left_out_error": 100 * float(np.sqrt(np.mean((foretold - self.top1) ** 2))),
            "left_out_tau": float(kendalltau(foretold[alone], self.top1[alone]).statistic),
        }

    def _features(self, widths: NDArray[np.int64], seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.hstack([np.log2(widths), np.eye(self.seeds)[seeds]])


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), RidgeCV(STRENGTHS))


def found(setup: Setup, model: LinearModel, budget: str) -> dict[str, Any]:
    """The network that the model thinks best within a budget."""
    problem = Problem(space=setup.space, constraints=(setup.latency(budget),), accuracy=model)
    best = search(problem, THOROUGH, seed=0).best
    return {"widths": list(best.widths), "score": best.score, **model.worth()}


def main() -> None:
    """Find the best network of each budget, and train it on every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, default="resnet20_wide")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    options = parser.parse_args()
    setup = Setup(CASES[options.case], options.data)
    comparisons = [Comparison(setup, seed) for seed in options.seeds]
    model, first = LinearModel(comparisons), comparisons[0].runs
    for budget in BUDGETS:
        chosen = first.once(f"headroom/search/{budget}", lambda b=budget: found(setup, model, b))
        for one in comparisons:
            one.from_scratch(f"headroom/scratch/{budget}", tuple(chosen["widths"]))


if __name__ == "__main__":
    main()
