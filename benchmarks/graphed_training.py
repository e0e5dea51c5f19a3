"""What recording the training step of a small network as a CUDA graph gains, on CIFAR-10.

    python benchmarks/graphed_training.py

Trains each network of the comparison for a few steps, with and without, turn by turn; both must learn alike.
Writes `results/graphed_training.json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import finish
from comparison_cases import CASES
from comparison_setup import DATA, Setup

from hwprune.training.loop import train

if TYPE_CHECKING:
    from hwprune.training.history import EpochFigures

STEPS, TURNS = 50, 3
ALIKE = 0.1  # of the loss: kernels that add in no fixed order differ from run to run


def epoch(setup: Setup, *, graphed: bool) -> EpochFigures:
    """The second of two short epochs, for the first one holds what happens once."""
    count = STEPS * setup.case.batch_size
    some = setup.train.subset(np.random.default_rng(0).permutation(len(setup.train))[:count])
    model = setup.network(0).to(setup.device)
    return train(model, some, replace(setup.case.recipe, epochs=2), cuda_graph=graphed).epochs[1]


def gain(setup: Setup) -> dict[str, Any]:
    """Milliseconds of a step, and what was learnt."""
    turns = [(epoch(setup, graphed=False), epoch(setup, graphed=True)) for _ in range(TURNS)]
    plain, graphed = (
        {
            "ms_per_step": round(1e3 * statistics.median(one.seconds for one in ones) / STEPS, 3),
            "loss": round(statistics.mean(one.loss for one in ones), 4),
        }
        for ones in zip(*turns, strict=True)
    )
    ratio = round(plain["ms_per_step"] / graphed["ms_per_step"], 2)
    return {"plain": plain, "graphed": graphed, "ratio": ratio, "batch_size": setup.case.batch_size}


def main() -> None:
    """Measure, and fail where the two do not learn alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("A CUDA graph needs a GPU; torch sees none.")
    found = {}
    for name, case in CASES.items():
        found[name] = gain(Setup(case, options.data, "cuda"))
        finish("graphed_training", {"gpu": torch.cuda.get_device_name(), "networks": found})
    unlike = [n for n, one in found.items() if abs(one["graphed"]["loss"] / one["plain"]["loss"] - 1) > ALIKE]
    if unlike:
        sys.exit(f"with and without a graph these learn differently: {', '.join(unlike)}")


if __name__ == "__main__":
    main()
