"""What blocks that may go are worth on CIFAR-10: depth and widths against widths alone, and against rules.

    python benchmarks/depth.py --steps tables           (measures: let nothing else run)
    python benchmarks/depth.py --steps choose train
    python benchmarks/depth.py --steps measure          (measures again what was chosen)

Zero epochs: a pretrained ResNet-56, adapted to these images, is pruned to a share of its latency and not
trained; batch norm is recalibrated. From scratch: what hwprune and four rules choose at one latency, trained
by one recipe from random weights. hwprune's score is that of zero epochs: trained weights of the unpruned
network, channels sorted.

Every finished run is a small file in `runs/depth/rows`, and those in `results/depth.json` count as done, so
the script can be stopped at any time and goes on elsewhere. Trainings go on from their last epoch. Each call
writes `results/depth.json` from all there is, and prints the figures as one JSON line last.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import finish
from comparison_setup import DATA, Setup
from depth_rows import (
    ADAPT,
    FROM_SCRATCH,
    NETWORKS,
    RULES,
    RUN,
    SEEDS,
    WAYS,
    ZERO_EPOCH,
    Rows,
    figures,
)
from filelock import FileLock
from networks import pretrained_resnet56

from hwprune.errors import HwpruneError, HwpruneWarning, ImpossibleBudgetError
from hwprune.evolution.algorithm import SearchSettings
from hwprune.evolution.problem import Constraint, Problem
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import search
from hwprune.latency.device import Device
from hwprune.latency.folder import TableFolder
from hwprune.latency.profiler import profile_space
from hwprune.latency.staircase import channel_multiple
from hwprune.pruningnet.evaluate import Evaluator
from hwprune.pruningnet.importance import importance
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.pruningnet.race import Racer
from hwprune.runtimes.profiles import load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.searching.initial import initial_population
from hwprune.structure.export import export_base
from hwprune.structure.onnx_graph import without_weights
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.structure.trace import trace
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comparison_cases import Case
    from torch import nn

    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.settings import TrainSettings

RATE_STEPS = 8
SECONDS_EACH = 3.0
SCORED, RECALIBRATED = 1000, 200  # images: held out, for scores; of training, for statistics
EVOLUTION = SearchSettings(
    population=24, parents=8, mutants=10, crossovers=10, generations=4, fit_children=True
)


class Depth:
    """All runs of one network.

    Args:
        case: The network and its recipe.
        rows: What is known.
    """

    def __init__(self, case: Case, rows: Rows) -> None:
        self.case, self.rows = case, rows

    @functools.cached_property
    def setup(self) -> Setup:
        """Images, space and latency model."""
        return Setup(self.case, DATA)

    def table(self, seconds: float) -> None:
        """Measure the latency table, if there is none; goes on with one that is unfinished."""
        folder, shape = self.case.table, (1, 3, 32, 32)
        if (folder / "table.json").exists():
            return
        target = load_profile("cpu-1t")
        runtime, model = get_runtime(target), self.case.build(10).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HwpruneWarning)
            space = trace(model, torch.zeros(shape), name=self.case.name, depth=True)
        space = space.with_choices(channel_multiple(runtime, target))
        base = runtime.lower(export_base(model, shape), target)
        table = profile_space(
            space, base, target, runtime, folder=folder, max_seconds=seconds, max_error=0.015
        )
        TableFolder(table, space, without_weights(base)).save(folder)

    def rate(self) -> None:
        """Images a second of one thread that trains the unpruned network."""

        def run() -> dict[str, Any]:
            images = self.setup.train.subset(np.arange(RATE_STEPS * self.case.batch_size))
            model, recipe = self.setup.network(0), replace(self.recipe, epochs=1)
            begun = time.process_time()  # of this process alone: other programs may run
            train(model, images, recipe)
            return {"images_per_second": round(len(images) / (time.process_time() - begun), 1)}

        self.rows.once(f"rate/{self.case.name}", run)

    @property
    def recipe(self) -> TrainSettings:
        """Of every training, on whatever device: some compute in bfloat16 where they can, which differs."""
        return replace(self.case.recipe, precision="fp32")

    @functools.cached_property
    def base(self) -> nn.Module:
        """The trained unpruned network; ResNet-56 is the pretrained one, adapted to these images."""
        adapted = self.case.name == "resnet56"
        model = pretrained_resnet56() if adapted else self.setup.network(0)
        recipe = ADAPT if adapted else self.recipe
        with FileLock(RUN / f"base-{self.case.name}.lock"):
            train(
                model, self.setup.train, recipe, checkpoint=RUN / f"base-{self.case.name}.safetensors", seed=0
            )

        def run() -> dict[str, Any]:
            before = {"top1_before": self._top1(pretrained_resnet56().eval())} if adapted else {}
            return {"epochs": recipe.epochs, "adapted": adapted, **before, "top1": self._top1(model)}

        self.rows.once(f"base/{self.case.name}", run)
        return model

    def _top1(self, model: nn.Module) -> float:
        return round(evaluate(model, self.setup.test), 4)

    def found(self, budget: str, *, depth: bool) -> dict[str, Any]:
        """What a search by zero-epoch scores finds, with blocks that may go or with widths alone."""
        kind = "depth" if depth else "width"
        return self.rows.once(
            f"found/{self.case.name}/{budget}/{kind}", lambda: self._search(int(budget) / 100, depth)
        )

    def _search(self, share: float, depth: bool) -> dict[str, Any]:
        setup, blocks = self.setup, len(self.setup.space.blocks)
        space = setup.space if depth else replace(setup.space, blocks=())

        def whole(networks: Any) -> Any:
            gates = np.ones((len(networks), 0 if depth else blocks), dtype=np.int64)
            return np.column_stack([networks, gates])

        limit = Constraint(
            name="latency",
            predict=lambda networks: setup.model.predict(whole(networks)),
            limit=share * setup.base_ms,
            unit="ms",
        )
        try:
            Sampler(Problem(space=space, constraints=(limit,), accuracy=lambda _: 0.0))
        except ImpossibleBudgetError:
            least = round(float(limit.predict(np.array([space.smallest()]))[0]) / setup.base_ms, 4)
            return {"network": None, "reason": "no network keeps the budget", "narrowest_share": least}
        evaluator = self._evaluator(space)
        name = f"{self.case.name}-{'depth' if depth else 'width'}"
        known = Outcomes(evaluator.stops, RUN / f"evaluations-{name}-{share}.jsonl")
        problem = Problem(space=space, constraints=(limit,), accuracy=Racer(evaluator, known))
        outcome = search(problem, EVOLUTION, seed=0, initial=initial_population(problem))
        best = outcome.best
        return {
            **self._described(tuple(whole([best.widths])[0].tolist())),
            "score": round(best.score, 4),
            "zero_epoch_top1": self._top1(evaluator.network(best.widths)),
            "evaluated": len(outcome.candidates),
        }

    def _evaluator(self, space: SearchSpace) -> Evaluator:
        if space.blocks not in self._evaluators:
            ranked = sort_channels(self.base, space, importance("l1", self.base, space))
            net = PruningNet(ranked, space, "residual", seed=0)
            settings = replace(
                self.case.judge("residual"), precision="fp32", recalibration_images=RECALIBRATED
            )
            some = np.random.default_rng(0).permutation(len(self.setup.held_out))[:SCORED]
            self._evaluators[space.blocks] = Evaluator(
                net, self.setup.train, self.setup.held_out.subset(some), settings, seed=0
            )
        return self._evaluators[space.blocks]

    @functools.cached_property
    def _evaluators(self) -> dict[Any, Evaluator]:
        return {}

    def _described(self, network: Widths) -> dict[str, Any]:
        setup = self.setup
        return {
            "network": list(network),
            "predicted_share": round(setup.share(network), 4),
            "macs_share": round(setup.macs_share(network), 4),
            "blocks": [sum(network[len(setup.space.groups) :]), len(setup.space.blocks)],
        }

    def chosen(self, way: str, budget: str) -> dict[str, Any]:
        """The network of one way of choosing; `network` is None where there is none, with a reason."""
        if way == "hwprune":
            return self.found(budget, depth=True)

        def run() -> dict[str, Any]:
            share = int(budget) / 100
            if way == "magnitude":
                return self._magnitude(share)
            network = RULES[way](self.setup, share)
            none = {"network": None, "reason": "no network of this rule keeps the budget"}
            return self._described(network) if network else none

        return self.rows.once(f"chosen/{self.case.name}/{budget}/{way}", run)

    @functools.cached_property
    def _kept_by_magnitude(self) -> list[tuple[float, int, Widths]]:
        import comparison_rivals

        tried = comparison_rivals.TorchPruning(self.setup, self.base, "magnitude").tried()
        return [(ratio, step, self.setup.space.check(network)) for ratio, step, network in tried]

    def _magnitude(self, share: float) -> dict[str, Any]:
        """What Torch-Pruning keeps of the trained network."""
        try:
            import comparison_rivals
        except ImportError:
            return {"network": None, "reason": "Torch-Pruning is not installed"}
        try:
            tried = self._kept_by_magnitude
        except (HwpruneError, RuntimeError, ValueError) as error:
            text = f"Torch-Pruning fails on this network: {type(error).__name__}: {error}"
            return {"network": None, "reason": text[:300]}
        best = comparison_rivals.gentlest(self.setup, tried, share)
        none = {"network": None, "reason": "no setting of Torch-Pruning keeps the budget"}
        return self._described(tuple(best["widths"])) if best else none

    def train(self, way: str, budget: str, seed: int) -> None:
        """Train what a way of choosing gives from random weights; a network that two ways give only once."""
        network = self.chosen(way, budget)["network"]
        if network is None:
            return
        mine = f"scratch/{self.case.name}/"
        known = [row for name, row in self.rows.all().items() if name.startswith(mine)]
        if any(row["network"] == network and row["seed"] == seed for row in known):
            return
        name = f"scratch/{self.case.name}/{budget}/{way}/{seed}"

        def run() -> dict[str, Any]:
            model = prune(self.setup.network(seed), self.setup.space, tuple(network))
            path = RUN / "checkpoints" / f"{name.replace('/', '-')}.safetensors"
            path.parent.mkdir(exist_ok=True)
            history = train(model, self.setup.train, self.recipe, checkpoint=path, seed=seed)
            return {
                "network": network,
                "seed": seed,
                "top1": self._top1(model),
                "train_top1": round(history.epochs[-1].top1, 4),
            }

        self.rows.once(name, run)

    def measure(self) -> None:
        """Latency of what was chosen, end to end, interleaved with the unpruned network."""
        rows = self.rows.all()
        kinds = (f"found/{self.case.name}/", f"chosen/{self.case.name}/")
        wanted = {
            name: tuple(row["network"])
            for name, row in rows.items()
            if name.startswith(kinds) and row["network"] and f"measured/{name}" not in rows
        }
        if not wanted:
            return
        networks = sorted(set(wanted.values()))
        onnx = export_base(self.setup.network(0), self.setup.space.input_shape)
        device = Device(onnx, self.setup.space, load_profile("cpu-1t"), base_ms=1.0)
        seconds = SECONDS_EACH * len(networks)
        found = device.networks(networks, relative_error=0.003, max_seconds=seconds)
        shares = {
            network: {"share": round(one.ms, 4), "error": round(one.error_ms, 4)}
            for network, one in zip(networks, found, strict=True)
        }
        for name, network in wanted.items():
            self.rows.once(f"measured/{name}", functools.partial(shares.__getitem__, network))


def order() -> Iterator[tuple[str, str, str, int]]:
    """(network, budget, way, seed), the most telling first."""
    first, others = ("hwprune", "uniform_width"), ("uniform_depth", "compound", "magnitude")
    for seed in SEEDS:
        for ways in (first, others):
            for name in NETWORKS:
                for budget in reversed(FROM_SCRATCH):
                    for way in ways:
                        yield name, budget, way, seed


def run(step: str, all_of: dict[str, Depth], options: argparse.Namespace) -> None:
    """One step for the networks asked for."""
    for one in all_of.values() if step != "train" else ():
        if step == "tables":
            one.table(options.seconds)
        elif step == "measure":
            one.measure()
        elif step == "rates":
            one.rate()
        elif step == "choose":
            for depth, budget in itertools.product((True, False), ZERO_EPOCH):
                if one.case.name == "resnet56":
                    one.found(budget, depth=depth)
            for budget, way in itertools.product(FROM_SCRATCH, WAYS):
                one.chosen(way, budget)
    for name, budget, way, seed in order() if step == "train" else ():
        if name in all_of and seed in options.seeds:
            all_of[name].train(way, budget, seed)


def main() -> None:
    """Make the runs that are not yet on record, and write down all there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    steps = ("tables", "rates", "choose", "measure", "train")
    parser.add_argument("--steps", nargs="*", choices=steps, default=steps)
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--seconds", type=float, default=90.0, help="device time for each table")
    options = parser.parse_args()
    rows = Rows()
    all_of = {name: Depth(NETWORKS[name], rows) for name in options.networks}
    for step in options.steps:
        run(step, all_of, options)
    finish("depth", figures(rows.all()), {"rows": rows.all()})


if __name__ == "__main__":
    main()
