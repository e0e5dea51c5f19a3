"""The networks of `depth.py`, what is asked of them, and the record of finished runs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comparison_rules as rules
import numpy as np
from common import RESULTS
from comparison_cases import CASES, Case
from filelock import FileLock
from networks import resnet56_padded

from hwprune.training.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = Path(__file__).parent.parent / "runs" / "depth"
ZERO_EPOCH, FROM_SCRATCH = ("30", "20", "50"), ("50", "30")  # budgets in percent of the measured latency
WAYS = ("hwprune", "uniform_width", "uniform_depth", "compound", "magnitude")
RULES = {
    "uniform_width": rules.uniform_width,
    "uniform_depth": rules.uniform_depth,
    "compound": rules.compound,
}
SEEDS = (0, 1, 2)
EPOCHS = 8
ADAPT = TrainSettings(epochs=2, batch_size=128, lr=0.02, label_smoothing=0.0, precision="fp32")


def _case(name: str, table: str, **changes: Any) -> Case:
    return replace(CASES[name], table=RUN / "tables" / table, epochs=EPOCHS, **changes)


NETWORKS = {
    "resnet56": _case("resnet56", "resnet56", build=resnet56_padded),
    "mobilenet_v2_cifar": _case("mobilenet_v2_cifar", "mobilenet_v2_cifar"),
    "resnet20_wide": _case("resnet20_wide", "resnet20_wide"),
}


class Rows:
    """What is known: finished runs by name, from the committed results and from the run's folder.

    Args:
        name: Of the committed file.
        run: The run's folder.
        key: What the rows are called in the committed file.
    """

    def __init__(self, name: str = "depth", run: Path = RUN, key: str = "rows") -> None:
        committed = RESULTS / f"{name}.json"
        self._rows = dict(json.loads(committed.read_text())[key]) if committed.exists() else {}
        self._folder = run / "rows"
        self._folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> dict[str, dict[str, Any]]:
        """All rows there are now; other processes may add some."""
        for path in sorted(self._folder.glob("*.json")):
            row = json.loads(path.read_text())
            self._rows[row.pop("name")] = row
        return dict(sorted(self._rows.items()))

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a run, made now if there is none."""
        path = self._folder / f"{name.replace('/', '-')}.json"
        with FileLock(path.with_suffix(".lock")):
            if name not in self.all():
                begun = time.perf_counter()
                row = {"name": name, **make(), "seconds": round(time.perf_counter() - begun, 1)}
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(row))
                os.replace(fresh, path)
                print(json.dumps(row), flush=True)
        return self.all()[name]


def figures(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of the issue, from all rows; None is what was not run or cannot be, as the rows say."""

    def zero(budget: str, kind: str) -> float | None:
        row = rows.get(f"found/resnet56/{budget}/{kind}")
        return row.get("zero_epoch_top1") if row else None

    def scratch(name: str, budget: str, way: str) -> dict[int, float]:
        source = f"found/{name}/{budget}/depth" if way == "hwprune" else f"chosen/{name}/{budget}/{way}"
        network = rows.get(source, {}).get("network")
        runs = (row for key, row in rows.items() if key.startswith(f"scratch/{name}/"))
        return {row["seed"]: row["top1"] for row in runs if network and row["network"] == network}

    def table(name: str, budget: str) -> dict[str, Any]:
        found = {way: scratch(name, budget, way) for way in WAYS}
        means = {way: round(float(np.mean([*one.values()])), 4) for way, one in found.items() if one}
        return {**dict.fromkeys(WAYS), **means, "seeds": {way: one for way, one in found.items() if one}}

    return {
        "zero_epoch": {b: {kind: zero(b, kind) for kind in ("depth", "width")} for b in ZERO_EPOCH},
        "from_scratch": {name: {b: table(name, b) for b in FROM_SCRATCH} for name in NETWORKS},
    }
