"""Networks of the comparison once more, where a pair of them was trained on two kinds of device.

    python benchmarks/comparison_devices.py

hwprune's networks and uniform widths differ by a point or less from scratch, and a GPU rounds otherwise than
a CPU. Of each pair of which one was trained on a GPU and one on a CPU, the one that was not trained on the
device asked for is trained there. Kept in the comparison's own files as `device/ROW/BUDGET`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from comparison import Comparison
from comparison_cases import BUDGETS, CASES
from comparison_copies import in_copies, one_thread_each
from comparison_figures import PAIR, device_of, pair
from comparison_setup import DATA, Setup, trained_on

if TYPE_CHECKING:
    from comparison_copies import Task


def tasks(comparison: Comparison) -> list[Task]:
    """The networks of one seed that have to be trained again."""
    here, runs, found = trained_on(comparison.setup.device), comparison.runs.runs, []
    for budget in BUDGETS:
        both = pair(runs, "scratch", budget) | pair(runs, "device", budget)
        away = [row for row, run in both.items() if device_of(run) != here]
        if len(both) == len(PAIR) and len(away) == 1:
            found.append(comparison.task(again, comparison, away[0], budget))
    return found


def again(comparison: Comparison, row: str, budget: str) -> None:
    """Train the network of a row from the same random weights, on the same images in the same order."""
    widths = tuple(comparison.runs.runs[f"scratch/{row}/{budget}"]["widths"])
    comparison.from_scratch(f"device/{row}/{budget}", widths)


def main() -> None:
    """Make the runs that are not yet on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    parser.add_argument("--device", default="cpu", help="where to train: cpu or cuda")
    parser.add_argument("--copies", type=int, default=1, help="processes that share the work")
    options = parser.parse_args()
    if options.copies > 1:
        one_thread_each()
    setups = [Setup(CASES[name], options.data, options.device) for name in options.cases]
    in_copies(options.copies, [tasks(Comparison(setup, seed)) for setup in setups for seed in options.seeds])


if __name__ == "__main__":
    main()
