"""What remedies do to the judge and to what it finds, on one seed of the comparison.

    python benchmarks/comparison_remedies.py --seed 0 short

Each remedy is the `residual` PruningNet of `comparison.py` with one thing changed. It scores every network of
which the comparison knows what it reaches alone, searches at each budget, and what it finds is trained from
random weights as all others are. Kept in the same file as the comparison, under `remedy/NAME/...`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comparison import Comparison
from comparison_setup import BUDGETS, DATA, EPOCHS, JUDGE, RATES, Setup

from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.structure.rank import sort_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.pruningnet.settings import PruningNetSettings
    from hwprune.structure.space import Widths

AS_BEFORE = replace(JUDGE, lr=RATES["residual"])
REMEDIES: dict[str, PruningNetSettings] = {
    "short": replace(AS_BEFORE, epochs=EPOCHS),
    "full": replace(AS_BEFORE, full_share=0.25),
    "recalibration": replace(AS_BEFORE, recalibration_images=4000),
    "rate": replace(AS_BEFORE, lr=4 * RATES["residual"]),
}
TAYLOR_BATCHES, BATCH = 8, 64


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
    trained = "residual" if name == "recalibration" else f"remedy-{name}"
    fit(net, setup.train, settings, checkpoint=work / f"judge-{trained}.safetensors", seed=comparison.seed)
    evaluator = Evaluator(net, setup.train, setup.held_out, settings, seed=comparison.seed)
    return Racer(evaluator, Outcomes(evaluator.stops, work / f"evaluations-remedy-{name}.jsonl"))


def main() -> None:
    """Try remedies, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("remedies", nargs="+", choices=[*REMEDIES, "taylor", "average"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    options = parser.parse_args()
    comparison = Comparison(Setup(options.data), options.seed)
    for name in options.remedies:
        run(comparison, name)


def run(comparison: Comparison, name: str) -> None:
    """Everything about one remedy."""
    judge, runs = remedied(comparison, name), comparison.runs
    alone = {run: tuple(known["widths"]) for run, known in runs.runs.items() if run.startswith("alone/")}
    runs.once(f"remedy/{name}/ranking", lambda: {"scores": {run: judge(net) for run, net in alone.items()}})
    for budget in BUDGETS:
        found = runs.once(
            f"remedy/{name}/search/{budget}",
            lambda b=budget: comparison.searched(judge, comparison.setup.latency(b)),
        )
        comparison.from_scratch(f"remedy/{name}/scratch/{budget}", tuple(found["widths"]))


if __name__ == "__main__":
    main()
