"""The page of the comparison on CIFAR-10, made from the committed runs.

python benchmarks/comparison_table.py > docs/comparison.md
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS
from scipy.stats import kendalltau

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Runs = dict[str, Any]
BUDGETS = {"50": "50 %", "30": "30 %"}
RIVALS = {  # run without its column -> what it is, start, and the goal in points at 50 % and at 30 %
    "uniform": ("uniform widths", "scratch", {"50": 1.0, "30": 2.0}),
    "macs": ("MetaPruning (`fc`), budget in MACs", "scratch", {"50": 0.5, "30": 0.5}),
    "magnitude": ("Torch-Pruning, magnitude", "tuned", {"50": 0.5, "30": 0.5}),
    "taylor": ("Torch-Pruning, Taylor", "tuned", {"50": 0.5, "30": 0.5}),
    "shared": ("the same search, `shared`", "scratch", {}),
    "uniform_tuned": ("uniform widths, from hwprune's PruningNet", "tuned", {}),
}
HEAD = """# hwprune against its rivals on CIFAR-10

Made by `benchmarks/comparison_table.py` from `benchmarks/results/comparison/`; do not edit.

ResNet-20 with 32, 64 and 128 channels, 25,000 training images, budgets as shares of the unpruned network's
one-thread latency on an AMD EPYC (Zen 5). Everybody trains by one recipe ({epochs} epochs, batch {batch}),
and each network is scored once on the 10,000 test images. Seeds: {seeds}; mean and, in brackets, each seed's.

- *hwprune* is what `generator = "residual"` with `start = "generated"` gives: the network that was found,
  trained on from the weights that PruningNet generates for it. *hwprune, from scratch* is the same structure
  from random weights, the paper's protocol.
- Torch-Pruning's networks go on from the base network's trained weights; uniform ones and MetaPruning's start
  from scratch. *Same epochs*: everybody's final training is as long. *With PruningNet's epochs*: the rival's
  is longer by those that PruningNet was trained for.
"""


def main() -> None:
    """Print the page."""
    seeds = [json.loads(path.read_text()) for path in sorted((RESULTS / "comparison").glob("seed*.json"))]
    runs = [seed["runs"] for seed in seeds]
    recipe = seeds[0]["settings"]["recipe"]
    print(HEAD.format(epochs=recipe["epochs"], batch=recipe["batch_size"], seeds=len(seeds)))
    print(f"The unpruned network: {points(runs, 'base')} %.\n")
    for budget, text in BUDGETS.items():
        print(f"## At {text} of the latency\n")
        print("\n".join(accuracy_table(runs, budget)), end="\n\n")
    print("## How well the judges rank\n")
    print("\n".join(ranking(runs)))
    print("\n## The judges themselves\n")
    print("\n".join(judges(runs)))


def values(runs: Sequence[Runs], name: str, key: str = "test_top1") -> list[float]:
    """A figure of every seed that has it."""
    return [float(seed[name][key]) for seed in runs if name in seed]


def points(runs: Sequence[Runs], name: str) -> str:
    """Mean accuracy, and that of each seed."""
    found = [100 * value for value in values(runs, name)]
    if not found:
        return "not run"
    return f"{np.mean(found):.2f}" + (f" ({', '.join(f'{v:.2f}' for v in found)})" if len(found) > 1 else "")


def gap(runs: Sequence[Runs], ours: str, rival: str) -> float | None:
    """Mean difference in points over the seeds that have both."""
    both = [
        100 * (seed[ours]["test_top1"] - seed[rival]["test_top1"])
        for seed in runs
        if {ours, rival} <= set(seed)
    ]
    return float(np.mean(both)) if both else None


def accuracy_table(runs: Sequence[Runs], budget: str) -> list[str]:
    """One budget: every rival, both columns, and how far hwprune is ahead."""
    ours, scratch = f"tuned/hwprune/{budget}", f"scratch/hwprune/{budget}"
    lines = [
        "| | latency, predicted | same epochs | hwprune ahead by | goal "
        "| with PruningNet's epochs | hwprune ahead by |",
        "|---|---|---|---|---|---|---|",
        f"| **hwprune** | {latency(runs, ours)} | {points(runs, ours)} | | | | |",
        f"| hwprune, from scratch | {latency(runs, scratch)} | {points(runs, scratch)} | | | | |",
    ]
    for name, (text, start, goals) in RIVALS.items():
        first, second = f"{start}/{name.removesuffix('_tuned')}/{budget}", f"longer/{name}/{budget}"
        goal = goals.get(budget)
        cells = (
            text,
            latency(runs, first),
            points(runs, first),
            ahead(runs, ours, first, goal),
            f"+{goal}" if goal else "reported",
            points(runs, second),
            ahead(runs, ours, second, None),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def latency(runs: Sequence[Runs], name: str) -> str:
    """Mean share of the unpruned network's latency."""
    found = values(runs, name, "predicted_share")
    return f"{100 * np.mean(found):.1f} %" if found else "not run"


def ahead(runs: Sequence[Runs], ours: str, rival: str, goal: float | None) -> str:
    """How far hwprune is ahead, and whether that is the goal."""
    found = gap(runs, ours, rival)
    if found is None:
        return ""
    verdict = "" if goal is None else (", met" if found >= goal else ", missed")
    return f"{found:+.2f}{verdict}"


def ranking(runs: Sequence[Runs]) -> list[str]:
    """Kendall's tau between each order and that of training alone."""
    with_truth = [seed for seed in runs if sum(name.startswith("alone/") for name in seed) >= 20]
    if not with_truth:
        return ["Not run."]
    lines = [
        "Kendall's tau between an order of 20 random networks of one latency and the order of their test",
        "accuracies, each trained alone from scratch. Goal: 0.6.",
        "",
        "| order by | tau |",
        "|---|---|",
    ]
    for generator in ("residual", "shared", "fc"):
        tau = _taus(with_truth, lambda s, g=generator: s[f"ranking/{g}"]["scores"])
        lines.append(f"| PruningNet, `{generator}` | {tau} |")
    lines.append(f"| MACs | {_taus(with_truth, lambda s: [run['macs_share'] for run in alone(s)])} |")
    lines.append(f"| at random (mean of 1,000) | {_taus(with_truth, _random)} |")
    spread = [np.std([100 * run["test_top1"] for run in alone(seed)]) for seed in with_truth]
    lines += ["", f"The 20 networks' accuracies have a standard deviation of {np.mean(spread):.2f} points."]
    return lines


def alone(seed: Runs) -> list[Runs]:
    """The networks that were trained alone, in order."""
    return [seed[f"alone/{number}"] for number in range(20)]


def _random(seed: Runs) -> list[list[float]]:
    return np.random.default_rng(0).random((1000, 20)).tolist()


def _taus(seeds: Sequence[Runs], order: Callable[[Runs], Any]) -> str:
    found = []
    for seed in seeds:
        truth = [run["test_top1"] for run in alone(seed)]
        rows = np.atleast_2d(np.asarray(order(seed)))
        found.append(np.mean([kendalltau(row, truth).statistic for row in rows]))
    return f"{np.mean(found):.2f}"


def judges(runs: Sequence[Runs]) -> list[str]:
    """Parameters, training time and accuracies of each PruningNet."""
    lines = [
        "Accuracy on 2,000 held-out images after recalibration, all groups at a share of their width.",
        "",
        "| generator | parameters | full width | 0.5 | 0.25 | seconds of training |",
        "|---|---|---|---|---|---|",
    ]
    for generator in ("residual", "shared", "fc"):
        found = [seed[f"judge/{generator}"] for seed in runs if f"judge/{generator}" in seed]
        if found:
            shares = [
                100 * np.mean([one["val_top1"][key] for one in found]) for key in ("1.00", "0.50", "0.25")
            ]
            cells = [
                f"`{generator}`",
                f"{found[0]['parameters'] / 1e6:.2f} M",
                *(f"{share:.1f}" for share in shares),
            ]
            spent = np.mean([one["train_seconds"] for one in found])
            lines.append(f"| {' | '.join(cells)} | {spent:.0f} |")
    return lines


if __name__ == "__main__":
    main()
