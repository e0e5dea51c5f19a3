"""The page of the figures of depth, made from the committed runs.

python benchmarks/depth_page.py > docs/depth.md
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS
from comparison_cases import TRAIN_PER_CLASS
from depth_rows import ADAPT, EPOCHS, FROM_SCRATCH, NETWORKS, SEEDS, WAYS, ZERO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator

Rows = dict[str, dict[str, Any]]
IMAGES = 10 * TRAIN_PER_CLASS
NAMES = {
    "hwprune": "**hwprune**, depth and widths",
    "uniform_width": "uniform width",
    "uniform_depth": "uniform depth",
    "compound": "compound, most MACs",
    "magnitude": "Torch-Pruning, magnitude",
}
HEAD = f"""# Blocks that may go: what they are worth

Made by `benchmarks/depth_page.py` from `benchmarks/results/depth.json` (`benchmarks/depth.py`); do not edit.

CIFAR-10 is here a JPEG copy of about 920 bytes an image: accuracies on it are below those of papers and must
not be set beside them. Only differences on this page mean something.

Budgets are shares of the unpruned network's latency, ONNX Runtime, one thread. Networks are chosen by
predictions of a latency table, and then measured end to end, interleaved with the unpruned network; where
that was not done yet, the latency is called predicted.

## Without any training

ResNet-56 of its paper (shortcuts of option A), pretrained on clean images and adapted to these for
{ADAPT.epochs} epochs on {IMAGES:,} images. A search scores candidates with its weights, the strongest
channels first; batch norm is recalibrated, nothing is trained. Top-1 on the test images.
"""
SCRATCH = f"""
## From scratch

What each way chooses, trained from random weights for {EPOCHS} epochs on {IMAGES:,} images by one recipe.
hwprune chooses by the score above: with the adapted ResNet-56, and with the other networks trained for
{EPOCHS} epochs.

- *Uniform width*: one share of all channels. *Uniform depth*: one share of the blocks of each stage, the last
  ones go. *Compound*: both. Of all that a rule gives, the network of most MACs within the budget.
- *Torch-Pruning*: what its global magnitude pruning keeps of the trained network.
- *Ahead by*: mean over the seeds that both have, in points, with its standard deviation.
"""


def main() -> None:
    """Print the page."""
    content = json.loads((RESULTS / "depth.json").read_text())
    rows: Rows = content["rows"]
    print(
        "\n".join([HEAD, *zero_epoch(rows), SCRATCH, *from_scratch(content), *cost(rows), *footer(content)])
    )


def zero_epoch(rows: Rows) -> Iterator[str]:
    """The table of networks that were not trained."""
    base = rows.get("base/resnet56")
    if base:
        before, after = 100 * base["top1_before"], 100 * base["top1"]
        yield f"The unpruned network: {before:.1f} % before it was adapted, {after:.1f} % after.\n"
    yield "| budget | depth and widths, % | latency | blocks | widths alone, % | latency |"
    yield "|---|---|---|---|---|---|"
    for budget in sorted(ZERO_EPOCH, reverse=True):
        names = [f"found/resnet56/{budget}/{kind}" for kind in ("depth", "width")]
        depth, width = (rows.get(name) for name in names)
        kept = " of ".join(map(str, depth["blocks"])) if depth and depth["network"] else "-"
        cells = (top1(depth), share(rows, names[0]), kept, top1(width), share(rows, names[1]))
        yield f"| {budget} % | {' | '.join(cells)} |"


def top1(row: dict[str, Any] | None) -> str:
    """Accuracy of a network that was found, or why there is none."""
    if row is None:
        return "not run"
    if row["network"] is None:
        return f"cannot exist: the narrowest takes {100 * row['narrowest_share']:.0f} %, as predicted"
    return f"{100 * row['zero_epoch_top1']:.1f}"


def share(rows: Rows, name: str) -> str:
    """Latency of a network that was chosen, measured where that was done."""
    row = rows.get(name)
    if row is None or row["network"] is None:
        return "-"
    if measured := rows.get(f"measured/{name}"):
        return f"{100 * measured['share']:.1f} %"
    return f"{100 * row['predicted_share']:.1f} % predicted"


def from_scratch(content: dict[str, Any]) -> Iterator[str]:
    """A table for each network; then what was not run."""
    rows, missing = content["rows"], 0
    for name, case in NETWORKS.items():
        yield f"### {case.title}\n"
        yield "| budget | | latency | blocks | top-1, % | seeds | hwprune ahead by |"
        yield "|---|---|---|---|---|---|---|"
        for budget in FROM_SCRATCH:
            seeds = content["from_scratch"][name][budget]["seeds"]
            for way in WAYS:
                key = f"found/{name}/{budget}/depth" if way == "hwprune" else f"chosen/{name}/{budget}/{way}"
                row = rows.get(key, {"network": None, "reason": "not chosen yet"})
                found = seeds.get(way, {})
                missing += len(found) < len(SEEDS) and (key not in rows or row["network"] is not None)
                if row["network"] is None:
                    cells = ("-", "-", row["reason"], "-", "-")
                else:
                    kept = " of ".join(map(str, row["blocks"]))
                    cells = (share(rows, key), kept, points(found), str(len(found)), ahead(seeds, way))
                yield f"| {budget} % | {NAMES[way]} | {' | '.join(cells)} |"
        yield ""
    if missing:
        yield f"{missing} rows lack some or all of {len(SEEDS)} seeds: not run yet.\n"


def points(found: dict[str, float]) -> str:
    """Mean accuracy in percent, with its standard deviation."""
    values = 100 * np.array([*found.values()])
    return f"{values.mean():.2f}" + spread(values) if len(values) else "not run"


def spread(values: np.ndarray) -> str:
    """The standard deviation, where there is one."""
    return f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""


def ahead(seeds: dict[str, dict[str, float]], way: str) -> str:
    """How far hwprune is ahead on the seeds that both have."""
    ours, theirs = seeds.get("hwprune", {}), seeds.get(way, {})
    gaps = 100 * np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    return f"{gaps.mean():+.2f}{spread(gaps)}" if len(gaps) and way != "hwprune" else "-"


def cost(rows: Rows) -> Iterator[str]:
    """What all trainings of each network take on one thread."""
    for name, case in NETWORKS.items():
        if rate := rows.get(f"rate/{name}"):
            shares = sum(int(budget) / 100 for budget in FROM_SCRATCH) * len(WAYS) * len(SEEDS) + 1
            hours = shares * EPOCHS * IMAGES / rate["images_per_second"] / 3600
            yield (
                f"{case.title}: one thread of this machine trains {rate['images_per_second']:.0f} images of "
                f"the unpruned network a second; base and all rows with three seeds take about {hours:.1f} "
                "hours.\n"
            )


def footer(content: dict[str, Any]) -> Iterator[str]:
    """Where and when."""
    made = content["provenance"]
    yield f"Last run on {made['cpu']}, {made['cores']} cores, {made['date']}."


if __name__ == "__main__":
    main()
