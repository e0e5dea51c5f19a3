"""What every part of the comparison on CIFAR-10 shares: images, latency, and the record of runs."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import RESULTS, provenance
from comparison_cases import BUDGETS, HELD_OUT_PER_CLASS, TRAIN_PER_CLASS
from filelock import FileLock

from hwprune.data.datasets import open_data
from hwprune.data.stratify import pick
from hwprune.evolution.problem import Constraint
from hwprune.latency.folder import TableFolder
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comparison_cases import Case
    from numpy.typing import NDArray
    from torch import nn

    from hwprune.structure.space import Widths
    from hwprune.training.settings import TrainSettings

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "cifar10"


class Setup:
    """Images, search space and latency model of one network; the same for every seed.

    Args:
        case: The network and its recipe.
        data: A folder with CIFAR-10 as parquet files.
        device: Where networks are trained; their latency is that of the table's device, always.

    Attributes:
        space: Search space of the network, with choices that suit the device.
        train: 25,000 training images.
        held_out: 10,000 other training images, for scoring candidates.
        test: The test images.
        steps: Channels that a group's choices are multiples of, its step on the device; 1 for each block.
        device_of_table: Name of the processor that the latencies are of.
    """

    def __init__(self, case: Case, data: Path = DATA, device: str = "cpu") -> None:
        self.case, self.device = case, torch.device(device)
        dataset = open_data(f"parquet:{data}", seed=0)
        classes = len(dataset.classes)
        chosen, rest = pick(dataset.train.labels, [TRAIN_PER_CLASS] * classes, 0)
        others = dataset.train.subset(rest)
        held, _ = pick(others.labels, [HELD_OUT_PER_CLASS] * classes, 0)
        self.train, self.held_out, self.test = dataset.train.subset(chosen), others.subset(held), dataset.test
        folder = TableFolder.load(case.table)
        self.space, self.model = folder.space, folder.model()
        self.steps = tuple(math.gcd(*gene.choices) for gene in self.space.genes)
        self.device_of_table = folder.table.provenance["device"]["model"]
        self.base_ms = float(self.model.predict(np.array([self.space.full()]))[0])

    def share(self, widths: Widths) -> float:
        """Predicted latency as a share of the unpruned network's."""
        return float(self.shares([widths])[0])

    def shares(self, networks: Sequence[Widths] | NDArray[np.int64]) -> NDArray[np.float64]:
        """The same of several networks; a width between two of the device's steps costs the next step's."""
        steps = np.array(self.steps)
        whole = -(-np.array(networks) // steps) * steps
        return self.model.predict(whole) / self.base_ms

    def macs_share(self, widths: Widths) -> float:
        """MACs as a share of the unpruned network's."""
        return float(self.space.macs(widths) / self.space.macs(self.space.full()))

    def latency(self, budget: str) -> Constraint:
        """The latency budget as a constraint of a search."""
        return Constraint(
            name="latency", predict=self.model.predict, limit=BUDGETS[budget] * self.base_ms, unit="ms"
        )

    def network(self, seed: int) -> nn.Module:
        """The unpruned network with random weights, the same on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.case.build(10)


class Runs:
    """The record of one seed: every finished run by name, kept in a file that is committed.

    A run that is in the file is not made again; several copies of the script add to one file. Weights lie
    in an ignored folder; what is missing there is made anew when a later run needs it, and is then not quite
    what the figures on record are of.
    """

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.seed = setup, seed
        self.path = RESULTS / "comparison" / setup.case.name / f"seed{seed}.json"
        self.work = ROOT / "runs" / "comparison" / setup.case.name / f"seed{seed}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.runs: dict[str, Any] = {}
        self.provenance: list[dict[str, Any]] = []
        self.read()

    def read(self) -> None:
        """Take over what is in the file."""
        if self.path.exists():
            known = json.loads(self.path.read_text())
            if known["settings"] != json.loads(json.dumps(self.setup.case.settings())):
                sys.exit(f"{self.path} was made with other settings; move it away to begin anew")
            self.runs, self.provenance = known["runs"], known["provenance"]

    def lock(self, name: str) -> FileLock:
        """Held by the one copy of the script that makes something."""
        return FileLock(self.work / f"{name.replace('/', '-')}.lock")

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a run, made now if there is none."""
        if name not in self.runs:
            with self.lock(f"run/{name}"):
                self.read()
                if name not in self.runs:
                    started = time.perf_counter()
                    figures = make()
                    self.add(name, {**figures, "seconds": round(time.perf_counter() - started, 1)})
        return dict(self.runs[name])

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Write one run into the record."""
        with self.lock("record"):
            self.read()
            self.runs[name] = record
            self.save()
        print(f"{self.setup.case.name} seed {self.seed} {name}: {brief(record)}", flush=True)

    def save(self) -> None:
        """Write the record; each machine that had a part in it is named, with its last command."""
        mine, place = provenance(), ("cpu", "system", "versions")
        others = [one for one in self.provenance if any(one[key] != mine[key] for key in place)]
        content = {
            "seed": self.seed,
            "settings": self.setup.case.settings(),
            "runs": self.runs,
            "provenance": [*others, mine],
        }
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(fresh, self.path)

    def trained(
        self,
        name: str,
        widths: Widths,
        make: Callable[[], nn.Module],
        recipe: TrainSettings,
        teacher: Callable[[], nn.Module] | None = None,
    ) -> dict[str, Any]:
        """Train a network, score it once on test, and record both."""

        def run() -> dict[str, Any]:
            setup, model = self.setup, make().to(self.setup.device)
            history = train(
                model,
                setup.train,
                recipe,
                checkpoint=self.work / f"{name.replace('/', '-')}.safetensors",
                seed=self.seed,
                teacher=teacher() if teacher else None,
                cuda_graph=True,
            )
            return {
                "widths": list(widths),
                "predicted_share": round(setup.share(widths), 4),
                "macs_share": round(setup.macs_share(widths), 4),
                "epochs": recipe.epochs,
                "test_top1": evaluate(model, setup.test),
                "train_top1": history.epochs[-1].top1,
                "trained_on": trained_on(setup.device),
            }

        return self.once(name, run)


def trained_on(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def brief(record: dict[str, Any]) -> str:
    """The figures of a run on one line."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in record.items()
        if not isinstance(value, list)
    )
