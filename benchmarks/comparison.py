"""hwprune against what people would use instead, on CIFAR-10 at a share of the base's measured latency.

    python benchmarks/comparison.py --seeds 0
    python benchmarks/comparison.py --cases resnet56 mobilenet_v2_cifar --device cuda --copies 20

Trains a base network, three PruningNets, searches at each budget, and trains what each way of choosing
gives, all by one recipe on the same images. Every finished run is kept in
`results/comparison/CASE/seedN.json`, so the script can be stopped at any time; `comparison_table.py` makes
the page from those files. With `--longer` all are also trained for the epochs that hwprune's network has
behind it; with `--ranking` 20 random networks of one latency are trained alone, to see how well
PruningNets order them; with `--judged` the `residual` one scores all that was chosen; with `--measure`
nothing is trained, but the latency of what was trained since is measured, on the device of the table.
`--copies` processes share the work: a GPU is idle most of the time while one of them trains a small network.
They use it at the same time under NVIDIA's MPS (`nvidia-cuda-mps-control -d`), and take turns without it.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comparison_rivals as rivals
import comparison_rules as rules
import numpy as np
from comparison_cases import BUDGETS, CASES, EVOLUTION, RANKED, RANKED_BUDGET, RANKED_SEED
from comparison_copies import Task, in_copies, one_thread_each
from comparison_setup import DATA, Runs, Setup, trained_on

from hwprune.environment import device_fingerprint
from hwprune.evolution.problem import Constraint, Problem
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import search
from hwprune.latency.device import Device
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.runtimes.profiles import load_profile
from hwprune.searching.initial import initial_population
from hwprune.structure.export import export_base
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from hwprune.evolution.problem import AccuracyScore
    from hwprune.evolution.search import SearchOutcome
    from hwprune.pruningnet.settings import GeneratorName, PruningNetSettings
    from hwprune.structure.space import Widths
    from hwprune.training.distill import Distilled
    from hwprune.training.history import History

GENERATORS: tuple[GeneratorName, ...] = ("residual", "shared", "fc")
KINDS = ("magnitude", "taylor")  # of Torch-Pruning
RULES = {
    "uniform": rules.uniform_width,
    "uniform_depth": rules.uniform_depth,
    "compound": rules.compound,
}
DEPTH = ("uniform_depth", "compound")  # rows of spaces with blocks that may go
ROWS = ("hwprune", "shared", *RULES, *KINDS, "macs")
LONGER = ("hwprune", "uniform", *KINDS, "macs")  # rows of the second column
MACS_TRIES = 6
SECONDS_EACH = 3.0
NEAR = 0.02  # of the latency budget


class Comparison:
    """All runs of one seed."""

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.seed, self.runs = setup, seed, Runs(setup, seed)
        self._evaluators: dict[str, Evaluator] = {}
        self._base: nn.Module | None = None

    def base(self) -> nn.Module:
        """The trained base network."""
        if self._base is None:
            setup, recipe = self.setup, self.setup.case.recipe
            self.runs.trained("base", setup.space.full(), lambda: setup.network(self.seed), recipe)
            # From its checkpoint; trained anew where that is gone.
            model, path = setup.network(self.seed).to(setup.device), self.runs.work / "base.safetensors"
            with self.runs.lock("base"):
                train(model, setup.train, recipe, checkpoint=path, seed=self.seed, cuda_graph=True)
            self._base = model.eval()
        return self._base

    def judge(self, generator: GeneratorName, use: str = "") -> Racer:
        """A trained PruningNet that scores candidates.

        Args:
            generator: Of its weights.
            use: Each use keeps what it evaluated in a file of its own, since they may run side by side.
        """
        if generator not in self._evaluators:
            self._evaluators[generator] = self._evaluator(generator)
        evaluator = self._evaluators[generator]
        return self.racer(evaluator, "-".join(filter(None, (generator, use.replace("/", "-")))))

    def racer(self, evaluator: Evaluator, name: str) -> Racer:
        """What scores candidates in parts, and keeps under a name what it saw."""
        path = self.runs.work / f"evaluations-{name}.jsonl"
        return Racer(evaluator, Outcomes(evaluator.stops, path))

    def fitted(
        self, net: PruningNet, settings: PruningNetSettings, name: str, task: Distilled | None = None
    ) -> tuple[Evaluator, History]:
        """A PruningNet trained under a name, or taken from its checkpoint, as what evaluates candidates."""
        setup, path = self.setup, self.runs.work / f"judge-{name}.safetensors"
        with self.runs.lock(f"judge/{name}"):
            history = fit(net, setup.train, task, settings, checkpoint=path, seed=self.seed)
        return Evaluator(net, setup.train, setup.held_out, settings, seed=self.seed), history

    def _evaluator(self, generator: GeneratorName) -> Evaluator:
        setup, settings = self.setup, self.setup.case.judge(generator)
        net = self._pruningnet(generator)
        evaluator, history = self.fitted(net, settings, generator)
        self.runs.once(
            f"judge/{generator}",
            lambda: {
                "held_out_top1": {f"{r:.2f}": evaluator(setup.space.uniform(r)) for r in (1.0, 0.5, 0.25)},
                "train_top1": history.epochs[-1].top1,
                "train_seconds": round(sum(epoch.seconds for epoch in history.epochs), 1),
                "parameters": sum(p.numel() for p in net.parameters()),
                "lr": settings.lr,
                "trained_on": trained_on(setup.device),
            },
        )
        return evaluator

    def _pruningnet(self, generator: GeneratorName) -> PruningNet:
        model, setup = self.setup.network(self.seed), self.setup
        if generator == "residual":
            model = sort_channels(self.base(), setup.space, importance("l1", self.base(), setup.space))
        return PruningNet(model, setup.space, generator, seed=self.seed).to(setup.device)

    def found(self, generator: GeneratorName, budget: str) -> Widths:
        """What a search under the latency budget finds with one generator."""
        record = self.runs.once(
            f"search/{generator}/{budget}",
            lambda: self.searched(self.judge(generator, budget), self.setup.latency(budget)),
        )
        return tuple(record["widths"])

    def found_by_macs(self, budget: str) -> Widths:
        """What the published method finds, `fc` under a budget of MACs, when its winner has the latency."""
        record = self.runs.once(f"search/macs/{budget}", lambda: self._search_by_macs(budget))
        return tuple(record["widths"])

    def outcome(self, judge: AccuracyScore, constraint: Constraint) -> SearchOutcome:
        """All that a search within one limit sees with a judge."""
        problem = Problem(space=self.setup.space, constraints=(constraint,), accuracy=judge)
        return search(problem, EVOLUTION, seed=self.seed, initial=initial_population(problem))

    def searched(self, judge: AccuracyScore, constraint: Constraint) -> dict[str, Any]:
        """What a search within one limit finds with a judge."""
        outcome = self.outcome(judge, constraint)
        return {
            "widths": list(outcome.best.widths),
            "score": outcome.best.score,
            "predicted_share": self.setup.share(outcome.best.widths),
            "evaluated": len(outcome.candidates),
        }

    def _search_by_macs(self, budget: str) -> dict[str, Any]:
        """Move the budget of MACs until the winner's latency is within reach of the latency budget.

        The winner nearest below the latency budget counts; whether it is near enough stands in the record.
        """
        space, aim = self.setup.space, BUDGETS[budget]
        full, limit = float(space.macs(space.full())), self.setup.case.macs_starts[budget]
        tried: list[dict[str, Any]] = []
        judge = self.judge("fc", f"macs/{budget}")
        for _ in range(MACS_TRIES):
            constraint = Constraint(name="macs", predict=space.macs, limit=limit * full, unit="MACs")
            found = {**self.searched(judge, constraint), "macs_limit": limit}
            tried.append(found)
            if _near(found, aim):
                break
            limit = _next_limit(tried, aim)
        within = [found for found in tried if found["predicted_share"] <= aim] or tried
        best = min(within, key=lambda one: abs(aim - float(one["predicted_share"])))
        limits = [[one["macs_limit"], one["predicted_share"]] for one in tried]
        return {**best, "near_enough": _near(best, aim), "tried": limits}

    def from_scratch(self, name: str, widths: Widths, epochs: int | None = None) -> None:
        """Train a structure from random weights."""
        space, recipe = self.setup.space, self.setup.case.recipe
        self.runs.trained(
            name,
            widths,
            lambda: prune(self.setup.network(self.seed), space, widths),
            replace(recipe, epochs=epochs or recipe.epochs),
        )

    def from_judge(self, name: str, generator: GeneratorName, widths: Widths) -> None:
        """Train a structure from the weights that a PruningNet generates for it."""
        recipe = self.setup.case.fine_tuning
        self.runs.trained(name, widths, lambda: self.judge(generator).judge.network(widths), recipe)

    def fine_tuned(self, name: str, kind: str, budget: str, epochs: int | None = None) -> None:
        """Prune the base network with Torch-Pruning and fine-tune it."""
        self.runs.read()
        if name in self.runs.runs:
            return
        recipe = self.setup.case.fine_tuning
        pruner = rivals.TorchPruning(self.setup, self.base(), kind)
        chosen = self.runs.once(f"pruned/{kind}", pruner.chosen)[budget]
        if chosen is None:
            print(
                f"{self.setup.case.name} seed {self.seed} {name}: no setting reaches the budget", flush=True
            )
            return
        model, widths = pruner.network(chosen["ratio"], chosen["step"])
        if list(widths) != chosen["widths"]:
            raise RuntimeError(f"{name}: the base network is another one than when pruned/{kind} was made")
        self.runs.trained(name, widths, lambda: model, replace(recipe, epochs=epochs or recipe.epochs))

    def chosen(self, row: str, budget: str) -> Widths | None:
        """What a row's way of choosing gives at a budget, if anything; of Torch-Pruning see `fine_tuned`."""
        if row in RULES:
            return RULES[row](self.setup, BUDGETS[budget])
        if row == "macs":
            return self.found_by_macs(budget)
        return self.found("shared" if row == "shared" else "residual", budget)

    def tasks(self, rows: Sequence[str]) -> list[Task]:
        """The first column: what each row's way of choosing gives at each budget."""
        possible = [name for name in rows if self.setup.space.blocks or name not in DEPTH]
        return [self.task(self.row, name, budget) for budget in BUDGETS for name in possible]

    def row(self, name: str, budget: str) -> None:
        """One row at one budget; of two rows also from the weights that the PruningNet generates."""
        if name in KINDS:
            self.fine_tuned(f"tuned/{name}/{budget}", name, budget)
            return
        widths = self.chosen(name, budget)
        if widths is None:
            print(f"{self.setup.case.name} {name}: no network keeps {budget} %", flush=True)
            return
        self.from_scratch(f"scratch/{name}/{budget}", widths)
        if name in ("hwprune", "uniform"):
            self.from_judge(f"tuned/{name}/{budget}", "residual", widths)

    def longer_tasks(self, rows: Sequence[str]) -> list[Task]:
        """Rows with as many epochs as hwprune's network has behind it, the base's among them."""
        return [self.task(self.longer, name, budget) for name in rows for budget in BUDGETS]

    def longer(self, row: str, budget: str) -> None:
        """A row of the second column; `hwprune` is what it found, without the weights of its PruningNet."""
        name, case = f"longer/{row}/{budget}", self.setup.case
        if row in KINDS:
            self.fine_tuned(name, row, budget, case.longer - case.epochs)
        elif widths := self.chosen(row, budget):
            self.from_scratch(name, widths, case.longer)

    def ranking_tasks(self, generators: Sequence[GeneratorName]) -> list[Task]:
        """Networks of one latency, trained alone and scored by PruningNets."""
        return [
            *(self.task(self.alone, number) for number in range(RANKED)),
            *(self.task(self.ranked, generator) for generator in generators),
        ]

    def alone(self, number: int) -> None:
        """Train one of the networks of equal latency."""
        self.from_scratch(f"alone/{number}", self.equal_latency[number])

    def ranked(self, generator: GeneratorName) -> None:
        """Scores of the networks of equal latency, on all held-out images."""

        def scores() -> dict[str, Any]:
            judge = self.judge(generator, "ranking")
            return {"scores": [judge(widths) for widths in self.equal_latency]}

        self.runs.once(f"ranking/{generator}", scores)

    def task(self, method: Callable[..., None], *arguments: Any) -> Task:
        """Something to do that one of several copies of the script takes."""
        name = "-".join(("task", method.__name__, *(str(a) for a in arguments if a is not self)))
        return Task(functools.partial(method, *arguments), self.runs.work / f"{name}.lock")

    def measure(self) -> None:
        """Latency of what was trained and not yet measured, end to end, against the unpruned network."""
        setup, here = self.setup, device_fingerprint("cpu")["model"]
        if here != setup.device_of_table:
            sys.exit(f"{setup.case.table} is of {setup.device_of_table}; this is {here}")
        with self.runs.lock("record"):
            self.runs.read()
            names = {
                name: tuple(run["widths"])
                for name, run in self.runs.runs.items()
                if "test_top1" in run and "measured_share" not in run
            }
            networks = sorted(set(names.values()) - {setup.space.full()})
            if not networks:
                return
            base_onnx = export_base(setup.network(self.seed), setup.space.input_shape)
            device = Device(base_onnx, setup.space, load_profile("cpu-1t"), base_ms=1.0)
            seconds = SECONDS_EACH * len(networks)
            found = device.networks(networks, relative_error=0.003, max_seconds=seconds)
            shares = dict(zip(networks, found, strict=True))
            for name, widths in names.items():
                if widths in shares:
                    self.runs.runs[name] |= {
                        "predicted_share": round(setup.share(widths), 4),
                        "measured_share": round(shares[widths].ms, 4),
                        "measured_error": round(shares[widths].error_ms, 4),
                    }
            self.runs.save()

    def judged(self) -> None:
        """What the judge thinks of the networks that were chosen and trained from scratch."""
        self.runs.read()
        chosen = {name: tuple(run["widths"]) for name, run in self.runs.runs.items() if "scratch/" in name}
        known = self.runs.runs.get("judged/residual", {}).get("scores", {})
        if chosen.keys() - known.keys():
            judge = self.judge("residual", "judged")
            scores = {name: judge(widths) for name, widths in chosen.items()}
            self.runs.add("judged/residual", {"scores": scores})

    @functools.cached_property
    def equal_latency(self) -> list[Widths]:
        """Different random networks that use the whole budget; the same for every seed."""
        problem = Problem(
            space=self.setup.space,
            constraints=(self.setup.latency(RANKED_BUDGET),),
            accuracy=lambda widths: 0.0,
        )
        sampler, rng = Sampler(problem), np.random.default_rng(RANKED_SEED)
        drawn = sampler.genome.widths(sampler.draw(10 * RANKED, rng))
        near = [tuple(map(int, row)) for row in drawn.tolist()]
        aim = BUDGETS[RANKED_BUDGET]
        using = [net for net in near if self.setup.share(net) >= aim * (1 - NEAR)][:RANKED]
        if len(using) < RANKED:
            raise RuntimeError(f"only {len(using)} networks use the budget")
        return using


def _near(found: dict[str, Any], aim: float) -> bool:
    """Whether a network uses a latency budget and keeps it."""
    return bool(aim * (1 - NEAR) <= found["predicted_share"] <= aim)


def _next_limit(tried: Sequence[dict[str, Any]], aim: float) -> float:
    """Between the limits whose winners were below and above; by proportion while all were on one side."""
    below = [one["macs_limit"] for one in tried if one["predicted_share"] <= aim]
    above = [one["macs_limit"] for one in tried if one["predicted_share"] > aim]
    if below and above and max(below) < min(above):
        return float(max(below) + min(above)) / 2
    last = tried[-1]
    return float(last["macs_limit"]) * (aim * (1 - NEAR / 2)) / float(last["predicted_share"])


def main() -> None:
    """Make the runs that are not yet on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["resnet20_wide"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    parser.add_argument("--device", default="cpu", help="where to train: cpu or cuda")
    parser.add_argument("--copies", type=int, default=1, help="processes that share the work")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS, help="of the first column")
    parser.add_argument("--longer", nargs="*", choices=LONGER, help="also the second column, or rows of it")
    parser.add_argument("--measure", action="store_true", help="only measure; let nothing else run")
    parser.add_argument(
        "--ranking", nargs="*", choices=GENERATORS, help="also 20 networks alone, and how these order them"
    )
    parser.add_argument("--judged", action="store_true", help="also the scores of all that is chosen")
    options = parser.parse_args()
    if options.copies > 1:
        one_thread_each()
    setups = [Setup(CASES[name], options.data, options.device) for name in options.cases]
    comparisons = [Comparison(setup, seed) for setup in setups for seed in options.seeds]
    if options.measure:
        for one in comparisons:
            one.measure()
        return
    parts = [one.tasks(options.rows) for one in comparisons]
    if options.ranking is not None:
        parts += [one.ranking_tasks(options.ranking or GENERATORS) for one in comparisons]
    if options.longer is not None:
        parts += [one.longer_tasks(options.longer or LONGER) for one in comparisons]
    in_copies(options.copies, parts)
    if options.judged:
        in_copies(options.copies, [[one.task(one.judged)] for one in comparisons])


if __name__ == "__main__":
    main()
