"""Does what a search returns keep its budget? Twenty searches, measured again by plain ONNX Runtime.

    python benchmarks/budgets_met.py

For four models: a latency table, then searches of depth and width under random budgets of 15 to 90 % of the
unpruned network's latency (by MACs, no images), with the closed loop and without it. Every answer is then
timed by plain ONNX Runtime, interleaved with the unpruned network. Prints one JSON line last. Let nothing
else run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import finish
from plain_onnxruntime import latency_ratio, one_thread

from hwprune.errors import ImpossibleBudgetError
from hwprune.evolution.problem import Problem
from hwprune.evolution.sampling import Sampler
from hwprune.evolution.search import search
from hwprune.latency.device import Device
from hwprune.progress import QUIET
from hwprune.project.budgets import parse_budgets, resolve
from hwprune.project.folder import Project
from hwprune.project.scoring import searcher_of
from hwprune.searching.initial import initial_population, macs_score
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.verbs.profile import profile

if TYPE_CHECKING:
    from hwprune.searching.searcher import Searcher
    from hwprune.structure.space import Widths

ROOT = Path(__file__).parent.parent
MODELS = {"resnet20": 5, "resnet56": 5, "mobilenet_v2": 5, "torchvision:resnet18": 5}  # and searches of each
TOLERANCE = 1.03
DRAWN = 20_000


class Stopwatch:
    """Adds up the time inside a method."""

    def __init__(self, owner: type, name: str) -> None:
        self.seconds, original = 0.0, getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **options)
            finally:
                self.seconds += time.perf_counter() - started

        setattr(owner, name, timed)


def main() -> None:
    """Search, measure again, and say how many budgets hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table-time", default="60s", help="device time for each latency table")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "budgets_met")
    options = parser.parse_args()
    watches = {name: Stopwatch(Device, name) for name in ("networks", "neighbours")}
    rng, found, rate = np.random.default_rng(0), [], 0.0
    for model, count in MODELS.items():
        project = profiled(options.work / model.replace(":", "-"), model, options.table_time)
        for number in range(count):
            one = {"model": model, **possible_search(project, rng, number, watches)}
            print(one, flush=True)
            found.append(one)
        if model == "mobilenet_v2":
            rate = feasible_per_second(project)
    looped, alone = (verdicts(found, key) for key in ("ratio", "ratio_without_loop"))
    parts = ("seconds", "measuring_seconds", "second_look_seconds", "loading_seconds")
    seconds, measuring, second_look, loading = (sum(one[part] for one in found) for part in parts)
    figures = {
        **{key: looped[key] for key in ("met", "total", "worst_ratio", "mean_use")},
        "without_closed_loop": {key: alone[key] for key in ("met", "worst_ratio", "mean_use")},
        "overhead_percent": round(100 * (1 - (measuring + second_look) / seconds), 2),
        "of_which": {
            "loading_the_table": round(100 * loading / seconds, 2),
            "the_search_itself": round(100 * (seconds - measuring - second_look - loading) / seconds, 2),
        },
        "second_look_percent": round(100 * second_look / seconds, 2),  # neighbours of the answer beside it
        "feasible_per_second": round(rate),
    }
    finish("budgets_met", {**figures, "searches": found})


def profiled(folder: Path, model: str, table_time: str) -> Project:
    """A project without images and its latency table; answers of an earlier run do not count."""
    if not (folder / "hwprune.toml").exists():
        profile(project=folder, model=model, max_time=table_time)
    project = Project(folder)
    for pattern in ("answer-*", "search-*.jsonl"):
        for path in project.path().glob(pattern):
            path.unlink()
    return project


def possible_search(
    project: Project, rng: np.random.Generator, seed: int, watches: dict[str, Stopwatch]
) -> dict[str, Any]:
    """A search under a random budget; one that no network keeps is drawn again."""
    while True:
        budget = f"{rng.uniform(15, 90):.1f}%"
        try:
            return one_search(project, budget, seed, watches)
        except ImpossibleBudgetError:
            print(f"{budget}: no network keeps it, another budget is drawn", flush=True)


def one_search(project: Project, budget: str, seed: int, watches: dict[str, Stopwatch]) -> dict[str, Any]:
    """One budget, with the closed loop and without, each answer timed by plain ONNX Runtime."""
    before, started = {name: watch.seconds for name, watch in watches.items()}, time.perf_counter()
    budgets = resolve(project, parse_budgets(budget, "", "", ""), "", "")
    searcher = searcher_of(project, budgets, seed, QUIET)
    loading = time.perf_counter() - started
    result = searcher.run()
    seconds = time.perf_counter() - started
    spent = {name: watch.seconds - before[name] for name, watch in watches.items()}
    share = budgets[0].quantity.value if budgets[0].quantity else 1.0
    return {
        "budget": budget,
        "ratio": round(ratio(project, searcher, result.widths) / share, 4),
        "ratio_without_loop": round(ratio(project, searcher, predicted_only(searcher, seed)) / share, 4),
        "claimed": round(result.latency.high_use, 4),
        "margin": round(budgets[0].margin, 4),
        "seconds": round(seconds, 2),
        # the second look is taken through the same method
        "measuring_seconds": round(spent["networks"] - spent["neighbours"], 2),
        "second_look_seconds": round(spent["neighbours"], 2),
        "loading_seconds": round(loading, 2),
    }


def predicted_only(searcher: Searcher, seed: int) -> Widths:
    """What the same evolution returns when nothing is measured."""
    problem = Problem(
        space=searcher.space,
        constraints=(searcher.budgets[0].constraint(margin=True),),
        accuracy=macs_score(searcher.space),
    )
    return search(problem, searcher.settings, seed=seed, initial=initial_population(problem)).best.widths


def ratio(project: Project, searcher: Searcher, widths: Widths) -> float:
    """Latency of a network as a share of the unpruned one's."""
    base_onnx = project.base_onnx(searcher.targets[0].profile.name)
    network = OnnxSlicer(base_onnx, searcher.space).slice(widths)
    return latency_ratio(one_thread(network), one_thread(base_onnx), visits=20)


def verdicts(found: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """How many answers are within their budgets, the worst, and how much of the budget they use."""
    ratios = np.array([one[key] for one in found])
    return {
        "met": int((ratios <= TOLERANCE).sum()),
        "total": len(ratios),
        "worst_ratio": round(float(ratios.max()), 4),
        "mean_use": round(float(ratios.mean()), 4),
    }


def feasible_per_second(project: Project) -> float:
    """Different networks within 30 % of the latency that are drawn in a second."""
    (budget, *_) = resolve(project, parse_budgets("30%", "", "", ""), "", "")
    if budget.target is None:
        raise RuntimeError("a latency budget has a target")
    problem = Problem(
        space=budget.target.space,
        constraints=(budget.constraint(margin=False),),
        accuracy=lambda widths: 0.0,
    )
    sampler, rng = Sampler(problem), np.random.default_rng(0)
    sampler.draw(100, rng)  # fits the tables of kernels
    started = time.perf_counter()
    drawn = sampler.draw(DRAWN, rng)
    seconds = time.perf_counter() - started
    if not problem.feasible(sampler.genome.widths(drawn)).all():
        raise RuntimeError("a network over the budget was drawn")
    return len(drawn) / seconds


if __name__ == "__main__":
    main()
