"""What remedies do to the judge and to what it finds, on one seed of the comparison.

    python benchmarks/comparison_remedies.py --seed 0 --search short

Each remedy is the `residual` PruningNet of `comparison.py` with one thing changed. It scores the networks
that the comparison trains alone; with `--search` it searches at each budget too, and what it finds is trained
from random weights as all others are. `taught` changes no judge: the trained base network teaches what
the comparison trained from scratch. Kept in the comparison's own file, under `remedy/NAME/...`.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comparison import Comparison
from comparison_setup import BUDGETS, DATA, EPOCHS, JUDGE, RATES, RECIPE, Setup

from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.training.distill import distillation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hwprune.pruningnet.settings import PruningNetSettings
    from hwprune.structure.space import Widths

AS_BEFORE = replace(JUDGE, lr=RATES["residual"])
REMEDIES: dict[str, PruningNetSettings] = {
    "short": replace(AS_BEFORE, epochs=EPOCHS),
    "full": replace(AS_BEFORE, full_share=0.25),
    "recalibration": replace(AS_BEFORE, recalibration_images=4000),
    "rate": replace(AS_BEFORE, lr=4 * RATES["residual"]),
}
OTHERS = ("taylor", "distilled", "average", "taught")
TAYLOR_BATCHES, BATCH = 8, 64
TAUGHT = ("hwprune", "uniform")


class Average:
    """The mean score of several judges: what all of them like is not the weakness of one.

    Args:
        judges: Scores of networks.
    """

    def __init__(self, judges: Sequence[Racer]) -> None:
        self.judges = judges

    def __call__(self, widths: Widths, /) -> float:
        """Mean top-1 on all held-out images."""
        return sum(judge(widths) for judge in self.judges) / len(self.judges)


def remedied(comparison: Comparison, name: str) -> Racer | Average:
    """The judge of a remedy, trained if need be."""
    if name == "average":
        return Average([comparison.judge(generator) for generator in ("residual", "shared", "fc")])
    setup, base = comparison.setup, comparison.base()
    settings = REMEDIES.get(name, AS_BEFORE)
    kind, batches = ("taylor", list(setup.train.batches(BATCH))) if name == "taylor" else ("l1", [])
    scores = importance(kind, base, setup.space, batches[:TAYLOR_BATCHES])
    net = PruningNet(sort_channels(base, setup.space, scores), setup.space, "residual", seed=comparison.seed)
    work = comparison.runs.work
    objective = distillation(RECIPE, base) if name == "distilled" else None
    trained = "residual" if name == "recalibration" else f"remedy-{name}"
    path = work / f"judge-{trained}.safetensors"
    fit(net, setup.train, settings, checkpoint=path, seed=comparison.seed, objective=objective)
    evaluator = Evaluator(net, setup.train, setup.held_out, settings, seed=comparison.seed)
    return Racer(evaluator, Outcomes(evaluator.stops, work / f"evaluations-remedy-{name}.jsonl"))


def main() -> None:
    """Try remedies, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("remedies", nargs="+", choices=[*REMEDIES, *OTHERS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    parser.add_argument("--search", action="store_true", help="also search, and train what is found")
    options = parser.parse_args()
    comparison = Comparison(Setup(options.data), options.seed)
    for name in options.remedies:
        if name == "taught":
            taught(comparison)
        else:
            run(comparison, name, BUDGETS if options.search else ())


def taught(comparison: Comparison) -> None:
    """Train what was found, and uniform widths, from random weights with the base network as teacher."""
    setup, runs = comparison.setup, comparison.runs
    for budget, rival in itertools.product(BUDGETS, TAUGHT):
        widths = tuple(runs.runs[f"scratch/{rival}/{budget}"]["widths"])
        runs.trained(
            f"remedy/taught/{rival}/{budget}",
            widths,
            lambda w=widths: prune(setup.network(comparison.seed), setup.space, w),
            teacher=comparison.base,
        )


def run(comparison: Comparison, name: str, budgets: Iterable[str]) -> None:
    """Everything about one judge; it scores every network that was trained alone."""
    judge, runs = remedied(comparison, name), comparison.runs
    alone = dict(enumerate(comparison.equal_latency()))
    runs.once(
        f"remedy/{name}/ranking",
        lambda: {"scores": {f"alone/{number}": judge(net) for number, net in alone.items()}},
    )
    for budget in budgets:
        found = runs.once(
            f"remedy/{name}/search/{budget}",
            lambda b=budget: comparison.searched(judge, comparison.setup.latency(b)),
        )
        comparison.from_scratch(f"remedy/{name}/scratch/{budget}", tuple(found["widths"]))


if __name__ == "__main__":
    main()
