"""The paper's configurations, taken through every verb on a few real images.

    python benchmarks/paper_smoke.py

Each `paper/*.toml` runs as it stands but for its counts: a few images of CIFAR-10 stand in for ImageNet, with
one epoch, a handful of candidates and seconds of profiling. Networks, encodings, generators and choices are
untouched. It shows that nothing is missing, not what accuracy comes out: a PruningNet that saw 16 images
cannot judge, `search` says so, and then searches by MACs. Two candidates are scored by that PruningNet all
the same, with images that are kept and with images that are read each time, as ImageNet's would be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path
from typing import Any

from common import finish
from comparison_setup import DATA
from PIL import Image

from hwprune.data.sources import parquet
from hwprune.progress import QUIET
from hwprune.project import estimators
from hwprune.project.folder import Project
from hwprune.pruningnet import evaluate

PAPER = Path(__file__).parent / "paper"
NAMES = ("mobilenet_v1", "mobilenet_v2", "resnet50")
CLASSES, TRAIN, TEST = 4, 6, 2  # classes, and images of each
COUNTS = {
    "sub_val": 8,
    "max_seconds": 15.0,
    "epochs": 1,
    "batch_size": 8,
    "recalibration_images": 8,
    "eval_batch_size": 8,
    "population": 4,
    "parents": 2,
    "mutants": 2,
    "crossovers": 2,
    "generations": 2,
}
SEARCH = ("search", "--latency", "55%")
VERBS = (("profile",), SEARCH, ("train",), ("export", "--onnx"))
UNTRAINED = "PruningNet has not learnt enough to judge networks."


def main() -> None:
    """Run the networks and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with CIFAR-10 as parquet files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few_images(options.data, folder / "imagenet")
        for network in options.only or NAMES:
            finish(f"paper_smoke_{network}", run(network, folder))


def few_images(data: Path, folder: Path) -> None:
    """Real images in folders by class, as ImageNet's are."""
    raw = parquet.read(str(data))
    for part, source, count in (("train", raw.train, TRAIN), ("val", raw.test, TEST)):
        for label in range(CLASSES):
            chosen = (source.labels == label).nonzero().flatten()[:count].tolist()
            target = folder / part / raw.classes[label]
            target.mkdir(parents=True)
            for index in chosen:
                source.image(index).resize((256, 256), Image.Resampling.BICUBIC).save(target / f"{index}.png")


def run(network: str, folder: Path) -> dict[str, Any]:
    """Every verb on one network: seconds of each, and what it says."""
    project = folder / network
    project.mkdir()
    text = (PAPER / f"{network}.toml").read_text()
    for name, count in COUNTS.items():
        text = re.sub(rf"^{name} = \S+", f"{name} = {count}", text, flags=re.M)
    text = text.replace('"imagefolder:imagenet"', json.dumps(f"imagefolder:{folder / 'imagenet'}"))
    (project / "hwprune.toml").write_text(text)
    found: dict[str, Any] = {"seconds": {}}
    for verb, *extra in VERBS:
        started = time.monotonic()
        done = hwprune(verb, *extra, "--project", str(project))
        if verb == "search" and UNTRAINED in done.stderr:
            found["scores"] = scores(project)
            found["judge"] = done.stderr.partition("got:")[2].splitlines()[0].strip()
            done = hwprune(*SEARCH, "--score", "macs", "--project", str(project))
        if done.returncode:
            sys.exit(done.stderr)
        found["seconds"][verb] = round(time.monotonic() - started, 1)
        found[verb] = json.loads(done.stdout)
    latency = found["export"]["figures"][0]  # on the first device
    return {
        "seconds": found["seconds"],
        "genes": found["profile"]["groups"],
        "channel_multiple": found["profile"]["channel_multiple"],
        "judge": found.get("judge", "judged"),
        "scores_of_two_candidates": found.get("scores"),
        "networks_scored": len(found["search"]["candidates"]),
        "latency_share": round(latency["measured"] / latency["base"], 4),
        "within_budget": found["export"]["within_budget"],
    }


def scores(folder: Path) -> list[float]:
    """What the trained PruningNet gives the full and the half network; kept and streamed images agree."""
    project = Project(folder)
    space = project.space("cpu-1t")
    with contextlib.redirect_stdout(sys.stderr):
        net, _ = estimators.train_pruningnet(project, space, QUIET)
    parts, recipe = project.splits, estimators.recipe(project.config.pruningnet)
    networks = (space.full(), space.uniform(0.5))
    kept = [evaluate.Evaluator(net, parts.sub_train, parts.sub_val, recipe)(widths) for widths in networks]
    with unittest.mock.patch.object(evaluate, "_KEPT_BYTES", 0):
        streamed = evaluate.Evaluator(net, parts.sub_train, parts.sub_val, recipe)
        if [streamed(widths) for widths in networks] != kept:
            sys.exit("images that are read each time give another score")
    return kept


def hwprune(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one verb."""
    command = [sys.executable, "-m", "hwprune", *arguments, "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
