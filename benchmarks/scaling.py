"""What a training step is made of on this machine, and what the paper's ResNet-50 run takes on many GPUs.

    python benchmarks/scaling.py            # measures for some minutes: nothing else may run
    python benchmarks/scaling.py --quick    # shows that it works; writes no result

Measured, with one thread for each worker: steps of the PruningNet of ResNet-20 at several batch sizes, which
splits a step into a part for each image and a part that every worker has whole (weights generated, parameters
updated); the sum of the gradients over two workers; the step of two workers, beside what the parts predict;
and the images that a thread decodes in a second.

Computed: hours of each stage of `paper/resnet50.toml` on 1 to 64 GPUs, from published figures and
assumptions. All of them are in `ASSUMED`, each with where it comes from. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish
from PIL import Image

from hwprune.data.augment import Augmentation
from hwprune.models.registry import build
from hwprune.pruningnet.net import PruningNet
from hwprune.pruningnet.settings import PruningNetSettings
from hwprune.structure.trace import trace
from hwprune.training import workers
from hwprune.training.optimiser import Optimiser
from hwprune.training.parallel import Step, data_parallel
from hwprune.training.task import Classification

GENERATORS = Path(__file__).parent / "results" / "generator_parameters.json"
OWN = Path(__file__).parent / "results" / "scaling.json"
BATCH, PARTS = 128, (1, 2, 4)  # images of a step, and into how many parts it is cut to fit the line
DECODERS = 8  # threads of each worker, on a machine with as many cores for each (`hwprune.data.decode`)
GPUS = (1, 2, 4, 8, 16, 32, 64)

# name: (value, where it comes from)
ASSUMED: dict[str, tuple[float, str]] = {
    "images_per_s": (
        2470,
        "ResNet-50 v1.5 training on one A100, mixed precision: NVIDIA DeepLearningExamples, "
        "PyTorch/Classification/ConvNets/resnet50v1.5/README.md",
    ),
    "forward_share": (1 / 3, "assumption: the backward pass takes twice the forward pass"),
    "least_step_ms": (
        25,
        "assumption: twice the 12.8 ms that a forward pass of one image takes in the inference table of the "
        "same README (V100): small parts of a batch wait for kernel launches",
    ),
    "memory_gb_per_s": (
        0.7 * 2039,
        "A100 80GB data sheet, 2039 GB/s; that 70 % are reached is an assumption",
    ),
    "passes": (
        7,
        "assumption: each generated parameter is read once, its gradient written and padded, and SGD reads "
        "three and writes two values of it",
    ),
    "node_gpus": (8, "assumption: machines like the DGX A100"),
    "node_gb_per_s": (200, "bus bandwidth of an all-reduce over 8 A100: NVIDIA/nccl-tests issue 149"),
    "network_gb_per_s": (
        85,
        "the same over 24 A100 in 3 machines with 4 HDR InfiniBand cards each: NVIDIA/nccl-tests issue 119",
    ),
    "overlap": (
        2 / 3,
        "assumption: gradients travel while the backward pass computes, that is 2/3 of a step",
    ),
}
IMAGES, CLASSES = 1_281_167, 1000  # of ImageNet's training part
KEPT_OUT = 50 * CLASSES  # sub-val, as in paper/resnet50.toml; so are the figures below
FIT = {"batch": 256, "epochs": 32, "images": IMAGES - KEPT_OUT}
FINAL = {"batch": 512, "epochs": 128, "images": IMAGES}
GENERATIONS, CANDIDATES, PARENTS = 20, 50, 10
SCORED = 100_000 + KEPT_OUT  # images read for each candidate


def assumed(name: str) -> float:
    """The value of one assumption."""
    return ASSUMED[name][0]


def step_ms(gpus: int, batch: int, parameters: float, generated: float, decoded_per_s: float) -> float:
    """Milliseconds of one training step.

    Args:
        gpus: How many share the batch.
        batch: Images of the step.
        parameters: Whose gradients are summed.
        generated: Of these, those of generators, which each GPU goes through whole.
        decoded_per_s: Images that one worker decodes in a second; infinity leaves that out.
    """
    part = batch / gpus
    network = max(assumed("least_step_ms"), 1e3 * part / assumed("images_per_s"))
    whole = assumed("passes") * 4 * generated / assumed("memory_gb_per_s") / 1e6
    within = gpus <= assumed("node_gpus")
    bandwidth = assumed("node_gb_per_s") if within else assumed("network_gb_per_s")
    travel = 4 * parameters * 2 * (gpus - 1) / gpus / bandwidth / 1e6
    computed = network + whole + max(0.0, travel - assumed("overlap") * network)
    return max(computed, 1e3 * part / decoded_per_s)


def hours(gpus: int, decoded_per_s: float) -> dict[str, float]:
    """Hours of each stage on some GPUs."""
    counts = json.loads(GENERATORS.read_text())["resnet50"]

    def training(plan: dict[str, int], parameters: float, generated: float = 0.0) -> float:
        steps = plan["epochs"] * (plan["images"] // plan["batch"])
        return steps * step_ms(gpus, plan["batch"], parameters, generated, decoded_per_s) / 3.6e6

    speed = min(assumed("images_per_s") / assumed("forward_share"), decoded_per_s)
    # the incumbent of a race changes after the first PARENTS networks of a generation (evolution/search.py)
    rounds = GENERATIONS * (math.ceil(PARENTS / gpus) + math.ceil((CANDIDATES - PARENTS) / gpus))
    found = {
        "pruningnet_fc": training(FIT, counts["fc"], counts["fc"] - counts["shared"]),
        "pruningnet_residual": training(FIT, counts["residual"], counts["residual"] - counts["shared"]),
        "search": rounds * SCORED / speed / 3600,
        "final_training": training(FINAL, counts["network"]),
    }
    return {name: round(value, 2) for name, value in found.items()}


class Steps:
    """Training steps of the PruningNet of ResNet-20, as `fit` takes them, on made-up images."""

    def __init__(self, part: int) -> None:
        network = build("resnet20")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.space = trace(network, torch.zeros(1, 3, 32, 32))
        self.net = PruningNet(network, self.space, "fc")
        recipe = PruningNetSettings()
        self.optimiser, step = Optimiser(self.net, recipe), Step(self.net, Classification.of(recipe))
        self.step = data_parallel(self.net, step, in_backward=self.optimiser.in_backward)
        self.batch = torch.randn(part, 3, 32, 32), torch.randint(0, 10, (part,))
        self.net.train()

    def gradient_bytes(self) -> int:
        """Bytes of all gradients."""
        return sum(4 * parameter.numel() for parameter in self.net.parameters())

    def milliseconds(self, count: int) -> float:
        """The median of some steps, the same widths each time this is called; the first two do not count."""
        rng, taken = np.random.default_rng(0), []
        for _ in range(count + 2):
            self.net.set_widths(self.space.sample(rng))
            started = time.perf_counter()
            self.optimiser.step(self.step(self.batch)[0], lr=0.01)
            taken.append(1e3 * (time.perf_counter() - started))
        return float(np.median(taken[2:]))


def sum_ms(size: int, count: int) -> float:
    """Milliseconds to sum that many bytes over the workers, nothing else going on."""
    tensor, taken = torch.zeros(size // 4), []
    for _ in range(count):
        workers.barrier()
        started = time.perf_counter()
        workers.begin_sum(tensor)()
        taken.append(1e3 * (time.perf_counter() - started))
    return float(np.median(taken))


def work(count: int, path: Path) -> None:
    """What each worker does: worker 0 leaves its figures in `path`."""
    with workers.group():
        torch.set_num_threads(1)
        torch.manual_seed(0)
        alone = workers.world() == 1
        parts = [BATCH // cut for cut in PARTS] if alone else [BATCH // workers.world()]
        figures: dict[str, Any] = {"step_ms": {part: Steps(part).milliseconds(count) for part in parts}}
        size = figures["gradient_bytes"] = Steps(2).gradient_bytes()
        figures["sum_ms"] = 0.0 if alone else sum_ms(size, count)
        if workers.is_main():
            path.write_text(json.dumps(figures))


def started(count: int, number: int) -> dict[str, Any]:
    """The figures that `work` leaves on some workers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
        command = [sys.executable, *(launcher if number > 1 else []), __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        subprocess.run([*command, "--worker", str(path), "--steps", str(count)], env=environment, check=True)
        return dict(json.loads(path.read_text()))


def decoded_per_s(count: int) -> float:
    """Images of 500 x 375 pixels and 110 kB that one thread decodes, crops and resizes in a second."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.float64)
    grain = rng.normal(0, 20, smooth.shape)  # makes the file as large as ImageNet's are on average
    file = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    augmentation = Augmentation(image_size=224, flip=True)
    begun = time.perf_counter()
    for _ in range(count):
        with Image.open(io.BytesIO(file.getvalue())) as image:
            augmentation.augment_large(image.convert("RGB"), rng)
    return count / (time.perf_counter() - begun)


def measured(count: int) -> dict[str, Any]:
    """Everything that is timed on this machine, and what the parts of a step say about two workers."""
    one, two = started(count, 1), started(count, 2)
    parts = np.array([float(part) for part in one["step_ms"]])
    per_image, whole = np.polyfit(parts, np.array(list(one["step_ms"].values())), 1)
    network = per_image * BATCH / 2
    predicted = whole + network + max(0.0, two["sum_ms"] - assumed("overlap") * network)
    (together,) = two["step_ms"].values()
    alone = one["step_ms"][str(BATCH)]
    return {
        "step_ms_of_one_worker": {part: round(value, 2) for part, value in one["step_ms"].items()},
        "ms_for_each_image": round(float(per_image), 4),
        "ms_whole_on_each_worker": round(float(whole), 2),
        "gradient_bytes": one["gradient_bytes"],
        "sum_ms_of_two_workers": round(two["sum_ms"], 2),
        "sum_gb_per_s": round(one["gradient_bytes"] / two["sum_ms"] / 1e6, 3),
        "step_ms_of_two_workers": round(together, 2),
        "step_ms_of_two_workers_predicted": round(float(predicted), 2),
        "speed_up_of_two_workers": round(alone / together, 3),
        "decoded_per_s_by_a_thread": round(decoded_per_s(20 * count), 1),
    }


def main() -> None:
    """Measure, compute, print two tables, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps, and no result file")
    parser.add_argument(
        "--computed-only", action="store_true", help="keep what was measured, compute the hours again"
    )
    parser.add_argument("--steps", type=int, default=40, help="steps of each figure")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.steps, options.worker)
        return
    if options.computed_only:
        figures: dict[str, Any] = {"measured": json.loads(OWN.read_text())["measured"]}
    else:
        figures = {"measured": measured(4 if options.quick else options.steps)}
    decoding = DECODERS * figures["measured"]["decoded_per_s_by_a_thread"]
    figures["assumed"] = {name: {"value": round(v, 3), "source": text} for name, (v, text) in ASSUMED.items()}
    figures["hours"] = {gpus: hours(gpus, math.inf) for gpus in GPUS}
    figures["hours_with_decoding"] = {gpus: hours(gpus, decoding) for gpus in GPUS}
    for title in ("hours", "hours_with_decoding"):
        show(title, figures[title])
    if options.quick:
        print(json.dumps(figures))
    else:
        finish("scaling", figures)


def show(title: str, table: dict[int, dict[str, float]]) -> None:
    """Print one table as Markdown."""
    stages = list(table[1])
    print(f"\n| {title}, GPUs | " + " | ".join(stages) + " |\n|---|" + "---|" * len(stages))
    for gpus, row in table.items():
        print(f"| {gpus} | " + " | ".join(f"{row[stage]:.2f}" for stage in stages) + " |")


if __name__ == "__main__":
    main()
