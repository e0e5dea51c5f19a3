"""More accuracy at the same latency and the same training? hwprune against rules and Torch-Pruning.

    python benchmarks/equal_epochs.py --steps base tables     (the second measures: let nothing else run)
    python benchmarks/equal_epochs.py --steps train
    python benchmarks/equal_epochs.py --steps measure         (measures)

Everybody starts from one trained base, which teaches all of them, and spends E epochs on the same images by
the same recipe; a rival's better one of two learning rates counts, by test images, which favours rivals.
The epochs of hwprune include its search, by `hwprune search --epochs E` and `hwprune train`; `defaults` is
the same by `init`'s own recipe, as a newcomer would run it. The latency is measured at the end, in turns with
the unpruned network's.

Every finished run is a row in `runs/equal_epochs`, and those in `results/equal_epochs.json` count as done.
Each call writes that file from all there is, and prints the figures as one JSON line last.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import comparison_rules as rules
import equal_epochs_page
import numpy as np
from common import finish
from depth_rows import Rows
from equal_epochs_tasks import BUDGETS, RUN, TASKS, Task

from hwprune.errors import BudgetError
from hwprune.latency.device import Device
from hwprune.progress import QUIET
from hwprune.project.budgets import parse_budgets, resolve
from hwprune.pruningnet.importance import importance
from hwprune.results import SearchResult
from hwprune.runtimes.profiles import load_profile
from hwprune.structure.export import export_base
from hwprune.structure.prune import prune
from hwprune.structure.rank import sort_channels
from hwprune.training.loop import train
from hwprune.verbs.search import search
from hwprune.verbs.train import train as train_verb

if TYPE_CHECKING:
    from hwprune.structure.space import SearchSpace, Widths

SEEDS = (0, 1, 2)
PUBLIC = ("uniform_width", "uniform_depth")  # what people do
FLOOR = ("even_depth", "compound", "scratch")  # our own rules, and hwprune's network from scratch
METHODS = ("hwprune", "defaults", *PUBLIC, *FLOOR)
DEVICE = "cpu-1t"
SECONDS_EACH = 3.0
ROUNDINGS = (16, 8, 4)  # channels: steps of this device, and parts of them


class Bench:
    """All runs of one task.

    Args:
        task: The task.
        rows: What is known.
    """

    def __init__(self, task: Task, rows: Rows) -> None:
        self.task, self.rows = task, rows

    @functools.cached_property
    def _latency(self) -> Any:
        project = self.task.project(0)
        return resolve(project, parse_budgets(("50%",), "", "", ""), "", "", QUIET)[0]

    @functools.cached_property
    def space(self) -> SearchSpace:
        """The search space, with choices that suit the device."""
        return self.task.project(0).space(DEVICE)

    def share(self, networks: Any) -> Any:
        """Predicted latency of networks as shares of the unpruned one's: (N,)."""
        table, full = np.atleast_2d(networks), np.array([self.space.full()])
        return self._latency.predict(table) / float(self._latency.predict(full)[0])

    def chosen(self, method: str, budget: str) -> Widths | None:
        """The network that a rule chooses within a budget."""
        limit = float(budget.rstrip("%")) / 100
        if method == "even_depth":
            depths = (self.space.uniform(1.0, depth) for depth in np.linspace(1, 0, 101).tolist())
            return next((net for net in depths if self.share(net)[0] <= limit), None)
        steps = tuple(math.gcd(*gene.choices) for gene in self.space.genes)
        setup = SimpleNamespace(
            space=self.space, shares=self.share, steps=steps, case=SimpleNamespace(roundings=ROUNDINGS)
        )
        rule = {"uniform_width": rules.uniform_width, "uniform_depth": rules.uniform_depth}
        return rule.get(method, rules.compound)(setup, limit)

    def run(self, method: str, budget: str, epochs: int, seed: int) -> None:
        """One training, if it is not on record."""
        name = f"{self.task.name}/{budget}/{epochs}/{method}/{seed}"
        verbs = {"hwprune": self._hwprune, "defaults": self._hwprune}
        own = {**verbs, "scratch": self._scratch}.get(method, self._rival)
        self.rows.once(name, lambda: own(method, budget, epochs, seed))

    def _hwprune(self, method: str, budget: str, epochs: int, seed: int) -> dict[str, Any]:
        project = self.task.project(seed, defaults=method == "defaults")
        if project.folder != self.task.project(0).folder:
            self._share_table(project.path("latency"))
        begun = time.perf_counter()
        try:
            found = search(project=project.folder, latency=budget, epochs=epochs)
        except BudgetError as error:
            return {"network": None, "reason": error.what}
        assert isinstance(found, SearchResult)
        searched = time.perf_counter() - begun
        result = train_verb(project=project.folder)
        return {
            "network": list(found.widths),
            "top1": round(result.top1, 4),
            "score": round(found.score, 4),
            "score_kind": found.score_kind,
            "spent": found.spent,
            "trained_epochs": round(result.epochs, 3),
            "lr": max(one["lr"] for one in result.history),
            "search_seconds": round(searched, 1),
        }

    def _share_table(self, folder: Any) -> None:
        import shutil

        if not folder.exists():
            shutil.copytree(self.task.project(0).path("latency"), folder)

    def _rival(self, method: str, budget: str, epochs: int, seed: int) -> dict[str, Any]:
        network = self.chosen(method, budget)
        if network is None:
            return {"network": None, "reason": "no network of this rule keeps the budget"}
        base = self.task.base
        ranked = sort_channels(base, self.space, importance("l1", base, self.space))
        tops = {}
        for rate in self.task.rates:
            model = prune(ranked, self.space, network)
            recipe = replace(self.task.tuning, epochs=epochs, lr=rate)
            train(model, self.task.dataset.train, recipe, seed=seed, teacher=base)
            tops[str(rate)] = self.task.top1(model)
        return {"network": list(network), "top1": max(tops.values()), "by_rate": tops}

    def _scratch(self, _: str, budget: str, epochs: int, seed: int) -> dict[str, Any]:
        found = self.rows.all().get(f"{self.task.name}/{budget}/{epochs}/hwprune/{seed}", {})
        if not found.get("network"):
            return {"network": None, "reason": "hwprune has found no network"}
        model = prune(self.task.project(seed).new_model(weights=False), self.space, tuple(found["network"]))
        recipe = replace(self.task.tuning, epochs=epochs, lr=0.1)
        train(model, self.task.dataset.train, recipe, seed=seed, teacher=self.task.base)
        return {"network": found["network"], "top1": self.task.top1(model)}

    def measure(self) -> None:
        """Latency of all networks, end to end, in turns with the unpruned one."""
        rows, mine = self.rows.all(), f"{self.task.name}/"
        wanted = {
            tuple(row["network"]) for name, row in rows.items() if name.startswith(mine) and row["network"]
        }
        wanted -= {tuple(row["of"]) for name, row in rows.items() if name.startswith(f"measured/{mine}")}
        if not wanted:
            return
        networks = sorted(wanted)
        onnx = export_base(self.task.project(0).new_model(), self.space.input_shape)
        device = Device(onnx, self.space, load_profile(DEVICE), base_ms=1.0)
        seconds = SECONDS_EACH * len(networks)
        found = device.networks(networks, relative_error=0.003, max_seconds=seconds)
        known = sum(name.startswith(f"measured/{mine}") for name in rows)
        for number, (net, one) in enumerate(zip(networks, found, strict=True), known):
            row = {"of": list(net), "share": round(one.ms, 4), "error": round(one.error_ms, 4)}
            self.rows.once(f"measured/{mine}{number}", functools.partial(dict, row))


def figures(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Rows by method, and by how many points hwprune is ahead of the best rival and of the best rule."""
    shares = {
        (name.split("/")[1], tuple(row["of"])): row["share"]
        for name, row in rows.items()
        if name.startswith("measured/")
    }
    table: dict[tuple[str, str, int, str], dict[str, Any]] = {}
    for name, row in rows.items():
        task, budget, epochs, method, seed = (*name.split("/"), "")[:5] if name.count("/") == 4 else [""] * 5
        if not task or row.get("network") is None:
            continue
        one = table.setdefault(
            (task, budget, int(epochs), method),
            {"seeds": [], "top1": [], "latency_share": [], "seconds": []},
        )
        one["seeds"].append(int(seed))
        one["top1"].append(row["top1"])
        one["latency_share"].append(shares.get((task, tuple(row["network"]))))
        one["seconds"].append(row["seconds"])
    ahead: dict[str, dict[str, dict[str, Any]]] = {}
    for task, budget, epochs in dict.fromkeys(key[:3] for key in table):
        own = table.get((task, budget, epochs, "hwprune"))
        for kind, methods in (("public", PUBLIC), ("floor", FLOOR)) if own else ():
            leads = [lead for one in methods if (lead := _lead(own, table.get((task, budget, epochs, one))))]
            if leads:
                worst = min(leads, key=lambda lead: lead["points"])
                ahead.setdefault(task, {}).setdefault(f"{budget} E={epochs}", {})[kind] = worst
    listed = [
        {"task": task, "budget": budget, "epochs": epochs, "method": method, **one}
        for (task, budget, epochs, method), one in sorted(table.items())
    ]
    return {"rows": listed, "ahead": ahead}


def _lead(own: dict[str, Any], rival: dict[str, Any] | None) -> dict[str, Any] | None:
    """Points between two methods over the seeds that both have: mean, standard error, number."""
    if rival is None:
        return None
    pairs = [
        100 * (own["top1"][own["seeds"].index(seed)] - top1)
        for seed, top1 in zip(rival["seeds"], rival["top1"], strict=True)
        if seed in own["seeds"]
    ]
    if not pairs:
        return None
    error = float(np.std(pairs, ddof=1) / len(pairs) ** 0.5) if len(pairs) > 1 else None
    return {
        "points": round(float(np.mean(pairs)), 2),
        "error": error and round(error, 2),
        "seeds": len(pairs),
    }


def main() -> None:
    """Make the runs that are not yet on record, and write down all there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    steps = ("base", "tables", "train", "measure")
    parser.add_argument("--steps", nargs="*", choices=steps, default=steps)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--epochs", type=int, nargs="+", help="those of the task by default")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--seconds", type=float, default=90.0, help="device time for each table")
    options = parser.parse_args()
    rows = Rows("equal_epochs", RUN, "all")
    for name in options.tasks:
        task, bench = TASKS[name], Bench(TASKS[name], rows)
        if "base" in options.steps:
            rows.once(f"base/{name}", lambda task=task: {"top1": task.top1(task.base)})
        if "tables" in options.steps:
            task.tables(options.seconds)
        wanted = itertools.product(
            options.seeds, options.epochs or task.epochs, options.budgets, options.methods
        )
        for seed, epochs, budget, method in wanted if "train" in options.steps else ():
            bench.run(method, budget, epochs, seed)
        if "measure" in options.steps:
            bench.measure()
    found = figures(rows.all())
    equal_epochs_page.write(found, rows.all())
    finish("equal_epochs", found, {"all": rows.all()})


if __name__ == "__main__":
    main()
