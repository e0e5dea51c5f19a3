"""The page of the comparison on CIFAR-10, made from the committed runs.

python benchmarks/comparison_table.py > docs/comparison.md
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS
from comparison_cases import BUDGETS, CASES, RANKED
from scipy.stats import kendalltau

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comparison_cases import Case

Seed = dict[str, Any]  # the runs of one
LIKE_FOR_LIKE = (  # rival -> what it is, the run of hwprune that starts alike, goals in points
    ("scratch/uniform", "uniform widths, from scratch", "scratch/hwprune", {"50": 1.0, "30": 2.0}),
    (
        "scratch/macs",
        "MetaPruning (`fc`, budget in MACs), from scratch",
        "scratch/hwprune",
        {"50": 0.5, "30": 0.5},
    ),
    ("scratch/shared", "the same search with `shared`, from scratch", "scratch/hwprune", {}),
    ("tuned/magnitude", "Torch-Pruning, magnitude, fine-tuned", "tuned/hwprune", {"50": 0.5, "30": 0.5}),
    ("tuned/taylor", "Torch-Pruning, Taylor, fine-tuned", "tuned/hwprune", {"50": 0.5, "30": 0.5}),
    ("tuned/uniform", "uniform widths, from hwprune's PruningNet", "tuned/hwprune", {}),
)
SEEDS = 3  # fewer give no verdict
OVER = 1.03  # times the budget
MANY = 12  # networks of which the best says something
HEAD = """# hwprune against its rivals on CIFAR-10

Made by `benchmarks/comparison_table.py` from `benchmarks/results/comparison/`; do not edit.

25,000 training images, budgets as shares of the unpruned network's one-thread latency on an AMD EPYC (Zen 5),
each network scored once on the 10,000 test images. Training is short, and by one recipe for everybody.

- *From scratch* is the paper's protocol: all networks start from random weights, so only their widths differ.
- *Fine-tuned* networks start from trained weights: Torch-Pruning's from the base network's, hwprune's from
  those that its `residual` PruningNet generates.
- *As many epochs in all*: the rival trains for all epochs that hwprune's fine-tuned network has behind it:
  the base's, PruningNet's and its own.

What is missing below was not run.
"""
RECIPE = """## {title}

{epochs} epochs of the base and of every final training, {judge} of PruningNet, batch {batch}; highest
learning rate {lr} from scratch and {tuned} from trained weights. Seeds: {seeds}.
{where}
"""


def main() -> None:
    """Print the page."""
    print(HEAD)
    for case in CASES.values():
        paths = sorted((RESULTS / "comparison" / case.name).glob("seed*.json"))
        if runs := [json.loads(path.read_text())["runs"] for path in paths]:
            print("\n".join(section(case, runs)))


def section(case: Case, runs: Sequence[Seed]) -> list[str]:
    """All about one network."""
    recipe, tuned = case.recipe, case.fine_tuning
    lines = RECIPE.format(
        title=case.title,
        epochs=case.epochs,
        judge=case.judge_epochs,
        batch=case.batch_size,
        lr=recipe.lr,
        tuned=tuned.lr,
        seeds=len(runs),
        where=where(runs),
    ).splitlines()
    lines += ["", f"The unpruned network: {points(runs, 'base')} %.", ""]
    for budget in BUDGETS:
        lines += [f"### At {budget} % of the latency", "", *accuracy_table(runs, budget), ""]
        lines += [*headroom(runs, budget), ""]
    parts = {
        "How well the judges rank": ranking(runs),
        "What the judge says of chosen networks": at_the_top(runs),
        "The judges themselves": judges(runs),
        "What earlier searches found": earlier(runs),
        "What other judges did": judge_remedies(runs),
        "With the base network as teacher": taught(runs),
    }
    for title, part in parts.items():
        lines += [f"### {title}", "", *part, ""] if part else []
    return lines


def where(runs: Sequence[Seed]) -> str:
    """On what the networks were trained."""
    by_device: dict[str, list[str]] = {}
    for seed in runs:
        for name, run in seed.items():
            if "test_top1" in run:
                by_device.setdefault(run.get("trained_on", "cpu"), []).append(kind_of(name))
    names = {device: "the CPU" if device == "cpu" else f"an {device}" for device in by_device}
    if len(names) == 1:
        return f"All networks were trained on {next(iter(names.values()))}."
    parts = [
        f"{len(kinds)} networks on {names[device]} ({', '.join(sorted(set(kinds)))})"
        for device, kinds in sorted(by_device.items())
    ]
    return "\n".join(filled(f"Trained were {'; '.join(parts)}."))


def filled(text: str) -> list[str]:
    """Lines of a page."""
    return textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)


def kind_of(name: str) -> str:
    """A run's name without its budget or number."""
    return f"`{name.rpartition('/')[0] or name}`"


def values(runs: Sequence[Seed], name: str, key: str = "test_top1") -> list[float]:
    """A figure of every seed that has it."""
    return [float(seed[name][key]) for seed in runs if key in seed.get(name, {})]


def points(runs: Sequence[Seed], name: str) -> str:
    """Mean accuracy, and that of each seed."""
    found = [100 * value for value in values(runs, name)]
    if not found:
        return "not run"
    return f"{np.mean(found):.2f}" + (f" ({', '.join(f'{v:.2f}' for v in found)})" if len(found) > 1 else "")


def gaps(runs: Sequence[Seed], ours: str, rival: str) -> list[float]:
    """Differences in points of the seeds that have both."""
    both = (seed for seed in runs if {ours, rival} <= set(seed))
    return [100 * (seed[ours]["test_top1"] - seed[rival]["test_top1"]) for seed in both]


def accuracy_table(runs: Sequence[Seed], budget: str) -> list[str]:
    """One budget: every rival, both columns, and how far hwprune is ahead."""
    lines = [
        "| | latency | top-1, % | hwprune ahead by, started alike | goal "
        "| rival with as many epochs in all, % | hwprune, fine-tuned, ahead by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, text in (("scratch", "from scratch"), ("tuned", "fine-tuned")):
        run = f"{name}/hwprune/{budget}"
        lines.append(f"| **hwprune, {text}** | {latency(runs, run)} | {points(runs, run)} | | | | |")
    for rival, text, ours, goals in LIKE_FOR_LIKE:
        run, longer = f"{rival}/{budget}", f"longer/{rival.partition('/')[2]}/{budget}"
        has_longer = not rival.endswith("shared") and rival != "tuned/uniform"
        goal = goals.get(budget)
        if not values(runs, run):
            continue
        near = [seed[f"search/macs/{budget}"]["near_enough"] for seed in runs if rival == "scratch/macs"]
        missed = f"; {sum(near)} of {len(near)} seeds within 2 % below the budget" if not all(near) else ""
        if any(share > OVER * int(budget) / 100 for share in values(runs, run, "measured_share")):
            missed += "; over the budget"
        cells = (
            text,
            latency(runs, run) + missed,
            points(runs, run),
            ahead(gaps(runs, f"{ours}/{budget}", run), None if missed else goal),
            f"+{goal}" if goal else "reported",
            points(runs, longer) if has_longer else "-",
            ahead(gaps(runs, f"tuned/hwprune/{budget}", longer), None) if has_longer else "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def headroom(runs: Sequence[Seed], budget: str) -> list[str]:
    """What there is to win over uniform widths, from scratch."""
    uniform = f"scratch/uniform/{budget}"
    above = ahead(gaps(runs, "base", uniform), None)
    if not above:
        return []
    lines = [
        f"The unpruned network, from scratch with as many epochs, is {above} points above uniform widths."
    ]
    within = [from_scratch_within(seed, budget) for seed in runs if uniform in seed]
    for known in within:
        if len(known) >= MANY:
            best = 100 * (max(known.values()) - known[uniform])
            lines += filled(
                f"Of {len(known)} networks that were trained from scratch within this budget on one seed, "
                f"whoever found them, the best is {best:+.2f} points above uniform widths, luck of training "
                "included: an upper bound of what a better judge could have won with them."
            )
    return lines


def from_scratch_within(seed: Seed, budget: str) -> dict[str, float]:
    """Accuracies of the networks of a seed within a budget that the usual recipe trained from scratch."""
    return {
        name: run["test_top1"]
        for name, run in seed.items()
        if name.startswith(("scratch/", "alone/")) or "/scratch/" in name
        if run["predicted_share"] <= int(budget) / 100
    }


def latency(runs: Sequence[Seed], name: str) -> str:
    """Mean share of the unpruned network's latency, measured where that was done."""
    measured = [seed[name]["measured_share"] for seed in runs if "measured_share" in seed.get(name, {})]
    if measured:
        return f"{100 * np.mean(measured):.1f} %"
    found = values(runs, name, "predicted_share")
    return f"{100 * np.mean(found):.1f} % predicted" if found else "not run"


def ahead(found: Sequence[float], goal: float | None) -> str:
    """How far hwprune is ahead, with the standard error of the mean, and whether that is the goal."""
    if not found:
        return ""
    mean, count = float(np.mean(found)), len(found)
    error = f" ± {np.std(found, ddof=1) / count**0.5:.2f}" if count > 1 else ""
    if goal is None:
        verdict = ""
    elif count < SEEDS:
        verdict = f", {count} of {SEEDS} seeds"
    else:
        verdict = ", met" if mean >= goal else ", missed"
    return f"{mean:+.2f}{error}{verdict}"


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
    noise = float(np.mean([np.std(found, ddof=1) for found in repeated(runs)]))
    lines += ["", f"The networks' accuracies have a standard deviation of {spread:.2f} points."]
    if 0 < noise < spread:
        lines += filled(
            f"One network trained with several seeds has one of {noise:.2f}: an order by the accuracies "
            f"without that noise would have a tau of about {ceiling(spread, noise):.2f}."
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


if __name__ == "__main__":
    main()
