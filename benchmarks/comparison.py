"""hwprune against what people would use instead, on CIFAR-10 at a share of the base's measured latency.

    python benchmarks/comparison.py --seed 0

Trains a base network, three PruningNets, searches at each budget, and trains what each way of choosing gives,
all by one recipe on the same images. Every finished run is kept in `results/comparison/seedN.json`, so the
script can be stopped at any time; `comparison_table.py` makes the page from those files. With `--longer` the
rivals are also trained for all the epochs that hwprune's network has behind it; with `--ranking` 20 random
networks of one latency are trained alone, to see how well each PruningNet orders them; with `--measure`
nothing is trained, but the latency of everything that was is measured, on the device of the table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comparison_rivals as rivals
import numpy as np
from comparison_setup import (
    BUDGETS,
    DATA,
    EPOCHS,
    EVOLUTION,
    FINE_TUNING,
    JUDGE,
    LONGER,
    RANKED,
    RANKED_BUDGET,
    RANKED_SEED,
    RATES,
    RECIPE,
    Runs,
    Setup,
)

from hwprune.api.device import Device
from hwprune.api.judge import starts
from hwprune.evolution.problem import Constraint, Problem
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import search
from hwprune.exporter import export_base
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.fit import fit
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.runtimes.profiles import load_profile
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.training.loop import train

if TYPE_CHECKING:
    from torch import nn

    from hwprune.evolution.problem import AccuracyScore
    from hwprune.pruningnet.settings import GeneratorName
    from hwprune.structure.space import Widths
    from hwprune.training.settings import TrainSettings

GENERATORS: tuple[GeneratorName, ...] = ("residual", "shared", "fc")
MACS_TRIES = 6
MACS_STARTS = {"50": 0.43, "30": 0.245}  # limits whose winners were near the latency in earlier searches
SECONDS_EACH = 3.0
NEAR = 0.02  # of the latency budget


class Comparison:
    """All runs of one seed."""

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.seed, self.runs = setup, seed, Runs(setup, seed)
        self._judges: dict[str, Racer] = {}
        self._base: nn.Module | None = None

    def base(self) -> nn.Module:
        """The trained base network."""
        if self._base is None:
            model = self.setup.network(self.seed)
            self.runs.trained("base", self.setup.space.full(), lambda: model)
            # From its checkpoint; trained anew where that is gone.
            path = self.runs.work / "base.safetensors"
            train(model, self.setup.train, RECIPE, checkpoint=path, seed=self.seed)
            self._base = model.eval()
        return self._base

    def judge(self, generator: GeneratorName) -> Racer:
        """A trained PruningNet that scores candidates."""
        if generator not in self._judges:
            setup, settings = self.setup, replace(JUDGE, lr=RATES[generator])
            net = self._pruningnet(generator)
            path = self.runs.work / f"judge-{generator}.safetensors"
            history = fit(net, setup.train, settings, checkpoint=path, seed=self.seed)
            evaluator = Evaluator(net, setup.train, setup.held_out, settings, seed=self.seed)
            known = Outcomes(evaluator.stops, self.runs.work / f"evaluations-{generator}.jsonl")
            judge = self._judges[generator] = Racer(evaluator, known)
            space, shares = setup.space, (1.0, 0.5, 0.25)
            self.runs.once(
                f"judge/{generator}",
                lambda: {
                    "held_out_top1": {f"{ratio:.2f}": judge(space.uniform(ratio)) for ratio in shares},
                    "train_top1": history.epochs[-1].top1,
                    "train_seconds": round(sum(epoch.seconds for epoch in history.epochs), 1),
                    "parameters": sum(p.numel() for p in net.parameters()),
                    "lr": settings.lr,
                },
            )
        return self._judges[generator]

    def _pruningnet(self, generator: GeneratorName) -> PruningNet:
        model, setup = self.setup.network(self.seed), self.setup
        if generator == "residual":
            model = sort_channels(self.base(), setup.space, importance("l1", self.base(), setup.space))
        return PruningNet(model, setup.space, generator, seed=self.seed)

    def found(self, generator: GeneratorName, budget: str) -> Widths:
        """What a search under the latency budget finds with one generator."""
        record = self.runs.once(
            f"search/{generator}/{budget}", lambda: self._search(generator, self.setup.latency(budget))
        )
        return tuple(record["widths"])

    def found_by_macs(self, budget: str) -> Widths:
        """What the published method finds, `fc` under a budget of MACs, when its winner has the latency."""
        record = self.runs.once(f"search/macs/{budget}", lambda: self._search_by_macs(budget))
        return tuple(record["widths"])

    def _search(self, generator: GeneratorName, constraint: Constraint) -> dict[str, Any]:
        return self.searched(self.judge(generator), constraint)

    def searched(self, judge: AccuracyScore, constraint: Constraint) -> dict[str, Any]:
        """What a search within one limit finds with a judge."""
        problem = Problem(space=self.setup.space, constraints=(constraint,), accuracy=judge)
        outcome = search(problem, EVOLUTION, seed=self.seed, starts=starts(problem))
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
        full, limit = float(space.macs(space.full())), MACS_STARTS[budget]
        tried: list[dict[str, Any]] = []
        for _ in range(MACS_TRIES):
            constraint = Constraint(name="macs", predict=space.macs, limit=limit * full, unit="MACs")
            found = {**self._search("fc", constraint), "macs_limit": limit}
            tried.append(found)
            if aim * (1 - NEAR) <= found["predicted_share"] <= aim:
                break
            limit *= (aim * (1 - NEAR / 2)) / found["predicted_share"]
        within = [found for found in tried if found["predicted_share"] <= aim] or tried
        best = min(within, key=lambda one: abs(aim - float(one["predicted_share"])))
        near = aim * (1 - NEAR) <= best["predicted_share"] <= aim
        return {
            **best,
            "near_enough": near,
            "tried": [[one["macs_limit"], one["predicted_share"]] for one in tried],
        }

    def from_scratch(self, name: str, widths: Widths, recipe: TrainSettings = RECIPE) -> None:
        """Train a structure from random weights."""
        space = self.setup.space
        self.runs.trained(name, widths, lambda: prune(self.setup.network(self.seed), space, widths), recipe)

    def from_judge(self, name: str, generator: GeneratorName, widths: Widths) -> None:
        """Train a structure from the weights that a PruningNet generates for it."""
        self.runs.trained(name, widths, lambda: self.judge(generator).judge.network(widths), FINE_TUNING)

    def fine_tuned(self, name: str, kind: str, budget: str, recipe: TrainSettings = FINE_TUNING) -> None:
        """Prune the base network with Torch-Pruning and fine-tune it."""
        if name not in self.runs.runs:
            model, widths = rivals.torch_pruning_network(self.setup, self.base(), BUDGETS[budget], kind)
            self.runs.trained(name, widths, lambda: model, recipe)

    def first_column(self, budget: str) -> None:
        """What needs no search of its own beside hwprune, with the same epochs of final training."""
        ours = self.found("residual", budget)
        self.from_scratch(f"scratch/hwprune/{budget}", ours)
        self.from_judge(f"tuned/hwprune/{budget}", "residual", ours)
        uniform = rivals.uniform(self.setup, BUDGETS[budget])
        self.from_scratch(f"scratch/uniform/{budget}", uniform)
        self.from_judge(f"tuned/uniform/{budget}", "residual", uniform)
        for kind in ("magnitude", "taylor"):
            self.fine_tuned(f"tuned/{kind}/{budget}", kind, budget)

    def other_searches(self, budget: str) -> None:
        """The rivals that search too, each with a PruningNet of its own."""
        self.from_scratch(f"scratch/macs/{budget}", self.found_by_macs(budget))
        self.from_scratch(f"scratch/shared/{budget}", self.found("shared", budget))

    def second_column(self, budget: str) -> None:
        """The rivals with as many epochs as hwprune's network has behind it, the base's among them."""
        scratch, tuning = replace(RECIPE, epochs=LONGER), replace(FINE_TUNING, epochs=LONGER - EPOCHS)
        self.from_scratch(f"longer/uniform/{budget}", rivals.uniform(self.setup, BUDGETS[budget]), scratch)
        for kind in ("magnitude", "taylor"):
            self.fine_tuned(f"longer/{kind}/{budget}", kind, budget, tuning)
        self.from_scratch(f"longer/macs/{budget}", self.found_by_macs(budget), scratch)

    def measure(self) -> None:
        """Latency of every network that was trained, measured end to end against the unpruned one."""
        setup = self.setup
        names = {name: tuple(run["widths"]) for name, run in self.runs.runs.items() if "test_top1" in run}
        networks = sorted(set(names.values()) - {setup.space.full()})
        base_onnx = export_base(setup.network(self.seed), setup.space.input_shape)
        device = Device(base_onnx, setup.space, load_profile("cpu-1t"), base_ms=1.0)
        found = device.networks(networks, relative_error=0.003, max_seconds=SECONDS_EACH * len(networks))
        shares = dict(zip(networks, found, strict=True))
        for name, widths in names.items():
            if widths in shares:
                self.runs.runs[name]["measured_share"] = round(shares[widths].ms, 4)
                self.runs.runs[name]["measured_error"] = round(shares[widths].error_ms, 4)
        self.runs.save()

    def judged(self) -> None:
        """What the judge thinks of the networks that were chosen and trained from scratch."""
        chosen = {name: tuple(run["widths"]) for name, run in self.runs.runs.items() if "scratch/" in name}
        known = self.runs.runs.get("judged/residual", {}).get("scores", {})
        if chosen.keys() - known.keys():
            self.runs.runs.pop("judged/residual", None)
            scores = {name: self.judge("residual")(widths) for name, widths in chosen.items()}
            self.runs.once("judged/residual", lambda: {"scores": scores})

    def ranking(self) -> None:
        """Train networks of one latency alone, and score them with each PruningNet."""
        networks = self.equal_latency()
        for generator in GENERATORS:
            self.runs.once(
                f"ranking/{generator}",
                lambda g=generator: self._scores(g, networks),
            )
        for number, widths in enumerate(networks):
            self.from_scratch(f"alone/{number}", widths)

    def _scores(self, generator: GeneratorName, networks: list[Widths]) -> dict[str, Any]:
        """Scores on all held-out images."""
        return {"scores": [self.judge(generator)(widths) for widths in networks]}

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


def main() -> None:
    """Make the runs of one seed that are not yet on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    parser.add_argument("--longer", action="store_true", help="also the second column")
    parser.add_argument("--measure", action="store_true", help="only measure; let nothing else run")
    parser.add_argument("--ranking", action="store_true", help="also 20 networks of one latency, alone")
    options = parser.parse_args()
    comparison = Comparison(Setup(options.data), options.seed)
    if options.measure:
        comparison.measure()
        return
    for budget in BUDGETS:
        comparison.first_column(budget)
    for budget in BUDGETS:
        comparison.other_searches(budget)
    comparison.judged()
    for budget in BUDGETS if options.longer else ():
        comparison.second_column(budget)
    if options.ranking:
        comparison.ranking()


if __name__ == "__main__":
    main()
