"""The page of the comparison on CIFAR-10, made from the committed runs.

python benchmarks/comparison_table.py > docs/comparison.md
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from common import RESULTS
from comparison_cases import BUDGETS, CASES
from comparison_figures import PAIR, ahead, device_of, filled, gaps, pair, points, values
from comparison_judges import sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison_cases import Case
    from comparison_figures import Seed

RIVALS = (  # the run, what it is, the run of hwprune with the same recipe, goals in points
    ("scratch/uniform", "uniform widths, from scratch", "scratch/hwprune", {"50": 1.0, "30": 2.0}),
    ("scratch/uniform_depth", "uniform depth, from scratch", "scratch/hwprune", {"50": 1.0, "30": 2.0}),
    ("scratch/compound", "uniform depth and widths, from scratch", "scratch/hwprune", {"50": 1.0, "30": 2.0}),
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
OVER = 1.03  # times the budget
MANY = 12  # networks of which the best says something
HEAD = """# hwprune against its rivals on CIFAR-10

Made by `benchmarks/comparison_table.py` from `benchmarks/results/comparison/`; do not edit.

CIFAR-10 is here a JPEG copy of about 920 bytes an image: accuracies on it are below those of papers and must
not be set beside them.

25,000 training images, budgets as shares of the unpruned network's one-thread latency on an AMD EPYC (Zen 5),
each network scored once on the 10,000 test images. Training is short, and by one recipe for everybody.

hwprune is here that of earlier defaults: widths alone, scored by PruningNets that are trained on all widths
and without a teacher. Since then it starts from the trained network's own weights ([scoring.md](scoring.md)).

- *From scratch* is the paper's protocol: all networks start from random weights, so only their widths differ.
- *Fine-tuned* networks start from trained weights: Torch-Pruning's from the base network's, hwprune's from
  those that its `residual` PruningNet generates, which took epochs of its own.
- *Uniform* widths are one share of all full widths; of several ways to round them to steps of the device,
  the one of most MACs within the budget.
- *Torch-Pruning* prunes globally, at the lowest ratio that keeps the budget; of several steps of channels,
  the one of most MACs. It has one step for all layers, and is charged the next width that the device
  computes. Runs by an earlier rule, most MACs at whatever ratio, are kept as `first/`.
- *As many epochs in all*: trained for all epochs that hwprune's fine-tuned network has behind it: the
  base's, PruningNet's and its own. hwprune's widths too are trained for so long from scratch; what it took
  to find them is then not counted.

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
    return [*lines, *sections(runs)]


def where(runs: Sequence[Seed]) -> str:
    """On what the networks were trained."""
    by_device: dict[str, list[str]] = {}
    for seed in runs:
        for name, run in seed.items():
            if "test_top1" in run:
                by_device.setdefault(device_of(run), []).append(kind_of(name))
    names = {device: "the CPU" if device == "cpu" else f"an {device}" for device in by_device}
    if len(names) == 1:
        return f"All networks were trained on {next(iter(names.values()))}."
    parts = [
        f"{len(kinds)} networks on {names[device]} ({', '.join(sorted(set(kinds)))})"
        for device, kinds in sorted(by_device.items())
    ]
    return "\n".join(filled(f"Trained were {'; '.join(parts)}."))


def kind_of(name: str) -> str:
    """A run's name without its budget or number."""
    return f"`{name.rpartition('/')[0] or name}`"


def accuracy_table(runs: Sequence[Seed], budget: str) -> list[str]:
    """One budget: every rival, both columns, and how far hwprune is ahead."""
    lines = [
        "| | latency | top-1, % | hwprune ahead by, same final recipe | goal "
        "| with as many epochs in all, % | hwprune, fine-tuned, ahead by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, text in (("scratch", "from scratch"), ("tuned", "fine-tuned")):
        run = f"{name}/hwprune/{budget}"
        longer = points(runs, f"longer/hwprune/{budget}") if name == "scratch" else "-"
        cells = (latency(runs, run), points(runs, run), "", "", longer, "-")
        lines.append(f"| **hwprune, {text}** | {' | '.join(cells)} |")
    for rival, text, ours, goals in RIVALS:
        run, longer = f"{rival}/{budget}", f"longer/{rival.partition('/')[2]}/{budget}"
        has_longer = not rival.endswith("shared") and rival != "tuned/uniform"
        goal = goals.get(budget)
        if not values(runs, run):
            continue
        near = [seed[f"search/macs/{budget}"]["near_enough"] for seed in runs if rival == "scratch/macs"]
        missed = f"; {sum(near)} of {len(near)} seeds within 2 % below the budget" if not all(near) else ""
        if any(share > OVER * int(budget) / 100 for share in values(runs, run, "measured_share")):
            missed += "; over the budget"
        beyond = sum(seed.get(f"pruned/{rival[6:]}", {}).get(budget, "") is None for seed in runs)
        missed += f"; of {len(runs)} seeds {beyond} cannot reach it" if beyond else ""
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
    lines += one_device(runs, budget)
    for seed in (one for one in runs if uniform in one):
        others = from_scratch_within(seed, budget)
        others.pop(uniform, None)
        if len(others) >= MANY:
            best = 100 * (max(others.values()) - seed[uniform]["test_top1"])
            lines += filled(
                f"Of {len(others)} other networks that were trained from scratch within this budget on one "
                f"seed, whoever found them, the best is {best:+.2f} points above uniform widths, luck of "
                "training included: an upper bound of what a better judge could have won with them."
            )
    if modelled := ahead(gaps(runs, f"headroom/scratch/{budget}", uniform), None):
        model = next(seed[name] for seed in runs if (name := f"headroom/search/{budget}") in seed)
        lines += filled(
            f"A linear model of {model['trainings']} trainings from scratch, in place of a judge "
            f"(`benchmarks/comparison_headroom.py`), finds a network {modelled} points above uniform widths. "
            f"Of networks left out of it the model is wrong by {model['left_out_error']:.2f} points, and its "
            f"tau with those of one latency is {model['left_out_tau']:.2f}."
        )
    if longer := ahead(gaps(runs, f"longer/hwprune/{budget}", f"longer/uniform/{budget}"), None):
        lines += filled(
            "Trained for as many epochs as in the second column, from scratch, hwprune's widths are "
            f"{longer} points above uniform ones."
        )
    return lines


def one_device(runs: Sequence[Seed], budget: str) -> list[str]:
    """How far hwprune is ahead where no pair was trained on two kinds of device (`comparison_devices.py`)."""
    first = [pair(seed, "scratch", budget) for seed in runs]
    apart = sum(len(devices(both)) > 1 for both in first)
    if not apart:
        return []
    last = [both | pair(seed, "device", budget) for both, seed in zip(first, runs, strict=True)]
    alike = [both for both in last if len(both) == len(PAIR) and len(devices(both)) == 1]
    found = [100 * (both["hwprune"]["test_top1"] - both["uniform"]["test_top1"]) for both in alike]
    return filled(
        f"On {apart} of {len(runs)} seeds hwprune's network from scratch and that of uniform widths were not "
        "trained on the same kind of device, which rounds otherwise. With one of them trained again, so that "
        f"they are, hwprune is {ahead(found, None)} points ahead ({len(found)} seeds)."
    )


def devices(both: Seed) -> set[str]:
    """On what the runs of a pair were trained."""
    return {device_of(run) for run in both.values()}


def from_scratch_within(seed: Seed, budget: str) -> dict[str, float]:
    """Accuracies of the networks of a seed within a budget that the usual recipe trained from scratch."""
    return {
        name: run["test_top1"]
        for name, run in seed.items()
        if name.startswith(("scratch/", "alone/")) or "/scratch/" in name
        if run["predicted_share"] <= int(budget) / 100
        if run.get("measured_share", 0) <= OVER * int(budget) / 100
    }


def latency(runs: Sequence[Seed], name: str) -> str:
    """Mean share of the unpruned network's latency, measured where that was done."""
    measured = [seed[name]["measured_share"] for seed in runs if "measured_share" in seed.get(name, {})]
    if measured:
        return f"{100 * np.mean(measured):.1f} %"
    found = values(runs, name, "predicted_share")
    return f"{100 * np.mean(found):.1f} % predicted" if found else "not run"


if __name__ == "__main__":
    main()
