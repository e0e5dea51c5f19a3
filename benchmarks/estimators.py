"""Which score of an untrained network tells its accuracy after training? Kendall's tau for each of them.

    python benchmarks/estimators.py --tasks resnet20 efficientnet_lite0

Networks of one latency, those of the rules and drawn ones, inherit the weights of the trained unpruned
network and are trained like the rivals of `equal_epochs.py`, whose tasks, tables and epochs these are. Before
that each is scored on sub-val in several ways: without training (top-1, and the divergence from the unpruned
network's outputs), after short trainings of their own, by its MACs, and at random.

Finished networks are rows in `runs/estimators`, and those in `results/estimators.json` count as done. The
last line of the output has the figures as JSON.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import finish
from depth_rows import Rows
from equal_epochs import DEVICE
from equal_epochs_tasks import RUN, TASKS, Task
from scipy.stats import kendalltau
from torch.nn import functional

from hwprune.evolution.operators import Genome
from hwprune.evolution.problem import Problem
from hwprune.evolution.sampling import Sampler
from hwprune.progress import QUIET
from hwprune.project.budgets import parse_budgets, resolve
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.inherited import Inherited
from hwprune.searching.initial import initial_population, macs_score
from hwprune.structure.rank import sort_channels
from hwprune.training.evaluation import recalibrate_on
from hwprune.training.loop import train

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.structure.space import Widths

SHORT = (0.125, 0.25, 0.5)  # epochs of the short trainings
RATE = 0.02
REPAIRED_BY = 512  # images
_NEAR = 0.9  # of the budget: rules whose networks are smaller are not of this latency


class Bench:
    """The networks of one task and budget.

    Args:
        task: The task.
        budget: A share of the latency, such as 50%.
        epochs: Of the training whose outcome is to be told.
    """

    def __init__(self, task: Task, budget: str, epochs: int) -> None:
        self.task, self.budget, self.epochs = task, budget, epochs
        self.project = task.project(0)
        self.space = self.project.space(DEVICE)
        self.train_images, self.sub_val = self.project.splits.sub_train, self.project.splits.sub_val

    @functools.cached_property
    def problem(self) -> Problem:
        """What keeps the budget."""
        budgets = resolve(self.project, parse_budgets((self.budget,), "", "", ""), "", "", QUIET)
        latency = budgets[0].constraint(margin=False)
        return Problem(space=self.space, constraints=(latency,), accuracy=macs_score(self.space))

    def networks(self, count: int) -> list[Widths]:
        """So many networks just inside the budget: those of rules first, then drawn ones."""
        rules = [
            net
            for net in initial_population(self.problem)
            if _NEAR < self.problem.load(np.array([net]))[0] <= 1
        ]
        drawn = Sampler(self.problem).draw(count, np.random.default_rng(0))
        found = [*rules[: count // 2], *map(tuple, Genome(self.space).widths(drawn).tolist())]
        return list(dict.fromkeys(found))[:count]

    @functools.cached_property
    def inherited(self) -> dict[str, Inherited]:
        """The unpruned network's weights, only cut, and repaired by least squares."""
        base = self.task.base
        ranked = sort_channels(base, self.space, importance("l1", base, self.space))
        some = self.train_images.subset(np.linspace(0, len(self.train_images) - 1, REPAIRED_BY).astype(int))
        return {
            "cut": Inherited(ranked, self.space, importance=None),
            "repaired": Inherited(ranked, self.space, some.batches(64), importance=None),
        }

    @functools.cached_property
    def _wanted(self) -> tuple[Tensor, Tensor]:
        """Outputs of the unpruned network on sub-val, (N, classes), and the labels, (N,)."""
        labels = torch.cat([labels for _, labels in self.sub_val.batches(250)])
        return self._outputs(self.task.base), labels

    def _outputs(self, model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return torch.cat([model(images) for images, _ in self.sub_val.batches(250)])

    def scored(self, model: nn.Module) -> dict[str, float]:
        """Top-1, cross-entropy and divergence from the unpruned network's outputs, on sub-val."""
        found, (wanted, labels) = self._outputs(model.eval()), self._wanted
        apart = functional.kl_div(
            functional.log_softmax(found, 1),
            functional.log_softmax(wanted, 1),
            reduction="batchmean",
            log_target=True,
        )
        return {
            "top1": float((found.argmax(1) == labels).float().mean()),
            "loss": float(functional.cross_entropy(found, labels)),
            "divergence": float(apart),
        }

    def row(self, network: Widths) -> dict[str, Any]:
        """All scores of a network, and its accuracy after training."""
        found: dict[str, Any] = {
            "network": list(network),
            "macs": int(self.space.macs(network)),
            "share": round(float(self.problem.load(np.array([network]))[0]), 4),
        }
        for name, weights in self.inherited.items():
            model = weights.materialise(network)
            recalibrate_on(model, self.train_images, self.task.tuning)
            found[name] = self.scored(model)
        for epochs in SHORT:
            found[f"tuned {epochs:g}"] = self.scored(self._tuned(network, epochs))
        model = self._tuned(network, self.epochs)
        return {**found, "val": self.scored(model), "top1": self.task.top1(model)}

    def _tuned(self, network: Widths, epochs: float) -> nn.Module:
        model = self.inherited["repaired"].materialise(network)
        recipe = replace(self.task.tuning, epochs=epochs, lr=RATE)
        train(model, self.train_images, recipe, seed=0, teacher=self.task.base)
        return model


def figures(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Kendall's tau of each score with accuracy after training, for each task, budget and epochs."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows.items():
        cases.setdefault(name.rpartition("/")[0], []).append(row)
    return {case: _taus(mine) for case, mine in cases.items() if len(mine) > 2}


def _taus(rows: list[dict[str, Any]]) -> dict[str, Any]:
    tuned = [row["top1"] for row in rows]
    random = np.random.default_rng(0).random(len(rows)).tolist()
    scores = {"MACs": [row["macs"] for row in rows], "random": random}
    for kind in ("cut", "repaired", *(f"tuned {epochs:g}" for epochs in SHORT), "val"):
        for what, sign in (("top1", 1), ("loss", -1), ("divergence", -1)):
            scores[f"{kind}: {what}"] = [sign * row[kind][what] for row in rows]
    found = {}
    for name, values in scores.items():
        best = int(np.argmax(values))
        found[name] = {
            "tau": round(float(kendalltau(values, tuned).statistic), 2),
            "chosen": tuned[best],
        }
    return {
        "networks": len(rows),
        "best": max(tuned),
        "median": round(float(np.median(tuned)), 4),
        "scores": found,
    }


def main() -> None:
    """Train the networks that are not yet on record, and write down all there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=["resnet20"])
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--networks", type=int, default=20)
    options = parser.parse_args()
    rows = Rows("estimators", RUN.parent / "estimators", "rows")
    for name in options.tasks:
        bench = Bench(TASKS[name], options.budget, TASKS[name].epochs[0])
        for number, network in enumerate(bench.networks(options.networks)):
            key = f"{name}/{options.budget}/{bench.epochs}/{number:02}"
            rows.once(key, functools.partial(bench.row, network))
    finish("estimators", {"cases": figures(rows.all())}, {"rows": rows.all()})


if __name__ == "__main__":
    main()
