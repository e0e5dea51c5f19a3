"""PruningNet against the published implementation: training step, scoring, budget check, memory.

    git clone https://github.com/liuzechun/MetaPruning /tmp/MetaPruning
    python benchmarks/pruningnet_speed.py --reference /tmp/MetaPruning

The published code is read from that folder and runs as it is, but on the CPU: its calls of `.cuda()` do
nothing here. Both sides train MobileNetV2 of the paper at the same random widths on the same images, step by
step in turns. Memory is the peak of a process that does nothing else. Without --reference the figures of
hwprune alone are printed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import finish
from pruningnet_published import Published

from hwprune.api import judge
from hwprune.config import load_config
from hwprune.models.registry import build
from hwprune.pruningnet.net import PruningNet
from hwprune.structure.blocks import tie
from hwprune.structure.trace import trace
from hwprune.training.distill import cross_entropy
from hwprune.training.memory import keep_freed_memory
from hwprune.training.optimiser import Optimiser
from hwprune.training.precision import choose_execution

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwprune.pruningnet.settings import GeneratorName
    from hwprune.structure.space import SearchSpace, Widths

PAPER = Path(__file__).parent / "paper" / "mobilenet_v2.toml"
BATCH, STEPS, MEMORY_STEPS = 32, 12, 6
CANDIDATES, CHECKED_BY_REFERENCE = 200_000, 40
Choice = tuple[list[int], list[int]]  # ratio number of each stage's output, and of each block's middle


class Ours:
    """hwprune's PruningNet of the paper's MobileNetV2."""

    def __init__(self, generator: GeneratorName, recompute: bool) -> None:
        config = load_config(PAPER)
        network = build(config.model.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space = trace(network, torch.zeros(1, 3, 224, 224), exclude=config.model.exclude)
        self.space: SearchSpace = tie(space, config.model.blocks).with_choices(1)
        self.net = PruningNet(
            network,
            self.space,
            generator,
            config.pruningnet.hidden,
            blocks=config.model.blocks,
            hidden_outside=config.pruningnet.hidden_outside,
            recompute=recompute,
        )
        recipe = judge.recipe(config.pruningnet)
        self.execution = choose_execution(self.net, torch.zeros(2, 3, 224, 224), "auto", "auto")
        self.optimiser, self.loss, self.lr = Optimiser(self.net, recipe), cross_entropy(recipe), recipe.lr
        self.net.train()

    def widths(self, choice: Choice) -> Widths:
        """The widths that the published code takes for a choice."""
        stages, middles = choice
        ratios = (
            middles[_block(group.name)] if group.name.endswith("conv.0.0") else stages[_block(group.name)]
            for group in self.space.groups
        )
        return tuple(
            max(1, group.width * (10 + 3 * ratio) // 100)
            for group, ratio in zip(self.space.groups, ratios, strict=True)
        )

    def step(self, images: torch.Tensor, labels: torch.Tensor, choice: Choice) -> None:
        """One training step, as `fit` takes it."""
        self.net.set_widths(self.widths(choice))
        placed = self.execution.place(images)
        with self.execution.autocast():
            loss = self.loss(placed, self.net(placed).float(), labels)
        self.optimiser.step(loss, self.lr)


def _block(name: str) -> int:
    return int(name.split(".")[1])


def choices(count: int, seed: int = 0) -> list[Choice]:
    """Random networks as the published training draws them."""
    rng = np.random.default_rng(seed)
    repeats = (1, 1, 2, 3, 4, 3, 3, 1)
    drawn = []
    for _ in range(count):
        stages = np.repeat(rng.integers(31, size=len(repeats)), repeats).tolist()
        drawn.append((stages, rng.integers(31, size=18).tolist()))
    return drawn


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up images: what they show does not change how long a step takes."""
    torch.manual_seed(0)
    return torch.randn(BATCH, 3, 224, 224), torch.randint(0, 1000, (BATCH,))


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def training_step(reference: Path | None) -> dict[str, Any]:
    """Median seconds of a step of each variant, taken in turns."""
    images, labels = batch()
    makers: dict[str, Callable[[], Any]] = {
        "fc": lambda: Ours("fc", recompute=False),
        "fc_recompute": lambda: Ours("fc", recompute=True),
        "residual": lambda: Ours("residual", recompute=False),
    }
    if reference is not None:
        makers["published"] = lambda: Published(reference)
    variants = {name: make() for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number, choice in enumerate(choices(STEPS + 1)):
        for name, variant in variants.items():
            if name == "published":
                spent = seconds(lambda v=variant, c=choice: v.step(images, labels, c))
            else:
                with keep_freed_memory():
                    spent = seconds(lambda v=variant, c=choice: v.step(images, labels, c))
            if number:
                times[name].append(spent)
    return {name: round(float(np.median(found)), 3) for name, found in times.items()}


def peak_memory(which: str, reference: Path | None) -> float:
    """Peak memory of a process that takes a few training steps, in GB."""
    command = [sys.executable, __file__, "--memory-of", which]
    if reference is not None:
        command += ["--reference", str(reference)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_gb"])


def take_steps(which: str, reference: Path | None) -> dict[str, float]:
    """What the process of `peak_memory` does; making the networks is not counted."""
    images, labels = batch()
    if which == "published":
        assert reference is not None
        variant: Any = Published(reference)
    else:
        generator, _, how = which.partition("_")
        variant = Ours(generator, recompute=how == "recompute")  # type: ignore[arg-type]
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    with keep_freed_memory() if which != "published" else torch.enable_grad():
        for choice in choices(MEMORY_STEPS):
            variant.step(images, labels, choice)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {"peak_gb": round(peak * 1024 / 1e9, 3)}


def budget_check(reference: Path | None) -> dict[str, Any]:
    """Microseconds to check one network against 330 M, and whether the verdicts are the same."""
    ours = Ours("shared", recompute=False)
    drawn = [ours.widths(choice) for choice in choices(CHECKED_BY_REFERENCE, seed=1)]
    table = np.array(drawn * (CANDIDATES // len(drawn)))
    ours.space.macs(table[:100])
    spent = seconds(lambda: published_count(ours.space, table) <= 330e6)
    figures: dict[str, Any] = {"check_us": round(1e6 * spent / len(table), 3)}
    if reference is not None:
        counter = Published.counter(reference)
        started = time.perf_counter()
        theirs = [counter(choice) for choice in choices(CHECKED_BY_REFERENCE, seed=1)]
        each = (time.perf_counter() - started) / len(theirs)
        same = published_count(ours.space, np.array(drawn)) / 1e6
        figures |= {
            "published_check_us": round(1e6 * each),
            "budget_check_ratio": round(each / (spent / len(table))),
            "same_verdicts": bool(np.array_equal(same <= 330, np.array(theirs) <= 330)),
            "largest_difference_percent": float(np.abs(same / np.array(theirs) - 1).max() * 100),
        }
    return figures


def published_count(space: SearchSpace, widths: np.ndarray) -> np.ndarray:
    """What the published code counts: MACs, one operation for each normalised element, pooling, biases."""
    total = space.macs(widths).astype(np.float64)
    for layer in space.layers:
        if layer.op == "conv":  # each is followed by a normalisation
            total += layer.outputs.count(widths) * layer.positions
    return total + 1280 * 49 + 1000


def main() -> None:
    """Measure everything, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, help="a checkout of the published implementation")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(take_steps(options.memory_of, options.reference)))
        return
    reference = options.reference
    from pruningnet_scoring import scored_as_published  # not in the processes whose memory is measured

    names = ("fc", "fc_recompute", "residual", "residual_recompute", *(("published",) if reference else ()))
    memory = {name: peak_memory(name, reference) for name in names}
    steps, check, candidate = training_step(reference), budget_check(reference), scored_as_published()
    figures: dict[str, Any] = {"step_seconds": steps, "peak_gb": memory, **check, **candidate}
    if reference is not None:
        figures["training_step_ratio"] = round(steps["published"] / steps["fc"], 2)
        figures["training_step_ratio_recompute"] = round(steps["published"] / steps["fc_recompute"], 2)
        ratios = {name: round(peak / memory["published"], 3) for name, peak in memory.items()}
        figures["memory_ratio"] = {name: ratio for name, ratio in ratios.items() if name != "published"}
    finish("pruningnet_speed", figures)


if __name__ == "__main__":
    main()
