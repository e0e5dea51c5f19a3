"""The page of `equal_epochs.py`: docs/equal-epochs.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).parent.parent / "docs" / "equal-epochs.md"
_TITLES = {
    "resnet20": "ResNet-20, CIFAR-10 (JPEG copy)",
    "resnet56": "ResNet-56, CIFAR-10 (JPEG copy)",
    "efficientnet_lite0": "EfficientNet-Lite0, photos of clothes, 128 px",
}
_WAYS = {
    "hwprune": "**hwprune**",
    "defaults": "hwprune as `init` sets it up, its own recipe",
    "pruningnet": "hwprune with a PruningNet in place of MACs (an earlier default)",
    "widths_alone": "hwprune, as its blocks were not found yet",
    "uniform_width": "one share of all widths",
    "uniform_depth": "first blocks of each stage kept",
    "even_depth": "blocks dropped evenly",
    "compound": "widths and depth by MACs",
    "scratch": "hwprune's network from random weights",
}
_HEAD = """# Accuracy at one latency and as many epochs

`python benchmarks/equal_epochs.py` makes these figures, and this page. Everybody starts from one trained
network, which also teaches all of them, and trains for E epochs on the same images by the same recipe. The
epochs of hwprune include its search, by the options that its users have. Its rivals sort channels by their L1
norm and cut them; each is trained at two learning rates, and the better one counts, judged on the test
images, which favours rivals. The latency is measured at the end in turns with the unpruned network's, as a
share of it.

CIFAR-10 here is a JPEG copy of 920 bytes an image: its accuracies must not be set beside those of papers.
Of its training images 10,000 are used after the base was adapted to all of them for two epochs, for time.
A rule that drops whole blocks may leave much of a budget unused: see the latency beside each figure.
What is not listed has not been run yet. Behind ± is one standard error over seeds; a row of one seed has
none. Differences below about one point (CIFAR-10) or two (372 test photos) say nothing there.
"""


def write(figures: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Write the page from what `equal_epochs.py` found."""
    lines = [_HEAD]
    for task, title in _TITLES.items():
        mine = [row for row in figures["rows"] if row["task"] == task]
        if mine:
            base = rows.get(f"base/{task}", {}).get("top1")
            lines += [f"## {title}", "", f"The unpruned network has {base:.1%}." if base else "", ""]
            lines += [*_table(mine), *_leads(figures["ahead"].get(task, {})), ""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| budget | E | way | top-1 | seeds | latency |", "|---|---|---|---|---|---|"]
    order = list(_WAYS)
    for row in sorted(
        rows, key=lambda row: (row["epochs"], -int(row["budget"][:-1]), order.index(row["method"]))
    ):
        shares = [share for share in row["latency_share"] if share is not None]
        latency = f"{np.mean(shares):.1%}" if shares else "not measured yet"
        top1, count = [100 * one for one in row["top1"]], len(row["top1"])
        error = f" ± {np.std(top1, ddof=1) / count**0.5:.1f}" if count > 1 else ""
        lines.append(
            f"| {row['budget']} | {row['epochs']} | {_WAYS[row['method']]} | {np.mean(top1):.1f}%{error} | "
            f"{len(row['seeds'])} | {latency} |"
        )
    return lines


def _leads(ahead: dict[str, dict[str, Any]]) -> list[str]:
    """What hwprune is ahead of the best rival, and of the best of its own rules."""
    names = {"public": "the best of what people do", "floor": "the best of our own rules"}
    lines = [""]
    for where, kinds in ahead.items():
        for kind, lead in kinds.items():
            error = f" ± {lead['error']}" if lead["error"] is not None else ""
            lines.append(f"- {where}: {lead['points']:+.1f}{error} points against {names[kind]}.")
    return lines if len(lines) > 1 else []
