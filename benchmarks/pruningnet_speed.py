"""PruningNet against the published implementation: training step, scoring, budget check, memory.

    git clone https://github.com/liuzechun/MetaPruning /tmp/MetaPruning
    python benchmarks/pruningnet_speed.py --reference /tmp/MetaPruning

The published code is read from that folder and runs as it is, but on the CPU: its calls of `.cuda()` do
nothing here. Both sides train MobileNetV2 of the paper at the same random widths on the same images, step by
step in turns, each in a process of its own, whose peak is the memory. hwprune computes as it does by default:
in bfloat16 where the CPU has it, channels last. `fc_fp32` computes in float32 like the published code, and
`published_bf16` is the published network under the same autocast and layout. Without --reference the figures
of hwprune alone are printed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import finish
from pruningnet_published import Published

from hwprune.config import load_config
from hwprune.models.registry import build
from hwprune.project import estimators
from hwprune.structure.tied import tie
from hwprune.structure.trace import trace
from hwprune.training.memory import keep_freed_memory
from hwprune.training.optimiser import Optimiser
from hwprune.training.precision import choose_execution
from hwprune.training.task import Classification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.pruningnet.settings import GeneratorName
    from hwprune.structure.space import SearchSpace, Widths
    from hwprune.training.settings import PrecisionName

PAPER = Path(__file__).parent / "paper" / "mobilenet_v2.toml"
DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar10"
BATCH, STEPS = 32, 10
CHECKED, TABLE_ROWS, LIMIT = 40, (1, 50, 100_000), 330
Choice = tuple[list[int], list[int]]  # ratio number of each stage's output, and of each block's middle


class Ours:
    """hwprune's PruningNet of the paper's MobileNetV2."""

    def __init__(self, generator: GeneratorName, recompute: bool, precision: PrecisionName = "auto") -> None:
        config = load_config(PAPER)
        network = build(config.model.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space = trace(network, torch.zeros(1, 3, 224, 224), exclude=config.model.exclude)
        self.space: SearchSpace = tie(space, config.model.tied).with_choices(1)
        own = replace(config.pruningnet, generator=generator, recompute=recompute)
        self.net = estimators.pruningnet_of(replace(config, pruningnet=own), network, self.space)
        recipe = estimators.recipe(config.pruningnet)
        self.execution = choose_execution(self.net, torch.zeros(2, 3, 224, 224), precision, "auto")
        self.optimiser, self.task, self.lr = Optimiser(self.net, recipe), Classification.of(recipe), recipe.lr
        self.net.train()

    def step(self, images: torch.Tensor, labels: torch.Tensor, choice: Choice) -> None:
        """One training step, as `fit` takes it."""
        self.net.set_widths(widths_of(self.space, choice))
        placed = self.execution.place(images)
        with self.execution.autocast():
            loss = self.task.loss(self.net(placed), (placed, labels))
        self.optimiser.step(loss, self.lr)


def widths_of(space: SearchSpace, choice: Choice) -> Widths:
    """The widths that the published code takes for a choice."""
    stages, middles = choice
    ratios = (
        middles[_block(group.name)] if group.name.endswith("conv.0.0") else stages[_block(group.name)]
        for group in space.groups
    )
    return tuple(
        max(1, group.width * (10 + 3 * ratio) // 100)
        for group, ratio in zip(space.groups, ratios, strict=True)
    )


def _block(name: str) -> int:
    return int(name.split(".")[1])


def choices(count: int, seed: int = 0, least: int = 0) -> list[Choice]:
    """Random networks as the published training draws them; `least` is the number of the smallest ratio."""
    rng = np.random.default_rng(seed)
    repeats = (1, 1, 2, 3, 4, 3, 3, 1)
    drawn = []
    for _ in range(count):
        stages = np.repeat(rng.integers(least, 31, size=len(repeats)), repeats).tolist()
        drawn.append((stages, rng.integers(least, 31, size=18).tolist()))
    return drawn


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up images: what they show does not change how long a step takes."""
    torch.manual_seed(0)
    return torch.randn(BATCH, 3, 224, 224), torch.randint(0, 1000, (BATCH,))


class Worker:
    """A process that does nothing but training steps of one variant, each when it is told to."""

    def __init__(self, variant: str, reference: Path | None) -> None:
        command = [sys.executable, __file__, "--worker", variant]
        if reference is not None:
            command += ["--reference", str(reference)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> dict[str, float]:
        """The next line that the process prints."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def step(self, choice: Choice) -> dict[str, float]:
        """Seconds of one step, and the peak of the memory so far (GB)."""
        assert self.process.stdin is not None
        print(json.dumps(choice), file=self.process.stdin, flush=True)
        return self.answer()


def work(variant: str, reference: Path | None) -> None:
    """What the process of a `Worker` does; making the networks is not counted."""
    images, labels = batch()
    name, _, how = variant.partition("_")
    if name == "published":
        assert reference is not None
        net: Any = Published(reference, bf16=how == "bf16")
    else:
        net = Ours(name, recompute=how == "recompute", precision="fp32" if how == "fp32" else "auto")  # type: ignore[arg-type]
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    with contextlib.nullcontext() if name == "published" else keep_freed_memory():
        print("{}", flush=True)
        for line in sys.stdin:
            started = time.perf_counter()
            net.step(images, labels, json.loads(line))
            spent = time.perf_counter() - started
            status = Path("/proc/self/status").read_text().splitlines()
            peak = next(int(entry.split()[1]) for entry in status if entry.startswith("VmHWM"))
            print(json.dumps({"seconds": spent, "peak_gb": peak * 1024 / 1e9}), flush=True)


def training_steps(variants: Sequence[str], reference: Path | None) -> dict[str, dict[str, float]]:
    """Median seconds of a step, and peak memory, of each variant; they take their steps in turns."""
    workers = {name: Worker(name, reference) for name in variants}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for choice in choices(STEPS + 1):
        for name, worker in workers.items():
            taken[name].append(worker.step(choice))
    for worker in workers.values():
        worker.process.communicate()
    return {
        name: {
            "seconds": round(float(np.median([step["seconds"] for step in steps[1:]])), 3),
            "peak_gb": round(steps[-1]["peak_gb"], 3),
        }
        for name, steps in taken.items()
    }


def budget_check(reference: Path | None) -> dict[str, Any]:
    """Microseconds to check one network against 330 M, and whether the verdicts are the same."""
    space = Ours("shared", recompute=False).space
    drawn = [*choices(CHECKED // 2, seed=1), *choices(CHECKED // 2, seed=2, least=20)]
    table = np.array([widths_of(space, choice) for choice in drawn])
    counts = published_count(space, table) / 1e6
    each = {rows: _seconds_for_one(space, np.resize(table, (rows, table.shape[1]))) for rows in TABLE_ROWS}
    figures: dict[str, Any] = {
        "check_us": {str(rows): round(1e6 * spent, 3) for rows, spent in each.items()},
        "networks_within_330M": int((counts <= LIMIT).sum()),
        "networks_checked": len(drawn),
    }
    if reference is not None:
        counter = Published.counter(reference)
        started = time.perf_counter()
        theirs = np.array([counter(choice) for choice in drawn])
        spent = (time.perf_counter() - started) / len(drawn)
        figures |= {
            "published_check_us": round(1e6 * spent),
            "budget_check_ratio": {str(rows): round(spent / ours) for rows, ours in each.items()},
            "same_verdicts": bool(np.array_equal(counts <= LIMIT, theirs <= LIMIT)),
            "largest_difference_percent": round(float(np.abs(counts / theirs - 1).max() * 100), 4),
        }
    return figures


def _seconds_for_one(space: SearchSpace, table: np.ndarray) -> float:
    """Seconds for each network of a table that is checked at once, as a search does: best of a few tries."""
    spent = []
    for _ in range(20):
        started = time.perf_counter()
        space.macs(table) <= LIMIT * 1e6  # noqa: B015
        spent.append(time.perf_counter() - started)
    return min(spent) / len(table)


def published_count(space: SearchSpace, widths: np.ndarray) -> np.ndarray:
    """What the published code counts: MACs, one operation for each normalised element, pooling, biases."""
    total = space.macs(widths).astype(np.float64)
    weights = {tensor.name: tensor.shape for layer in space.layers for tensor in layer.tensors}
    for one in space.products:
        kernel = weights[f"{one.layer}.weight"][2:]
        if kernel:  # each convolution is followed by a normalisation
            total += one.outputs.count(widths) * (one.positions // math.prod(kernel))
    return total + 1280 * 49 + 1000


def main() -> None:
    """Measure everything, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, help="a checkout of the published implementation")
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.reference)
        return
    from pruningnet_scoring import scored_as_published  # not in the processes whose memory is measured

    reference = options.reference
    published = ("published",) if reference else ()
    first = training_steps((*published, "fc", "fc_recompute", "residual_recompute"), reference)
    alike = training_steps((*published, *(("published_bf16",) if reference else ()), "fc_fp32"), reference)
    residual = training_steps((*published, "residual", "shared"), reference)
    figures: dict[str, Any] = {
        "steps": first,
        "steps_by_precision": alike,
        "steps_of_small_generators": residual,
    }
    figures |= budget_check(reference)
    figures |= scored_as_published(options.data)
    if reference is not None:
        figures |= ratios(first, alike, residual)
    finish("pruningnet_speed", figures)


def ratios(*groups: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times faster, and how much of the memory; each against the published one of its own turns."""
    faster, memory = {}, {}
    for group in groups:
        theirs = group["published"]
        for name, ours in group.items():
            if name != "published":
                faster[name] = round(theirs["seconds"] / ours["seconds"], 2)
                memory[name] = round(ours["peak_gb"] / theirs["peak_gb"], 3)
    return {"training_step_ratio": faster, "memory_ratio": memory}


if __name__ == "__main__":
    main()
