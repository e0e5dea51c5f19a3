"""What remedies do to the judge of the comparison and to what it finds.

    python benchmarks/comparison_remedies.py short full --search

Each remedy is the `residual` PruningNet of `comparison.py` with one thing changed. It scores the networks
that the comparison trains alone; with `--search` it searches at each budget too, and what it finds is trained
from random weights as all others are. Two change no judge: `taught`, where the trained base network teaches
what the comparison trained from scratch, and `ties`, which takes of all networks that the judge cannot tell
from the best that it saw the one of most MACs. Kept in the comparison's own file, under `remedy/NAME/...`.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison import Comparison
from comparison_cases import BUDGETS, CASES
from comparison_copies import in_copies, one_thread_each
from comparison_setup import DATA, Setup

from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.training.distill import Distilled
from hwprune.training.task import Classification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison_copies import Task

    from hwprune.pruningnet.race import Racer
    from hwprune.pruningnet.settings import PruningNetSettings
    from hwprune.structure.space import Widths

REMEDIES = ("short", "full", "recalibration", "rate", "taylor", "distilled", "average", "taught", "ties")
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


def remedied(comparison: Comparison, name: str, use: str = "ranking") -> Racer | Average:
    """The judge of a remedy, trained if need be; each use keeps its evaluations in a file of its own."""
    if name == "average":
        return Average([comparison.judge(kind, f"average-{use}") for kind in ("residual", "shared", "fc")])
    setup, base = comparison.setup, comparison.base()
    settings = changed(setup.case.judge("residual"), name, setup.case.epochs)
    kind, batches = ("taylor", some_batches(setup)) if name == "taylor" else ("l1", [])
    scores = importance(kind, base, setup.space, batches)
    net = PruningNet(sort_channels(base, setup.space, scores), setup.space, "residual", seed=comparison.seed)
    net.to(setup.device)
    recipe = setup.case.recipe
    task = Distilled(Classification.of(recipe), base, recipe) if name == "distilled" else None
    trained = "residual" if name == "recalibration" else f"remedy-{name}"
    evaluator, _ = comparison.fitted(net, settings, trained, task)
    return comparison.racer(evaluator, f"remedy-{name}-{use}")


def changed(settings: PruningNetSettings, name: str, epochs: int) -> PruningNetSettings:
    """PruningNet's recipe with what the remedy changes of it."""
    if name == "short":
        return replace(settings, epochs=epochs)
    if name == "full":
        return replace(settings, full_share=0.25)
    if name == "recalibration":
        return replace(settings, recalibration_images=4000)
    if name == "rate":
        return replace(settings, lr=4 * settings.lr)
    return settings


def some_batches(setup: Setup) -> list[Any]:
    """Training images for Taylor importance."""
    batches = itertools.islice(setup.train.batches(BATCH), TAYLOR_BATCHES)
    return [(images.to(setup.device), labels.to(setup.device)) for images, labels in batches]


def main() -> None:
    """Try remedies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("remedies", nargs="+", choices=REMEDIES)
    parser.add_argument("--case", choices=CASES, default="resnet20_wide")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    parser.add_argument("--device", default="cpu", help="where to train: cpu or cuda")
    parser.add_argument("--copies", type=int, default=1, help="processes that share the work")
    parser.add_argument("--search", action="store_true", help="also search, and train what is found")
    options = parser.parse_args()
    if options.copies > 1:
        one_thread_each()
    setup = Setup(CASES[options.case], options.data, options.device)
    budgets = tuple(BUDGETS) if options.search else ()
    comparisons = [Comparison(setup, seed) for seed in options.seeds]
    in_copies(options.copies, [tasks(one, options.remedies, budgets) for one in comparisons])


def tasks(comparison: Comparison, remedies: Sequence[str], budgets: Sequence[str]) -> list[Task]:
    """What there is to do on one seed."""
    found = []
    for name in remedies:
        if name == "ties":
            found += [comparison.task(tied, comparison, budget) for budget in BUDGETS]
        elif name == "taught":
            found += [
                comparison.task(taught, comparison, *each) for each in itertools.product(BUDGETS, TAUGHT)
            ]
        else:
            found += [comparison.task(ranked, comparison, name)]
            found += [comparison.task(searched, comparison, name, budget) for budget in budgets]
    return found


def taught(comparison: Comparison, budget: str, rival: str) -> None:
    """Train what was found, or uniform widths, from random weights with the base network as teacher."""
    setup, runs = comparison.setup, comparison.runs
    runs.read()
    widths = tuple(runs.runs[f"scratch/{rival}/{budget}"]["widths"])
    runs.trained(
        f"remedy/taught/{rival}/{budget}",
        widths,
        lambda: prune(setup.network(comparison.seed), setup.space, widths),
        setup.case.recipe,
        teacher=comparison.base,
    )


def tied(comparison: Comparison, budget: str) -> None:
    """Of the networks within a standard error of the best one, train that of most MACs."""

    def chosen() -> dict[str, Any]:
        judge, setup = comparison.judge("residual", budget), comparison.setup
        outcome = comparison.outcome(judge, setup.latency(budget))  # from what was kept, if it is there
        if outcome.best.widths != comparison.found("residual", budget):
            raise RuntimeError("the search ends elsewhere than when it was recorded")
        best = judge.outcomes.of(outcome.best.widths).astype(float)
        rivals = {one.widths: judge.outcomes.of(one.widths) for one in outcome.candidates}
        behind = {net: best - right for net, right in rivals.items() if right.size == best.size}
        ties = [net for net, gap in behind.items() if gap.mean() <= gap.std() / len(gap) ** 0.5]
        widths = max(ties, key=lambda net: (int(setup.space.macs(net)), net))
        return {"widths": list(widths), "score": judge(widths), "ties": len(ties), "full": len(behind)}

    found = comparison.runs.once(f"remedy/ties/search/{budget}", chosen)
    comparison.from_scratch(f"remedy/ties/scratch/{budget}", tuple(found["widths"]))


def ranked(comparison: Comparison, name: str) -> None:
    """A judge's scores of every network that is trained alone."""

    def scores() -> dict[str, Any]:
        judge, alone = remedied(comparison, name), enumerate(comparison.equal_latency)
        return {"scores": {f"alone/{number}": judge(net) for number, net in alone}}

    comparison.runs.once(f"remedy/{name}/ranking", scores)


def searched(comparison: Comparison, name: str, budget: str) -> None:
    """What a search with a judge finds, trained from scratch; that of `short` also from its own weights."""
    found = comparison.runs.once(
        f"remedy/{name}/search/{budget}",
        lambda: comparison.searched(remedied(comparison, name, budget), comparison.setup.latency(budget)),
    )
    widths = tuple(found["widths"])
    comparison.from_scratch(f"remedy/{name}/scratch/{budget}", widths)
    if name == "short":
        _with_saved_epochs(comparison, widths, budget)


def _with_saved_epochs(comparison: Comparison, widths: Widths, budget: str) -> None:
    """Train on from the short PruningNet's weights for the epochs that it was spared: as many in all."""
    case, judge = comparison.setup.case, remedied(comparison, "short", budget)
    recipe = replace(case.fine_tuning, epochs=case.longer - 2 * case.epochs)  # the base's and PruningNet's
    comparison.runs.trained(
        f"remedy/short/tuned/{budget}", widths, lambda: judge.judge.network(widths), recipe
    )


if __name__ == "__main__":
    main()
