"""What every part of the comparison on CIFAR-10 shares: images, latency, recipe, and the record of runs."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import RESULTS, provenance
from networks import resnet20_wide

from hwprune.data.datasets import open_data
from hwprune.data.stratify import pick
from hwprune.evolution.algorithm import SearchSettings
from hwprune.evolution.problem import Constraint
from hwprune.latency.folder import TableFolder
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.training.evaluation import accuracy
from hwprune.training.loop import train
from hwprune.training.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from hwprune.structure.space import Widths

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "cifar10"
TABLE = ROOT / "lut" / "amd-epyc-zen5-avx512" / "cpu-1t" / "resnet20_wide_32"
BUDGETS = {"50": 0.5, "30": 0.3}  # shares of the unpruned network's latency
TRAIN_PER_CLASS, HELD_OUT_PER_CLASS = 2500, 1000
EPOCHS = 5
RECIPE = TrainSettings(epochs=EPOCHS, batch_size=64, lr=0.1, label_smoothing=0.0)
FINE_TUNING = replace(RECIPE, lr=0.03)  # of networks that start from trained weights
JUDGE_EPOCHS = 3 * EPOCHS  # of PruningNet; with as few as a network's own it overrated some (`short` remedy)
LONGER = EPOCHS + JUDGE_EPOCHS + EPOCHS  # the base's, PruningNet's and the network's own, for rivals
SCORING = "racing, on all held-out images"  # in place of 2,000 of them in full, which chose by chance
JUDGE = PruningNetSettings(
    epochs=JUDGE_EPOCHS,
    batch_size=64,
    lr=0.1,
    label_smoothing=0.0,
    weight_decay=5e-4,
    recalibration_images=500,
)
RATES = {"fc": 0.1, "shared": 0.1, "residual": 0.05}  # the last starts from trained weights
EVOLUTION = SearchSettings(
    population=24, parents=8, mutants=10, crossovers=10, generations=6, fit_children=True
)
RANKED, RANKED_BUDGET, RANKED_SEED = 20, "50", 1_000_003
SETTINGS: dict[str, Any] = {
    "recipe": asdict(RECIPE),
    "fine_tuning": asdict(FINE_TUNING),
    "judge": asdict(JUDGE),
    "judge_rates": RATES,
    "evolution": asdict(EVOLUTION),
    "scoring": SCORING,
    "images_per_class": [TRAIN_PER_CLASS, HELD_OUT_PER_CLASS],
    "budgets": BUDGETS,
    "ranked": [RANKED, RANKED_BUDGET, RANKED_SEED],
}


class Setup:
    """Images, search space and latency model; the same for every seed.

    Attributes:
        space: Search space of the network, with choices that suit the device.
        train: 25,000 training images.
        held_out: 10,000 other training images, for scoring candidates.
        test: The test images.
    """

    def __init__(self, data: Path = DATA, table: Path = TABLE) -> None:
        dataset = open_data(f"parquet:{data}", seed=0)
        classes = len(dataset.classes)
        chosen, rest = pick(dataset.train.labels, [TRAIN_PER_CLASS] * classes, 0)
        others = dataset.train.subset(rest)
        held, _ = pick(others.labels, [HELD_OUT_PER_CLASS] * classes, 0)
        self.train, self.held_out, self.test = dataset.train.subset(chosen), others.subset(held), dataset.test
        folder = TableFolder.load(table)
        self.space, self.model = folder.space, folder.model()
        self.base_ms = float(self.model.predict(np.array([self.space.full()]))[0])

    def share(self, widths: Widths) -> float:
        """Predicted latency as a share of the unpruned network's."""
        return float(self.model.predict(np.array([widths]))[0]) / self.base_ms

    def latency(self, budget: str) -> Constraint:
        """The latency budget as a constraint of a search."""
        return Constraint(
            name="latency", predict=self.model.predict, limit=BUDGETS[budget] * self.base_ms, unit="ms"
        )

    def network(self, seed: int) -> nn.Module:
        """The unpruned network with random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return resnet20_wide(10)


class Runs:
    """The record of one seed: every finished run by name, kept in a file that is committed.

    A run that is in the file is not made again. Weights and checkpoints lie in an ignored folder; one that is
    missing there is made anew when a later run needs it.
    """

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.seed = setup, seed
        self.path = RESULTS / "comparison" / f"seed{seed}.json"
        self.work = ROOT / "runs" / "comparison" / f"seed{seed}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.runs: dict[str, Any] = {}
        if self.path.exists():
            known = json.loads(self.path.read_text())
            if known["settings"] != json.loads(json.dumps(SETTINGS)):
                sys.exit(f"{self.path} was made with other settings; move it away to begin anew")
            self.runs = known["runs"]

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a run, made now if there is none."""
        if name not in self.runs:
            started = time.perf_counter()
            figures = make()
            self.runs[name] = {**figures, "seconds": round(time.perf_counter() - started, 1)}
            self.save()
            print(f"seed {self.seed} {name}: {brief(self.runs[name])}", flush=True)
        return dict(self.runs[name])

    def save(self) -> None:
        """Write the record."""
        content = {"seed": self.seed, "settings": SETTINGS, "runs": self.runs, "provenance": provenance()}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(fresh, self.path)

    def trained(
        self,
        name: str,
        widths: Widths,
        make: Callable[[], nn.Module],
        recipe: TrainSettings = RECIPE,
        teacher: Callable[[], nn.Module] | None = None,
    ) -> dict[str, Any]:
        """Train a network, score it once on test, and record both."""

        def run() -> dict[str, Any]:
            setup, model = self.setup, make()
            history = train(
                model,
                setup.train,
                recipe,
                checkpoint=self.work / f"{name.replace('/', '-')}.safetensors",
                seed=self.seed,
                teacher=teacher() if teacher else None,
            )
            return {
                "widths": list(widths),
                "predicted_share": round(setup.share(widths), 4),
                "macs_share": round(
                    float(setup.space.macs(widths) / setup.space.macs(setup.space.full())), 4
                ),
                "epochs": recipe.epochs,
                "test_top1": accuracy(model, setup.test),
                "train_top1": history.epochs[-1].top1,
            }

        return self.once(name, run)


def brief(record: dict[str, Any]) -> str:
    """The figures of a run on one line."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in record.items()
        if not isinstance(value, list)
    )
