"""What the comparison says of PruningNets as judges: how they rank, and what was tried to better that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from comparison_cases import BUDGETS, RANKED
from comparison_figures import ahead, filled, gaps, points, values
from scipy.stats import kendalltau

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comparison_figures import Seed

TIES, FOUND = "remedy/ties", "scratch/hwprune"


def sections(runs: Sequence[Seed]) -> list[str]:
    """All of them that there are runs for, with their headings."""
    parts = {
        "How well the judges rank": ranking(runs),
        "What the judge says of chosen networks": at_the_top(runs),
        "The judges themselves": judges(runs),
        "What earlier searches found": earlier(runs),
        "What other judges did": judge_remedies(runs),
        "What the judge cannot tell apart": ties(runs),
        "With the base network as teacher": taught(runs),
        "Where the epochs go": spent(runs),
    }
    return [line for title, part in parts.items() if part for line in (f"### {title}", "", *part, "")]


def ranking(runs: Sequence[Seed]) -> list[str]:
    """Kendall's tau between each order and that of training alone."""
    with_truth = [seed for seed in runs if len(alone(seed)) == RANKED]
    if not with_truth:
        done = max((len(alone(seed)) for seed in runs), default=0)
        return [f"{done} of {RANKED} networks are trained so far."] if done else []
    lines = [
        f"Kendall's tau between an order of {RANKED} random networks of one latency and the order of their",
        "test accuracies, each trained alone from scratch; an order at random has 0. Goal: 0.6.",
        "",
        "| order by | tau |",
        "|---|---|",
    ]
    for generator in ("residual", "shared", "fc"):
        run = f"ranking/{generator}"
        if judged := [seed for seed in with_truth if run in seed]:
            lines.append(f"| PruningNet, `{generator}` | {_taus(judged, lambda s, r=run: s[r]['scores'])} |")
    lines.append(f"| MACs | {_taus(with_truth, lambda s: [run['macs_share'] for run in alone(s)])} |")
    lines.append(f"| how even the widths are | {_taus(with_truth, evenness)} |")
    spread = float(np.mean([np.std([100 * run["test_top1"] for run in alone(seed)]) for seed in with_truth]))
    noises = [float(np.std(found, ddof=1)) for found in repeated(runs)]
    lines += ["", f"The networks' accuracies have a standard deviation of {spread:.2f} points."]
    if 0 < (noise := float(np.mean(noises))) < spread:
        each = " and ".join(f"{one:.2f}" for one in noises)
        lines += filled(
            f"One network trained with several seeds has one of {each} (uniform widths at each budget): "
            "an order by the accuracies without that noise would have a tau of about "
            f"{ceiling(spread, noise):.2f}."
        )
    return lines


def repeated(runs: Sequence[Seed]) -> list[list[float]]:
    """Points of the same widths, trained from scratch with several seeds."""
    return [[100 * top1 for top1 in values(runs, f"scratch/uniform/{budget}")] for budget in BUDGETS]


def ceiling(spread: float, noise: float) -> float:
    """Kendall's tau between accuracies and the same with noise, both normal, whose deviation is `spread`."""
    share = np.sqrt(1 - (noise / spread) ** 2)  # the correlation of the two
    return float(2 / np.pi * np.arcsin(share))


def evenness(seed: Seed) -> list[float]:
    """Minus the deviation of the logarithm of the kept shares, of each network that was trained alone."""
    full = np.array(seed["base"]["widths"])
    return [-float(np.log(np.array(run["widths"]) / full).std()) for run in alone(seed)]


def at_the_top(runs: Sequence[Seed]) -> list[str]:
    """What the `residual` judge says of the networks that somebody chose, and what they reach alone."""
    lines = [
        "What the `residual` judge says of networks that somebody chose, and what they reach from scratch.",
        "",
        "| seed | chosen by | latency | judge, % | alone, % | widths |",
        "|---|---|---|---|---|---|",
    ]
    for number, seed in enumerate(runs):
        scores = seed.get("judged/residual", {}).get("scores", {})
        for name in sorted(scores, key=lambda one: (one[-2:], -scores[one])):
            run = seed[name]
            share, *top1 = (100 * one for one in (run["predicted_share"], scores[name], run["test_top1"]))
            figures = f"{share:.1f} % | {top1[0]:.2f} | {top1[1]:.2f}"
            lines.append(f"| {number} | `{name}` | {figures} | {' '.join(map(str, run['widths']))} |")
    return lines if len(lines) > 4 else []


def alone(seed: Seed) -> list[Seed]:
    """The networks that were trained alone, in order."""
    return [seed[name] for number in range(RANKED) if (name := f"alone/{number}") in seed]


def _taus(seeds: Sequence[Seed], order: Callable[[Seed], Any]) -> str:
    found = [kendalltau(order(seed), [run["test_top1"] for run in alone(seed)]).statistic for seed in seeds]
    return f"{np.mean(found):.2f}" + (
        f" ({', '.join(f'{tau:.2f}' for tau in found)})" if len(found) > 1 else ""
    )


def judges(runs: Sequence[Seed]) -> list[str]:
    """Parameters and accuracies of each PruningNet."""
    lines = [
        "Accuracy on 10,000 held-out images after recalibration, all groups at a share of their width.",
        "",
        "| generator | parameters | full width | 0.5 | 0.25 |",
        "|---|---|---|---|---|",
    ]
    for generator in ("residual", "shared", "fc"):
        found = [seed[f"judge/{generator}"] for seed in runs if f"judge/{generator}" in seed]
        if found:
            shares = [
                100 * np.mean([one["held_out_top1"][key] for one in found])
                for key in ("1.00", "0.50", "0.25")
            ]
            cells = [
                f"`{generator}`",
                f"{found[0]['parameters'] / 1e6:.2f} M",
                *(f"{share:.1f}" for share in shares),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def earlier(runs: Sequence[Seed]) -> list[str]:
    """What searches with weaker judges found, on the seeds that have them."""
    lines = [
        "Top-1 from scratch of what the search found with other judges, on the same seeds:",
        "",
        "| | PruningNet of 5 epochs, 2,000 images | the same, 10,000 images, racing "
        "| of 15 epochs, as above | uniform widths |",
        "|---|---|---|---|---|",
    ]
    kinds = ("first/scratch/hwprune", "remedy/short/scratch", "scratch/hwprune", "scratch/uniform")
    for budget in BUDGETS:
        names = [f"{kind}/{budget}" for kind in kinds]
        if both := [seed for seed in runs if set(names) <= set(seed)]:
            lines.append(f"| at {budget} % | {' | '.join(points(both, name) for name in names)} |")
    return lines if len(lines) > 4 else []


def judge_remedies(runs: Sequence[Seed]) -> list[str]:
    """Judges with one thing changed (`comparison_remedies.py`), beside the `residual` one."""
    parts = [name.split("/") for seed in runs for name in seed]
    names = sorted({part[1] for part in parts if part[0] == "remedy" and part[2] == "ranking"})
    lines = [
        "The `residual` judge with one thing changed (`benchmarks/comparison_remedies.py`): Kendall's tau",
        "with the networks trained alone so far, and top-1 of what its search found, trained from scratch.",
        "",
        "| judge | networks alone | tau | tau of `residual` | at 50 % | at 30 % |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        for seed in runs:
            scores = seed.get(f"remedy/{name}/ranking", {}).get("scores", {})
            scores = {run: score for run, score in scores.items() if run in seed}  # which are trained
            if not scores:
                continue
            truth = [seed[run]["test_top1"] for run in scores]
            taus = [f"{kendalltau([*scores.values()], truth).statistic:.2f}", "not run"]
            if usual := seed.get("ranking/residual", {}).get("scores"):
                same = [usual[int(run.removeprefix("alone/"))] for run in scores]
                taus[1] = f"{kendalltau(same, truth).statistic:.2f}"
            found = [points([seed], f"remedy/{name}/scratch/{budget}") for budget in BUDGETS]
            lines.append(f"| {name} | {len(scores)} | {' | '.join([*taus, *found])} |")
    return lines if len(lines) > 5 else []


def ties(runs: Sequence[Seed]) -> list[str]:
    """How many networks the judge holds to be as good as the best one, and what the largest reaches."""
    head = [
        *filled(
            "Networks that are within a standard error of the best one of a search, by the same held-out "
            "images; and top-1 from scratch of the one of them that has most MACs "
            "(`benchmarks/comparison_remedies.py ties`)."
        ),
        "",
        "| | within a standard error, of those scored on all images | most MACs | the best | ahead by |",
        "|---|---|---|---|---|",
    ]
    rows = []
    for budget in BUDGETS:
        search, largest, best = (f"{kind}/{budget}" for kind in (f"{TIES}/search", f"{TIES}/scratch", FOUND))
        if both := [seed for seed in runs if {largest, best} <= set(seed)]:
            counts = ", ".join(f"{seed[search]['ties']} of {seed[search]['full']}" for seed in both)
            cells = counts, points(both, largest), points(both, best), ahead(gaps(both, largest, best), None)
            rows.append(f"| at {budget} % | {' | '.join(cells)} |")
    return [*head, *rows] if rows else []


def spent(runs: Sequence[Seed]) -> list[str]:
    """As many epochs in all, more of them for PruningNet or for the network that it finds."""
    head = [
        *filled(
            "hwprune's networks, trained on from their PruningNet's weights, and uniform widths from scratch "
            "for as many epochs in all. A short PruningNet leaves its epochs to the final training."
        ),
        "",
        "| | usual PruningNet | short PruningNet (`short`), longer final training | uniform widths |",
        "|---|---|---|---|",
    ]
    rows = []
    for budget in BUDGETS:
        names = [f"{kind}/{budget}" for kind in ("tuned/hwprune", "remedy/short/tuned", "longer/uniform")]
        if both := [seed for seed in runs if set(names) <= set(seed)]:
            rows.append(f"| at {budget} % | {' | '.join(points(both, name) for name in names)} |")
    return [*head, *rows] if rows else []


def taught(runs: Sequence[Seed]) -> list[str]:
    """Final training with knowledge distillation: does it tell the structures further apart?"""
    lines = [
        "From scratch, as above, but taught by the trained base network (half of the loss, temperature 4).",
        "",
        "| | hwprune | uniform widths | ahead by |",
        "|---|---|---|---|",
    ]
    for budget in BUDGETS:
        ours, rival = (f"remedy/taught/{name}/{budget}" for name in ("hwprune", "uniform"))
        if both := [seed for seed in runs if {ours, rival} <= set(seed)]:
            cells = points(both, ours), points(both, rival), ahead(gaps(both, ours, rival), None)
            lines.append(f"| at {budget} % | {' | '.join(cells)} |")
    return lines if len(lines) > 4 else []
