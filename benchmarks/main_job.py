"""The main job end to end, timed verb by verb, and its result checked from outside by plain ONNX Runtime.

    python benchmarks/main_job.py --name cifar10_resnet20 --model resnet20 \
        --data parquet:../shared/data/cifar10 --latency 60%

The run folder is kept under `runs/`, so a broken run goes on where it was stopped; its result then says
`resumed`, and the seconds of its verbs are those of the last part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from common import finish
from plain_onnxruntime import latency_ratio, one_thread

from hwprune.project.folder import Project
from hwprune.results import ExportResult, TrainResult

if TYPE_CHECKING:
    import onnxruntime

VERBS = ("profile", "search", "train", "export", "report")


def main() -> None:
    """Run, check, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the run folder and of the result file")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--latency", default="60%")
    options = parser.parse_args()
    folder = Path("runs") / options.name
    resumed = folder.exists()
    seconds, results = run_verbs(folder, options.model, options.data, options.latency)
    finish(options.name, {**summary(results, seconds), "resumed": resumed, "outside_hwprune": check(folder)})


def run_verbs(folder: Path, model: str, data: str, latency: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Run the verbs as a user would: seconds and JSON result of each."""
    seconds, results = {}, {}
    extra = {
        "init": ["--model", model, "--data", data],
        "search": ["--latency", latency],
        "export": ["--onnx"],
    }
    verbs = VERBS if (folder / "hwprune.toml").exists() else ("init", *VERBS)
    for verb in verbs:
        command = [
            sys.executable,
            "-m",
            "hwprune",
            verb,
            "--project",
            str(folder),
            "--json",
            *extra.get(verb, []),
        ]
        started = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds[verb] = round(time.monotonic() - started, 1)
        results[verb] = json.loads(done.stdout)
    return seconds, results


def summary(results: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """What hwprune itself says."""
    search, train, export = results["search"], results["train"], results["export"]
    wanted = {one["name"]: one for one in search["figures"]}
    latency, exported = search["figures"][0], export["figures"][0]  # on the first device
    history = search["pruningnet_history"]
    return {
        "budget": latency["budget"],
        "base_top1": train["base_top1"],
        "top1": train["top1"],
        "points_lost": round(100 * (train["base_top1"] - train["top1"]), 2),
        "base_ms": exported["base"],
        "measured_ms": exported["measured"],
        "error_ms": exported["error"],
        "limit_ms": exported["limit"],
        "within_budget": export["within_budget"],
        "predicted_ms": latency["predicted"],
        "table_error_percent": results["profile"]["error_percent"],
        "channel_multiple": results["profile"]["channel_multiple"],
        "macs_kept": round(wanted["macs"]["predicted"] / wanted["macs"]["base"], 4),
        "params_kept": round(wanted["params"]["predicted"] / wanted["params"]["base"], 4),
        "widths": search["widths"],
        "networks_scored": len(search["candidates"]),
        "seconds": {
            **seconds,
            "pruningnet": round(sum(epoch["seconds"] for epoch in history), 1),
            "final_training": round(sum(epoch["seconds"] for epoch in train["history"]), 1),
            "base_training": round(sum(epoch["seconds"] for epoch in train["base_history"]), 1),
        },
    }


def check(folder: Path) -> dict[str, Any]:
    """Accuracy and latency of the exported file, with nothing but onnxruntime and the test images."""
    path = folder / "pruned.onnx"
    (base_path,) = (folder / "hwprune-work" / "latency").glob("*/base.onnx")
    pruned = one_thread(str(path))
    ratio = latency_ratio(pruned, one_thread(str(base_path)))
    top1, claimed, limit = accuracy(pruned, folder), *claims(folder)
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return {
        "top1": top1,
        "latency_ratio": round(ratio, 4),
        "same_top1": abs(top1 - claimed) <= 0.001,
        "within_budget_and_3_percent": ratio <= 1.03 * limit,
        "metadata": sorted(metadata),
    }


def claims(folder: Path) -> tuple[float, float]:
    """Accuracy that hwprune reported, and the budget as a share of the unpruned network's latency."""
    train = TrainResult.load(folder / "hwprune-work" / "train.json")
    export = ExportResult.load(folder / "hwprune-work" / "export.json")
    return train.top1, export.latency.limit / export.latency.base


def accuracy(session: onnxruntime.InferenceSession, folder: Path) -> float:
    """Top-1 on the test images, one image at a time."""
    right = total = 0
    for images, labels in Project(folder).dataset.test.batches(1):
        (scores,) = session.run(None, {"input": images.numpy()})
        right, total = right + int(scores.argmax() == labels.item()), total + 1
    return right / total


if __name__ == "__main__":
    main()
